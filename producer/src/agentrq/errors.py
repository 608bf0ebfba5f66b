"""The exceptions that agentrq raises. Owns their names and texts, nothing else.

::

    AgentRQError
    ├── InvalidSessionId      a session id that is not [A-Za-z0-9_-]{1,64}      (also a ValueError)
    ├── InvalidOption         an unknown or ill-typed option, with its name     (also a ValueError)
    ├── SessionExists         a start with an id that is taken
    ├── SessionNotFound       no such session (or it was removed, or expired)
    ├── SessionEnded          a prompt, answer or interrupt after the end
    ├── StreamTrimmed         the cursor asked for is older than what is kept
    ├── CommandRejected       a receipt says rejected or expired
    ├── InboxFull             too many commands wait for the session's owner
    ├── TenantFull            a start would pass a limit of its tenant
    ├── RedisUnavailable      Redis cannot be reached, or is not ready
    ├── RedisRefused          Redis answered with an error: no permission, no writes, …
    │   └── RedisOutOfMemory  Redis has reached its maxmemory
    ├── EmbeddedServerError   no private server could be started
    └── WorkerNotInstalled    a command that needs the distribution agentrq-worker
"""

from __future__ import annotations


class AgentRQError(Exception):
    """Root of the tree: catching it catches every error that agentrq raises on purpose."""


class InvalidSessionId(AgentRQError, ValueError):
    """A session id must match ``[A-Za-z0-9_-]{1,64}``."""

    def __init__(self, session_id: object) -> None:
        shown = repr(session_id)
        super().__init__(f"Invalid session id {shown[:80]}: use 1 to 64 of A-Z a-z 0-9 _ -")
        self.session_id = session_id


class InvalidOption(AgentRQError, ValueError):
    """An option of a start or a command is unknown or has the wrong type.

    ``option`` is its name as the caller wrote it.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"Invalid option {option!r}: {problem}")
        self.option = option


class SessionExists(AgentRQError):
    """A start named a session id that is taken, by a live session or one that ended and is still kept."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session {session_id} exists already")
        self.session_id = session_id


class SessionNotFound(AgentRQError):
    """No session has this id: it never was, was removed, or its retention is over."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"No such session: {session_id}")
        self.session_id = session_id


class SessionEnded(AgentRQError):
    """A prompt, an answer or an interrupt for a session that is done or in error."""

    def __init__(self, session_id: str, status: str) -> None:
        super().__init__(f"Session {session_id} has ended ({status})")
        self.session_id = session_id
        self.status = status


class StreamTrimmed(AgentRQError):
    """Events after the cursor asked for are no longer kept; the oldest that are follow ``trimmed_through``."""

    def __init__(self, session_id: str, after: str, trimmed_through: str) -> None:
        super().__init__(f"Events of session {session_id} after {after} are gone: trimmed through {trimmed_through}")
        self.session_id = session_id
        self.after = after
        self.trimmed_through = trimmed_through


class CommandRejected(AgentRQError):
    """The receipt of a command says ``rejected`` or ``expired``; ``reason`` is the reason it gives."""

    def __init__(self, session_id: str, command_id: str, outcome: str, reason: str | None) -> None:
        super().__init__(f"Command {command_id} of session {session_id} was {outcome}: {reason or 'no reason given'}")
        self.session_id = session_id
        self.command_id = command_id
        self.outcome = outcome
        self.reason = reason


class InboxFull(AgentRQError):
    """Too many commands wait for the session's owner; nothing was added. Try again when some are applied."""

    def __init__(self, session_id: str, limit: int) -> None:
        super().__init__(f"Session {session_id} has {limit} commands waiting already: try again later")
        self.session_id = session_id
        self.limit = limit


class TenantFull(AgentRQError):
    """A start would pass a limit of its tenant; nothing was started. Try again when others have ended, or a minute on.

    ``limit`` is the limit's name: ``sessions``, ``queued`` or ``starts``.
    """

    def __init__(self, tenant: str, limit: str) -> None:
        what = {"sessions": "sessions", "queued": "queued sessions", "starts": "starts in the last minute"}[limit]
        super().__init__(f"Tenant {tenant} has as many {what} as it may: try again later")
        self.tenant = tenant
        self.limit = limit


class RedisUnavailable(AgentRQError):
    """Redis cannot be reached, did not answer in time, or is loading or failing over. Trying later may help.

    It is redis-py's ConnectionError or TimeoutError as well; ``__cause__`` is the error that redis-py raised.
    """


class RedisRefused(AgentRQError):
    """Redis answered with an error: no permission, a wrong password, no writes taken, a key of another type.

    It is redis-py's ResponseError (or a narrower one) as well; ``__cause__`` is the error that redis-py raised.
    """


class RedisOutOfMemory(RedisRefused):
    """Redis has reached its maxmemory and takes no more data. Stopping and removing sessions works all the same."""


class EmbeddedServerError(AgentRQError):
    """The private embedded Valkey could not be found, started or reached."""


class WorkerNotInstalled(AgentRQError):
    """The command needs the distribution agentrq-worker, which is not installed here."""
