"""Reads the inboxes of the sessions that this worker hosts, in order, and gives each session its commands.

Owns where the next read of each inbox begins, and that a command is delivered once though Redis came back older. Does
not own what a command means (session/machine.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import Any, Final, Protocol

import redis
import redis.asyncio

from agentrq.script_runner import AsyncScriptRunner
from agentrq.wire import owner_calls
from agentrq.wire.commands import Command
from agentrq.wire.keys import OPEN_TEXTS
from agentrq_worker.ownership.command_decoder import LONGEST, read_command
from agentrq_worker.ownership.owner_leases import RENEW_NOW
from agentrq_worker.redis_retry import retry_delay, retry_outages
from agentrq_worker.session_types import InboxCommand
from agentrq_worker.settings import Settings
from agentrq_worker.stream.event_log import EventLog

log = logging.getLogger(__name__)

INBOXES: Final = 500
"""Read in one call."""
PAGE: Final = 100
"""Entries of one inbox that are read at once."""
LONGEST_ID: Final = 64
REPEAT_S: Final = 0.25
"""Between two times that texts under way are published once more: whoever asks meanwhile gets them together."""
DELIVERED_KEPT: Final = 2000
"""Ids of commands that each session remembers to have been given: twice what an inbox holds."""
UNEXPECTED_S: Final = 6.0
"""A command from before the claim that was not there at first waits this long: two comparisons of what Redis lost."""
UNKNOWN_FATE: Final = "Redis came back older: an earlier owner may have carried this out"


class CommandReceiver(Protocol):
    """A hosted session, as far as commands go."""

    @property
    def id(self) -> str:
        """The session id."""

    def deliver(self, waiting: InboxCommand) -> None:
        """Take one command, in the inbox's order."""

    def reject(self, entry: bytes, command_id: str, command: str, reason: str) -> None:
        """Write the receipt of an entry that is not a valid command, though its id can be read."""


class _Inbox:
    """One hosted session's inbox."""

    __slots__ = (
        "after", "claimed_at", "delivered", "event_log", "repaired", "resets", "seen_whole", "session",
        "unexpected_since",
    )  # fmt: skip

    def __init__(self, session: CommandReceiver, event_log: EventLog, claimed_at: int) -> None:
        self.session = session
        self.event_log = event_log
        self.claimed_at = claimed_at
        """In ms by Redis's clock, as the ids of entries are."""
        self.after = b"-"
        """Where the next read begins."""
        self.resets = 0
        self.repaired = False
        """Redis came back older, and the inbox is being read from its beginning again."""
        self.seen_whole = False
        """It was read to its end once."""
        self.unexpected_since: float | None = None
        """Since when (monotonic) it has a command that it should have had before."""
        self.delivered: dict[str, None] = {}
        """Ids of the newest `DELIVERED_KEPT` commands that the session was given."""

    def is_from_before(self, entry: bytes) -> bool:
        """Whether an entry is older than the claim."""
        return int(entry.partition(b"-")[0]) < self.claimed_at

    def should_hold(self, entry: bytes) -> bool:
        """Whether an entry is not to be delivered yet: it may be there because Redis came back older."""
        if not self.seen_whole or self.repaired or not self.is_from_before(entry):
            return False
        if self.unexpected_since is None:
            self.unexpected_since = time.monotonic()
        return time.monotonic() - self.unexpected_since < UNEXPECTED_S

    def deliver(self, entry: bytes, command: Command) -> None:
        """Give the session a command, unless it was carried out before Redis came back older."""
        command_id = command.command_id
        if self.event_log.repeat_receipt(command_id, entry) or command_id in self.delivered:
            return
        if self.repaired and self.is_from_before(entry):
            self.session.reject(entry, command_id, command.command, UNKNOWN_FATE)
            return
        self.delivered[command_id] = None
        if len(self.delivered) > DELIVERED_KEPT:
            del self.delivered[next(iter(self.delivered))]
        self.session.deliver(InboxCommand(entry, command))


