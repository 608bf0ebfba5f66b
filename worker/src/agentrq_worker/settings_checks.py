"""Checks, before a worker begins, that its settings can work on this machine.

Owns what is looked at: directories, names of variables that are no settings. Does not own names, types and ranges
(settings.py) nor providers (session/program_lookup.py).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agentrq_worker.settings import VARIABLES, InvalidSetting, Settings

_OTHERS: Final = frozenset(
    {
        "AGENTRQ_DATA_DIR",
        "AGENTRQ_DEMO_PACE",
        "AGENTRQ_LOG_FORMAT",
        "AGENTRQ_LOG_LEVEL",
        "AGENTRQ_OLLAMA_OPTIONS",
        "AGENTRQ_OLLAMA_THINK",
        "AGENTRQ_RUNNER_MARK",
    }
)
"""Variables of agentrq that are no settings of a worker."""
_OF_GATEWAY: Final = "AGENTRQ_GATEWAY_"


def check_directories(settings: Settings) -> None:
    """Raise `InvalidSetting` for a directory that a session would need and cannot use."""
    if settings.runners_dir is not None:
        _check(settings.runners_dir, "runners_dir", os.R_OK | os.X_OK, "read")
    _check(str(settings.spool_path), "spool_dir", os.W_OK | os.X_OK, "write to")
    homes = settings.homes_path
    while not homes.exists() and homes != homes.parent:  # what is missing of it, sessions make
        homes = homes.parent
    if homes == settings.homes_path or settings.homes_dir is not None:
        _check(str(homes), "homes_dir", os.W_OK | os.X_OK, "write to")


def _check(path: str, name: str, access: int, verb: str) -> None:
    if not Path(path).exists():
        raise InvalidSetting(f"{name}: there is no directory {path}: make it, or name another")
    if not Path(path).is_dir():
        raise InvalidSetting(f"{name}: {path} is not a directory")
    if not os.access(path, access):
        raise InvalidSetting(f"{name}: this user may not {verb} {path}")


def unknown_variables(settings: Settings, environment: Mapping[str, str]) -> str | None:
    """One line on the variables that look like settings and are none, perhaps misspelled; None where there are none."""
    passed = {name for provider in settings.providers.values() for name in provider.pass_env}
    known = {*VARIABLES, *_OTHERS}
    unknown = [
        name
        for name in sorted(environment)
        if name.startswith("AGENTRQ_") and not name.startswith(_OF_GATEWAY) and name not in known | passed
    ]
    if not unknown:
        return None
    told = []
    for name in unknown:
        nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
        told.append(f"{name} (did you mean {nearest[0]}?)" if nearest else name)
    return f"not used, for no setting has this name: {', '.join(told)}"
