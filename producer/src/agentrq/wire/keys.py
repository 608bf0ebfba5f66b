"""Every name agentrq uses in Redis. Owns the names only; docs/reference/keys-and-channels.md says what they hold."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from agentrq.errors import InvalidOption

DEFAULT_PREFIX = "agentrq"
DEFAULT_QUEUE = "agentrq"
OPEN_TEXTS = "!open"
"""On a worker's wake channel, before a blank and a session id: publish that session's texts under way once more."""
_PREFIX = re.compile(r"[^\s{}]+")


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys and channels under one prefix. The braces make a session's names share one cluster slot.

    Raises `InvalidOption` for a prefix with blanks or braces.
    """

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise InvalidOption("prefix", f"Expected a name without blanks and braces, got {self.prefix!r}")

    @classmethod
    def from_environment(cls) -> Keys:
        """The prefix of ``AGENTRQ_PREFIX``, default ``agentrq``."""
        return cls(os.environ.get("AGENTRQ_PREFIX") or DEFAULT_PREFIX)

    def state(self, session_id: str) -> str:
        """Hash: the session's state."""
        return f"{self.prefix}:{{{session_id}}}:state"

    def events(self, session_id: str) -> str:
        """Stream: every event, its id the cursor."""
        return f"{self.prefix}:{{{session_id}}}:events"

    def inbox(self, session_id: str) -> str:
        """Stream: commands for the owner until their receipt is written."""
        return f"{self.prefix}:{{{session_id}}}:inbox"

    def commands(self, session_id: str) -> str:
        """Hash: command id → its receipt's cursor (empty while it waits)."""
        return f"{self.prefix}:{{{session_id}}}:commands"

    def messages_channel(self, session_id: str) -> str:
        """Channel: JSON arrays of messages."""
        return f"{self.prefix}:{{{session_id}}}:messages"

    def status_channel(self, session_id: str) -> str:
        """Channel: JSON status and receipt objects."""
        return f"{self.prefix}:{{{session_id}}}:status"

    @property
    def sessions(self) -> str:
        """Sorted set: session id → start time in ms."""
        return f"{self.prefix}:sessions"

    @property
    def live(self) -> str:
        """Sorted set: id of a session that has not ended, or whose end no worker has seen yet → start time in ms."""
        return f"{self.prefix}:live"

    @property
    def indexed(self) -> str:
        """Hash: session id → names of the indexes that have it."""
        return f"{self.prefix}:index"

    def index(self, name: str) -> str:
        """Sorted set: session id → start time in ms, of the sessions that share what the name says."""
        return f"{self.prefix}:index:{name}"

    @property
    def waiting(self) -> str:
        """Sorted set: id of a session that waits for an answer → when its oldest open request was asked, in ms."""
        return f"{self.prefix}:waiting"

    @property
    def removed(self) -> str:
        """Sorted set: the nonce of each session that was removed in the last day → when, in ms."""
        return f"{self.prefix}:removed"

    @property
    def used(self) -> str:
        """Sorted set: a name that counts once and was used → until when it is kept, in s."""
        return f"{self.prefix}:used"

    @property
    def epochs(self) -> str:
        """Sorted set: id of an ended or removed session → its last epoch and until when it is kept (shared.lua)."""
        return f"{self.prefix}:epochs"

    @property
    def feed(self) -> str:
        """Stream: what happened to all sessions, in order."""
        return f"{self.prefix}:feed"

    @property
    def feed_trimmed(self) -> str:
        """String: the id of the last entry that was dropped from the feed."""
        return f"{self.prefix}:feed:trimmed"

    def ledger(self, day: int | str) -> str:
        """Hash: what the turns of a day cost; ``day``: days since 1970-01-01 UTC."""
        return f"{self.prefix}:ledger:{day}"

    @property
    def limits(self) -> str:
        """Hash: tenant, or ``*`` for all others → JSON of its limits."""
        return f"{self.prefix}:limits"

    def tenant(self, name: str) -> str:
        """Sorted set: the sessions of a tenant that have not ended → start in ms."""
        return f"{self.prefix}:tenant:{name}"

    def webhook(self, endpoint: str, part: str) -> str:
        """Of an endpoint of `agentrq deliver`: its ``lease``, its ``place`` in the feed, its ``dead`` letters."""
        return f"{self.prefix}:webhook:{endpoint}:{part}"

    def tenant_starts(self, name: str) -> str:
        """Sorted set: the starts of a tenant in the last minute, by their nonces."""
        return f"{self.prefix}:tenant-starts:{name}"

    @property
    def prices(self) -> str:
        """Hash: model → its imported price."""
        return f"{self.prefix}:prices"

    def worker(self, name: str) -> str:
        """String with the worker's token; its TTL is the lease."""
        return f"{self.prefix}:worker:{name}"

    def wake_channel(self, name: str) -> str:
        """Channel: ids of sessions of this worker that have commands waiting."""
        return f"{self.prefix}:worker:{name}:wake"

    def machine(self, machine_id: str) -> str:
        """Hash: the workers of one machine, by name: pid, start time and token of each."""
        return f"{self.prefix}:machine:{machine_id}"

    def maintenance_lock(self) -> str:
        """String: held by the worker that looks for lost and forgotten sessions right now."""
        return f"{self.prefix}:maintenance"


def queue_name() -> str:
    """The RQ queue of starts: ``AGENTRQ_QUEUE``, default ``agentrq``."""
    return os.environ.get("AGENTRQ_QUEUE") or DEFAULT_QUEUE


def control_queue(queue: str) -> str:
    """The RQ queue of all other commands: a full worker goes on taking these."""
    return f"{queue}-ctl"
