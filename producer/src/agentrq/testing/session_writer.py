"""Writes a session's events as its owner, by the scripts that a worker uses. Owns the places of the events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import redis

from agentrq.script_runner import ScriptRunner
from agentrq.wire import owner_calls
from agentrq.wire.codec import encode, encode_without_cursor
from agentrq.wire.events import Receipt, StatusEvent, make_message
from agentrq.wire.feed import feed_members
from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys
from agentrq.wire.message_feed import members_of
from agentrq.wire.messages import LIVE_ONLY
from agentrq.wire.script_calls import ScriptCall, session_keys, text
from agentrq.wire.status import Reason, Status, check_move

MAX_EVENTS: Final = 10_000
MAX_BYTES: Final = 64 << 20


class OwnerLost(Exception):
    """Somebody else writes this session now, it has ended, or it is gone."""


class Claim(NamedTuple):
    """What a worker knows of a session that it owns: its first prompt, and whether a turn was cut."""

    prompt: str
    cut: bool


class SessionWriter:
    """One session, written by one worker."""

    def __init__(self, client: redis.Redis, keys: Keys, session_id: str, retention_s: float) -> None:
        self.session_id = session_id
        self.epoch = self.seq = 0
        self._redis = client
        self._keys = keys
        self._retention_ms = int(retention_s * 1000)
        self._scripts = ScriptRunner(client)
        self._deltas = 0
        self._claim = ""
        self._status = Status.STARTING

    def claim(self, worker: str, token: str) -> Claim | None:
        """Take the session; None where it is another's, has ended or is gone."""
        names = ("epoch", "token", "nonce", "prompt", "turn", "status")
        values: Any = self._redis.hmget(self._keys.state(self.session_id), names)
        epoch, before, nonce, prompt, turn, status = (text(value or "") for value in values)
        if not status:
            return None
        self._claim = f"{token}-{epoch}"
        outcome, cursor, _ = self._scripts.run(owner_calls.claim_session(
            self._keys, self.session_id, worker, token, self._claim, int(epoch), before, nonce, "",
        ))  # fmt: skip
        if outcome != "claimed":
            return None
        self.epoch, self.seq = Cursor.parse(cursor)
        return Claim(prompt, turn == "1")

    def message(self, kind: str, content: Any, fields: Mapping[str, Any] | None = None) -> str:
        """Write a message; answers its cursor, '' for a delta."""
        now = self.now_ms()
        if kind in LIVE_ONLY:
            self._deltas += 1
            delta = make_message(self.session_id, f"{self.epoch}-d{self._deltas}", kind, now, content)
            self._write(owner_calls.Run("d", self.seq, [encode(delta)]), {})
            return ""
        cursor = self._next()
        event = make_message(self.session_id, cursor, kind, now, content, cursor)
        self._write(owner_calls.Run("m", self.seq, [encode(event)], feed=members_of(content)), fields or {})
        return cursor

    def enter(self, status: Status, feed: Iterable[bytes] = ()) -> None:
        """Enter a status that does not end the session; entering the current one again is no event."""
        if status is self._status:
            return
        check_move(self._status, status)
        self._status = status
        event = StatusEvent(self._next(), self.session_id, status, self.now_ms())
        run = owner_calls.Run("s", self.seq, [encode(event)], feed=[*feed, feed_members("status", status=status)])
        self._write(run, {"status": status})

    def receipt(self, entry: bytes, command_id: str, command: str, outcome: str, reason: str | None = None) -> None:
        """Answer a command, which leaves the inbox."""
        receipt = Receipt(
            self._next(), self.session_id, command_id, command, outcome, self.now_ms(), reason
        )  # fmt: skip
        self._write(owner_calls.Run("r", self.seq, [encode(receipt)], entry, command_id), {})

    def end(self, status: Status, reason: Reason, error: str | None, fields: Mapping[str, Any]) -> None:
        """Write the end."""
        self._next()
        event = StatusEvent("", self.session_id, status, self.now_ms(), error, reason)
        told = {"status": status, "reason": reason} | ({} if error is None else {"error": error})
        self._write(owner_calls.Run("e", self.seq, [encode_without_cursor(event)]), told | dict(fields))

    def inbox(self) -> list[tuple[bytes, bytes]]:
        """The commands that wait: entry and JSON of each."""
        entries: Any = self._redis.xrange(self._keys.inbox(self.session_id))
        return [(entry, fields.get(b"command", b"")) for entry, fields in entries]

    def _next(self) -> str:
        self.seq += 1
        return f"{self.epoch}-{self.seq}"

    def now_ms(self) -> int:
        """Milliseconds since the epoch by Redis's clock."""
        seconds, microseconds = self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def _write(self, run: owner_calls.Run, fields: Mapping[str, Any]) -> None:
        sid, keys = self.session_id, self._keys
        channels = keys.messages_channel(sid), keys.status_channel(sid)
        target = owner_calls.WriteTarget(sid, self.epoch, self._claim, session_keys(keys, sid), *channels)
        limits = owner_calls.WriteLimits(MAX_EVENTS, MAX_BYTES, self._retention_ms)
        writes = owner_calls.EventWrites(limits, self.now_ms())
        writes.add(target, dict(fields), [run], quick=False)
        (answer,) = self._scripts.run(ScriptCall("write_events", writes.keys, writes.args, writes.read))
        if answer.outcome != "ok":
            raise OwnerLost(f"session {sid}: {answer.outcome}")