class InboxReader:
    """Delivers what clients sent to the sessions of one worker."""

    def __init__(self, client: redis.asyncio.Redis, live: redis.asyncio.Redis, settings: Settings) -> None:
        self.sessions: dict[str, CommandReceiver] = {}
        """The hosted sessions, by id."""
        self._client = client
        self._live = live
        self._settings = settings
        self._keys = settings.keys
        self._scripts = AsyncScriptRunner(client)
        self._inboxes: dict[str, _Inbox] = {}
        self._woken: set[str] = set()
        self._unreadable: set[str] = set()  # told once
        self._wake = asyncio.Event()
        self._texts_asked: set[str] = set()
        """Ids of sessions whose texts under way a reader has asked for."""
        self._reader_asks = asyncio.Event()
        self.renew_asked = asyncio.Event()
        """Set when another worker finds this one's lease missing, and asks to have it renewed."""

    def add(self, session: CommandReceiver, event_log: EventLog, claimed_at: int) -> None:
        """Deliver this session's commands from now on, beginning with those that wait already.

        ``claimed_at`` as in `Claim`.
        """
        self.sessions[session.id] = session
        self._inboxes[session.id] = _Inbox(session, event_log, claimed_at)
        self._woken.add(session.id)
        self._wake.set()

    def drop(self, session: CommandReceiver) -> None:
        """Deliver nothing more to this session."""
        if self.sessions.get(session.id) is session:
            del self.sessions[session.id], self._inboxes[session.id]
        self._unreadable.discard(session.id)

    def reread(self, session_id: str) -> None:
        """Read an inbox from its beginning: Redis came back older, and the session's events were written again."""
        if (inbox := self._inboxes.get(session_id)) is not None:
            inbox.after, inbox.repaired, inbox.unexpected_since = b"-", True, None
            inbox.resets += 1
            self._woken.add(session_id)
            self._wake.set()

    def read_all(self) -> None:
        """Read every inbox again: wakes are hints, what one of them missed is found here."""
        self._woken.update(self.sessions)
        self._wake.set()

    async def deliver(self) -> None:
        """Read the inboxes of sessions that were woken, one round trip for all of them, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            woken, self._woken = [sid for sid in self._woken if sid in self._inboxes], set()
            for at in range(0, len(woken), INBOXES):
                await retry_outages(functools.partial(self._read, woken[at : at + INBOXES]))

    async def _read(self, woken: list[str]) -> None:
        read = [(inbox, inbox.resets) for sid in woken if (inbox := self._inboxes.get(sid)) is not None]
        call = owner_calls.read_streams(
            [self._keys.inbox(inbox.session.id) for inbox, _ in read], [inbox.after for inbox, _ in read],
            "command", most=PAGE, largest=LONGEST,
        )  # fmt: skip
        unfinished = set[str]()
        for page in await self._scripts.run(call):
            inbox, resets = read[page.number]
            sid = inbox.session.id
            if self._inboxes.get(sid) is not inbox or inbox.resets != resets:
                unfinished.add(sid)  # it left, was claimed anew, or is to be read from the beginning
                continue
            if page.error is not None:
                if sid not in self._unreadable:
                    log.error("session %s: its inbox cannot be read: %s", sid, page.error)
                    self._unreadable.add(sid)
                continue
            for entry, data in page.entries:
                if inbox.should_hold(entry):
                    unfinished.add(sid)
                    break
                inbox.after = b"(" + entry
                self._deliver_one(inbox, entry, data)
            if page.more and sid not in unfinished:
                unfinished.add(sid)
                self._woken.add(sid)
                self._wake.set()
        for inbox, resets in read:
            if inbox.resets == resets and inbox.session.id not in unfinished:
                inbox.repaired, inbox.seen_whole, inbox.unexpected_since = False, True, None

    def _deliver_one(self, inbox: _Inbox, entry: bytes, data: bytes | int) -> None:
        sid = inbox.session.id
        if self._inboxes.get(sid) is not inbox:  # an earlier command of this page ended it
            return
        command = read_command(data)
        if isinstance(command, Command):
            inbox.deliver(entry, command)
            return
        log.error("session %s: inbox entry %s is not a valid command: %s", sid, entry.decode(), command.reason)
        if command.command_id and not inbox.event_log.repeat_receipt(command.command_id, entry):
            inbox.session.reject(entry, *command)

    async def repeat_open_texts(self) -> None:
        """Have the texts that readers ask for published once more, until cancelled."""
        while True:
            await self._reader_asks.wait()
            self._reader_asks.clear()
            asked, self._texts_asked = self._texts_asked, set()
            for sid in asked:
                if (inbox := self._inboxes.get(sid)) is not None:
                    inbox.event_log.repeat_open_texts()
            await asyncio.sleep(REPEAT_S)

    async def listen(self) -> None:
        """Keep the subscription to this worker's wakes, until cancelled."""
        channel = self._keys.wake_channel(self._settings.worker_name)
        failures = 0
        while True:
            pubsub = self._live.pubsub()
            try:
                async with asyncio.timeout(self._settings.lease_s):
                    await pubsub.subscribe(channel)
                failures = 0
                await self._wakes(pubsub)
            except (redis.RedisError, OSError) as error:
                if not failures:
                    log.info("wakes: connection lost, connecting again: %s", error)
                failures += 1
            finally:
                await pubsub.aclose()
            await asyncio.sleep(retry_delay(failures))

    async def _wakes(self, pubsub: Any) -> None:
        silent = 0
        while True:
            message = await pubsub.get_message(timeout=self._settings.lease_s)
            silent = 0 if message is not None else silent + 1
            if silent > 1:
                raise redis.ConnectionError("no answer to PING")
            if message is None:
                await pubsub.ping()
            elif message["type"] == "message":
                word, _, about = (
                    message["data"][: len(OPEN_TEXTS) + LONGEST_ID].decode("utf-8", "replace").partition(" ")
                )
                if word == RENEW_NOW:
                    self.renew_asked.set()
                elif word == OPEN_TEXTS and about in self.sessions:
                    self._texts_asked.add(about)
                    self._reader_asks.set()
                elif word in self.sessions:
                    self._woken.add(word)
                    self._wake.set()
            elif message["type"] == "subscribe":
                self.read_all()
