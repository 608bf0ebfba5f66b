"""The atomic steps as Lua source, one file each. A file's head says what it does, its keys, arguments and answers.

`agentrq.wire.script_calls` builds the calls and reads the answers.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

_PACKAGE: Final = __name__
_PIECES: Final = [f"s{number}" for number in range(1, 66)]
_JOINED: Final = f"local function joined({','.join(_PIECES)}) return {'..'.join(_PIECES)} end\n"
_ALLOW_OOM: Final = "#!lua flags=allow-oom\n"


def load(package: str, *names: str, allow_oom: bool = False) -> str:
    """The source of one script: the files ``names`` of a package, in that order.

    ``allow_oom``: Redis runs it even when its memory is full. For scripts that free memory or end sessions, and for
    those that keep a live worker's lease.
    """
    folder = resources.files(package)
    return (_ALLOW_OOM if allow_oom else "") + "".join((folder / f"{name}.lua").read_text("utf-8") for name in names)


def _load(name: str, *, allow_oom: bool = False) -> str:
    return load(_PACKAGE, "rq_job", "feed", "shared", name, allow_oom=allow_oom)


def _load_indexing(name: str, *, allow_oom: bool = False) -> str:
    return load(_PACKAGE, "rq_job", "feed", "shared", "index", name, allow_oom=allow_oom)


def _write_events(*, allow_oom: bool) -> str:
    files = load(_PACKAGE, "publish_messages", "write_running", "feed", "shared", "write_events")
    return (_ALLOW_OOM if allow_oom else "") + _JOINED + files


SOURCES: Final[dict[str, str]] = {
    "open_session": load(_PACKAGE, "rq_job", "feed", "shared", "index", "limits", "open_session"),
    "claim_session": _load_indexing("claim_session"),
    "restore_session": _load_indexing("restore_session"),
    "import_session": _load_indexing("import_session"),
    "fetch_session": _load("fetch_session"),
    "find_changed_sessions": _load("find_changed_sessions"),
    "find_owned_sessions": _load("find_owned_sessions"),
    "release_session": _load("release_session", allow_oom=True),
    "read_streams": _load("read_streams"),
    "write_events": _write_events(allow_oom=False),
    "write_ends": _write_events(allow_oom=True),
    "send_command": _load("send_command"),
    "send_stop": _load("send_command", allow_oom=True),
    "end_session": _load("end_session", allow_oom=True),
    "end_unwritable_session": _load("end_unwritable_session", allow_oom=True),
    "remove_session": _load_indexing("remove_session", allow_oom=True),
    "check_writes": _load("check_writes", allow_oom=True),
    "prune_index": _load_indexing("prune_index"),
    "index_sessions": _load_indexing("index_sessions"),
    "index_new_sessions": _load_indexing("index_new_sessions"),
    "index_waiting": _load("index_waiting"),
    "read_feed": load(_PACKAGE, "read_feed"),
    "leave_feed": load(_PACKAGE, "leave_feed"),
    "move_place": load(_PACKAGE, "move_place"),
    "trim_feed": load(_PACKAGE, "trim_feed"),
    "renew_lease": _load("renew_lease", allow_oom=True),
    "release_lease": _load("release_lease"),
}
"""Script name → its whole source."""
