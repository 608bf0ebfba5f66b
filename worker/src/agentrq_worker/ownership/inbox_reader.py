"""Reads the inboxes of the sessions that this worker hosts, in order, and gives each session its commands.

Owns where the next read of each inbox begins. Does not own what a command means (session/machine.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any, Final, Protocol

import redis
import redis.asyncio

from agentrq.script_runner import AsyncScriptRunner
from agentrq.wire import owner_calls
from agentrq.wire.commands import Command
from agentrq_worker.ownership.command_decoder import LONGEST, read_command
from agentrq_worker.redis_retry import retry_delay, retry_outages
from agentrq_worker.session_types import InboxCommand
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

INBOXES: Final = 500
"""Read in one call."""
PAGE: Final = 100
"""Entries of one inbox that are read at once."""
LONGEST_ID: Final = 64


class CommandReceiver(Protocol):
    """A hosted session, as far as commands go."""

    @property
    def id(self) -> str:
        """The session id."""

    def deliver(self, waiting: InboxCommand) -> None:
        """Take one command, in the inbox's order."""

    def reject(self, entry: bytes, command_id: str, command: str, reason: str) -> None:
        """Write the receipt of an entry that is not a valid command, though its id can be read."""


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
        self._after: dict[str, bytes] = {}  # where the next read begins
        self._woken: set[str] = set()
        self._unreadable: set[str] = set()  # told once
        self._wake = asyncio.Event()

    def add(self, session: CommandReceiver) -> None:
        """Deliver this session's commands from now on, those that wait already first."""
        self.sessions[session.id] = session
        self._after.pop(session.id, None)  # of a claim before, whose session may still be ending here
        self._woken.add(session.id)
        self._wake.set()

    def drop(self, session: CommandReceiver) -> None:
        """Deliver nothing more to this session."""
        if self.sessions.get(session.id) is session:
            del self.sessions[session.id]
            self._after.pop(session.id, None)
        self._unreadable.discard(session.id)

    def read_all(self) -> None:
        """Read every inbox again: wakes are hints, what one of them missed is found here."""
        self._woken.update(self.sessions)
        self._wake.set()

    async def deliver(self) -> None:
        """Read the inboxes of sessions that were woken, one round trip for all of them, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            woken, self._woken = [sid for sid in self._woken if sid in self.sessions], set()
            for at in range(0, len(woken), INBOXES):
                await retry_outages(functools.partial(self._read, woken[at : at + INBOXES]))

    async def _read(self, woken: list[str]) -> None:
        readers = [self.sessions.get(sid) for sid in woken]
        inboxes = [self._keys.inbox(sid) for sid in woken]
        starts = [self._after.get(sid, b"-") for sid in woken]
        call = owner_calls.read_streams(inboxes, starts, "command", most=PAGE, largest=LONGEST)
        for page in await self._scripts.run(call):
            sid, reader = woken[page.number], readers[page.number]
            if reader is None or self.sessions.get(sid) is not reader:
                continue  # it left, or was claimed anew: that one begins at the inbox's beginning
            if page.error is not None:
                if sid not in self._unreadable:
                    log.error("session %s: its inbox cannot be read: %s", sid, page.error)
                    self._unreadable.add(sid)
                continue
            for entry, data in page.entries:
                self._after[sid] = b"(" + entry
                self._deliver_one(sid, entry, data)
            if page.more:
                self._woken.add(sid)
                self._wake.set()

    def _deliver_one(self, sid: str, entry: bytes, data: bytes | int) -> None:
        session = self.sessions.get(sid)
        if session is None:
            return
        command = read_command(data)
        if isinstance(command, Command):
            session.deliver(InboxCommand(entry, command))
            return
        log.error("session %s: inbox entry %s is no command: %s", sid, entry.decode(), command.reason)
        if command.command_id:  # else nobody could be told: it is passed over
            session.reject(entry, *command)

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
                    log.info("wakes: connection lost, made anew: %s", error)
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
                sid = message["data"][:LONGEST_ID].decode("utf-8", "replace")
                if sid in self.sessions:
                    self._woken.add(sid)
                    self._wake.set()
            elif message["type"] == "subscribe":
                self.read_all()
