"""What one caller may do: `Grant`. Owns the rules of who sees which session and who may start what; knows no HTTP."""

from __future__ import annotations

import posixpath
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from agentrq import State
from agentrq.wire.commands import Options

ACTIONS: Final = frozenset({"read", "start", "prompt", "answer", "stop", "admin"})
"""All that a grant may allow."""
TENANT: Final = "tenant"
"""The name in a session's metadata that says whose it is; only the gateway writes it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may do. The host app makes it for each request, or it is read from a token.

    ``subject``: who the caller is; limits count by it. ``tenant``: only this tenant's sessions are seen, and sessions
    started are its own; None: all. ``sessions``: ids, or ``"*"`` for all. ``actions``: some of `ACTIONS`.
    ``providers``: the only ones that may be started; None: all. ``cwd_prefix``: the directory below which sessions may
    be started; None: anywhere. ``expires_at``: seconds since the epoch; streams end then. None: never.

    Raises ValueError for an action that is not one, or a subject that is empty.
    """

    subject: str
    tenant: str | None = None
    sessions: Collection[str] | str = "*"
    actions: Collection[str] = ACTIONS
    providers: Collection[str] | None = None
    cwd_prefix: str | None = None
    expires_at: float | None = None

    def __post_init__(self) -> None:
        given: Any = self  # what a token or a host app gave may be anything
        if not isinstance(given.subject, str) or not self.subject:
            raise ValueError("a grant needs a subject: a text that is not empty")
        if isinstance(self.sessions, str) and self.sessions != "*":
            raise ValueError(f"sessions: expected a list of ids, or '*', got {self.sessions!r}")
        if isinstance(self.actions, str) or (unknown := set(self.actions) - ACTIONS):
            shown = self.actions if isinstance(self.actions, str) else ", ".join(sorted(map(str, unknown)))
            raise ValueError(f"actions: {shown} is not a list of {', '.join(sorted(ACTIONS))}")
        if isinstance(self.providers, str):
            raise ValueError("providers: expected a list")
        if given.tenant is not None and (not isinstance(given.tenant, str) or not self.tenant):
            raise ValueError("tenant: expected a text that is not empty")
        if self.cwd_prefix is not None and not posixpath.isabs(self.cwd_prefix):
            raise ValueError("cwd_prefix: expected an absolute path")

    def allows(self, action: str) -> bool:
        """Whether the caller may do this at all."""
        return action in self.actions

    def names(self, session_id: str) -> bool:
        """Whether a session is among those the grant names; whose it is says its state (`sees`)."""
        return self.sessions == "*" or session_id in self.sessions

    def sees(self, state: State) -> bool:
        """Whether the caller may know that this session exists."""
        return self.names(state.session_id) and (self.tenant is None or state.metadata.get(TENANT) == self.tenant)

    def directory_refused(self, options: Options) -> str | None:
        """The name of the first start option that leaves `cwd_prefix`; None where none does."""
        if self.cwd_prefix is None:
            return None
        if options.cwd is None:
            return "cwd"  # without one, the agent would run in its worker's own directory
        named = {
            "cwd": [options.cwd],
            "configDir": [] if options.config_dir is None else [options.config_dir],
            "additionalDirectories": options.additional_directories or [],
        }
        return next((name for name, paths in named.items() if not all(map(self._is_below, paths))), None)

    def sign(self, answer: Any) -> Any:
        """An answer to a request, with ``by``: the one who decided is the caller, whatever the answer says."""
        if self is EVERYTHING:
            return answer
        if isinstance(answer, dict):
            return answer | {"by": self.subject}
        return {"decision": answer, "by": self.subject} if answer in ("allow", "deny") else answer

    def _is_below(self, path: str) -> bool:
        prefix, found = posixpath.normpath(self.cwd_prefix or "/"), posixpath.normpath(path)
        # `..` behind a symbolic link leads elsewhere than it reads.
        plain = posixpath.isabs(path) and ".." not in path.split("/")
        return plain and (found == prefix or found.startswith(prefix.rstrip("/") + "/"))


EVERYTHING: Final = Grant("local")
"""What everybody may do where no authentication was set up: the gateway listens on loopback only."""
