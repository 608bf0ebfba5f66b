"""The inputs of tool calls that `codex exec` and `codex app-server` have in common.

Owns these shapes alone. The lines themselves differ in their members' names (snake and camel case): exec_wire.py and
app_wire.py.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Given(msgspec.Struct, omit_defaults=True, gc=False):
    """What all inputs of calls share."""


class CommandInput(Given):
    """The input of a ``command_execution``."""

    command: Any
    cwd: Any = msgspec.UNSET


class ChangeInput(Given):
    """The input of a ``file_change``."""

    changes: Any


class SearchInput(Given):
    """The input of a ``web_search``; there its line has the output too: the query, and no results."""

    query: Any
    action: Any = msgspec.UNSET
