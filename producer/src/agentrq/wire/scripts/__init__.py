"""The atomic steps, as Lua source: each file's head says the keys it touches and what it answers."""

from __future__ import annotations

from importlib import resources
from typing import Final

_HERE = resources.files(__name__)
_LIB = (_HERE / "lib.lua").read_text("utf-8")

NAMES: Final = (
    "open", "claim", "write", "send", "end", "remove", "restore", "read", "look", "check", "prune", "when",
)  # fmt: skip
SOURCES: Final[dict[str, str]] = {name: _LIB + (_HERE / f"{name}.lua").read_text("utf-8") for name in NAMES}
"""Script name → its whole source, the shared part in front."""
_PIECES = [f"s{number}" for number in range(1, 66)]
_JOINED = f"local function joined({','.join(_PIECES)}) return {'..'.join(_PIECES)} end\n"
for _name in ("quick", "publish"):
    SOURCES["write"] = (_HERE / f"{_name}.lua").read_text("utf-8") + SOURCES["write"]
SOURCES["write"] = _JOINED + SOURCES["write"]
