"""Files in which built-in runners keep what a session needs to go on in another process on this machine.

Owns the directory and its upkeep: ``$XDG_STATE_HOME`` (else ``~/.local/state``) ``/agentrq/KIND``, readable by its
owner only; files that were not written for `KEPT_DAYS` are removed. Does not own the files' content.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from pathlib import Path

KEPT_DAYS = 7
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def state_file(kind: str, session_id: str, suffix: str) -> Path | None:
    """The file of one session; None where there is no directory for it, or the id is not a valid one."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.environ.get("HOME", ""), ".local", "state")
    if not os.path.isabs(base) or not _NAME.fullmatch(session_id):
        return None
    directory = Path(base) / "agentrq" / kind
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _prune(directory)
    except OSError:
        return None
    return directory / f"{session_id}{suffix}"


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file in one step: a reader sees the old or the new one. Raises OSError."""
    number, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _prune(directory: Path) -> None:
    oldest = time.time() - KEPT_DAYS * 86400
    for file in directory.iterdir():
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < oldest:
                file.unlink()
