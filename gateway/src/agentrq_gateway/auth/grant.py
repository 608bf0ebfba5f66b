"""What one caller may do: `Grant`. Owns the rules of who sees which session and who may start what; knows no HTTP."""

from __future__ import annotations

import posixpath
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final

from agentrq import State
from agentrq.wire.commands import Options, check_payer

ACTIONS: Final = frozenset({"read", "start", "prompt", "answer", "stop", "admin"})
"""All that a grant may allow."""
USUAL: Final = ACTIONS - {"admin"}
"""What a grant allows that does not say: all that concerns sessions."""
TENANT: Final = "tenant"
"""The name in a session's metadata that says whose it is; only the gateway writes it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may do. The host app makes it for each request, or it is read from a token.

    ``subject``: who the caller is; limits count by it. ``tenant``: only this tenant's sessions are seen, and sessions
    started are its own; None: all. ``sessions``: ids, or ``"*"`` for all. ``actions``: some of `ACTIONS`; default: all
    but ``admin``, which is for who runs workers and signs for others.
    ``providers``: the only ones that may be started; None: all. ``cwd_prefix``: the directory below which sessions may
    be started; None: anywhere. ``expires_at``: seconds since the epoch; streams end then. None: never.

    Raises ValueError for an action that is not one, or a subject that is empty.
    """

    subject: str
    tenant: str | None = None
    sessions: Collection[str] | str = "*"
    actions: Collection[str] = USUAL
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
        if given.tenant is not None:
            check_payer("tenant", given.tenant)  # what a start would refuse is refused here
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
        return next((name for name, paths in named.items() if not all(map(self.holds, paths))), None)

    def sign(self, answer: Any) -> Any:
        """An answer to a request, with ``by``: the one who decided is the caller, whatever the answer says."""
        if self is EVERYTHING:
            return answer
        if isinstance(answer, dict):
            return answer | {"by": self.subject}
        return {"decision": answer, "by": self.subject} if answer in ("allow", "deny") else answer

    def holds(self, path: str) -> bool:
        """Whether a directory is one that sessions may be started in."""
        if self.cwd_prefix is None:
            return True
        prefix, found = posixpath.normpath(self.cwd_prefix), posixpath.normpath(path)
        # `..` behind a symbolic link leads elsewhere than it reads.
        plain = posixpath.isabs(path) and ".." not in path.split("/")
        return plain and (found == prefix or found.startswith(prefix.rstrip("/") + "/"))


def narrowed(
    grant: Grant,
    *,
    subject: str | None = None,
    tenant: str | None = None,
    sessions: Collection[str] | None = None,
    actions: Collection[str] | None = None,
    providers: Collection[str] | None = None,
    cwd_prefix: str | None = None,
) -> Grant:
    """A grant for less than another; what is None stays. Raises ValueError naming the member that would be more."""
    if subject not in (None, grant.subject) and not grant.allows("admin"):
        raise ValueError("subject: only who has the action admin signs for others")
    if tenant not in (None, grant.tenant) and grant.tenant is not None:
        raise ValueError("tenant: it is fixed by your own grant")
    if sessions is not None and not all(map(grant.names, sessions)):
        raise ValueError("sessions: there is one that your own grant does not name")
    if actions is not None and not all(map(grant.allows, actions)):
        raise ValueError("actions: there is one that your own grant does not allow")
    if providers is not None and grant.providers is not None and not set(providers) <= set(grant.providers):
        raise ValueError("providers: there is one that your own grant does not allow")
    if cwd_prefix is not None and not grant.holds(cwd_prefix):
        raise ValueError("cwd_prefix: it does not lie below that of your own grant")
    changes: dict[str, Any] = {
        "subject": subject, "tenant": tenant, "sessions": sessions, "actions": actions, "providers": providers,
        "cwd_prefix": cwd_prefix,
    }  # fmt: skip
    return replace(grant, **{name: value for name, value in changes.items() if value is not None})


EVERYTHING: Final = Grant("local", actions=ACTIONS)
"""What everybody may do where no authentication was set up: the gateway listens on loopback only."""
