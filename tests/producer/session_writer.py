"""A writer of a session's events in a worker's place."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import redis

from agentrq.client import AgentClient
from agentrq.script_runner import ScriptRunner
from agentrq.testing.fake_redis import FakeRedis
from agentrq.wire import owner_calls, script_calls, scripts
from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys

KEYS = Keys()
WORKER = "fake-worker"


class Writer:
    """Writes a session's events as its worker would. Use `start` or give the id of a session that waits for one."""

    def __init__(self, server: str | FakeRedis, session_id: str) -> None:
        """``server``: a URL, or a server in this process."""
        self.sid = session_id
        self.redis = server.redis if isinstance(server, FakeRedis) else redis.Redis.from_url(server)
        self.epoch, self.seq = 0, 1
        self.clock: Callable[[], int] = lambda: 1_763_793_000_123
        self._scripts = ScriptRunner(self.redis)
        self._write_events: Any = self.redis.register_script(scripts.SOURCES["write_events"])

    @classmethod
    def start(cls, server: str | FakeRedis, session_id: str, **options: Any) -> "Writer":
        """A new session, claimed."""
        with server.client() if isinstance(server, FakeRedis) else AgentClient.from_url(server) as client:
            client.start("fake", "Do it", session_id, **options)
        return cls(server, session_id).claim()

    def claim(self) -> "Writer":
        nonce, token = (
            script_calls.text(value or "") for value in self.redis.hmget(KEYS.state(self.sid), "nonce", "token")
        )
        self.fence = f"claim-{self.epoch}"
        call = owner_calls.claim_session(KEYS, self.sid, WORKER, "token", self.fence, self.epoch, token, nonce, "")
        outcome, cursor, _ = self._scripts.run(call)
        assert outcome == "claimed"
        self.epoch, self.seq = Cursor.parse(cursor)
        return self

    def message(self, kind: str, content: Any, most: int = 1000, **members: Any) -> None:
        self.write(
            ("m", self._head() | {"id": f"m{self.seq + 1}", "type": kind} | members | {"content": content}), most=most
        )

    def messages(self, contents: Iterable[tuple[str, Any]]) -> None:
        """Messages of these types and contents, all in one step."""
        events = ((kind, content, self._head(place)) for place, (kind, content) in enumerate(contents, 1))
        self.write(
            *(("m", head | {"id": head["cursor"], "type": kind, "content": content}) for kind, content, head in events),
            most=100_000,
        )

    def delta(self, kind: str, text: str, block: str, offset: int) -> None:
        content = {"text": text, "blockId": block, "offset": offset}
        self.write(("d", {"sessionId": self.sid, "id": "d", "type": kind, "timestamp": 0, "content": content}))

    def statuses(self, *statuses: str) -> None:
        """Enter statuses, all in one step."""
        self.write(*(("s", self._head(place) | {"status": status}) for place, status in enumerate(statuses, 1)))

    def receipt(self, command_id: str, command: str, outcome: str, **members: Any) -> None:
        about = {"commandId": command_id, "command": command, "outcome": outcome}
        self.write(("r", self._head() | about | members))

    def end(self, status: str, reason: str, **members: Any) -> None:
        self.write(("e", {"sessionId": self.sid, "status": status, "timestamp": 0, "reason": reason} | members))

    def write(self, *events: tuple[str, dict[str, Any]], most: int = 1000, state: dict[str, Any] | None = None) -> None:
        """Write events, and these fields of the state in the same step."""
        fields: dict[str, Any] = dict(state or {})
        entries: list[Any] = []
        for kind, event in events:
            self.seq += kind != "d"
            text = json.dumps(event)
            for name in ("status", "reason", "error") if kind in "se" else ():
                if name in event:
                    fields[name] = event[name]
            sent = [(text[1:] if kind == "e" else text).encode()]
            entries.append(owner_calls.Run(kind, self.seq, sent, b"0-1", event.get("commandId", "")))
        channels = (KEYS.messages_channel(self.sid), KEYS.status_channel(self.sid))
        keys = script_calls.session_keys(KEYS, self.sid)
        target = owner_calls.WriteTarget(self.sid, self.epoch, self.fence, keys, *channels)
        writes = owner_calls.EventWrites(owner_calls.WriteLimits(most, 1 << 28, 60_000), 1_763_793_000_123)
        writes.add(target, fields, entries, quick=False)
        answer: Any = self._write_events(keys=writes.keys, args=writes.args)
        assert [each.outcome for each in writes.read(answer)] == ["ok"]

    def inbox(self) -> list[dict[str, Any]]:
        entries: Any = self.redis.xrange(KEYS.inbox(self.sid))
        return [json.loads(fields[b"command"]) for _, fields in entries]

    def stream(self) -> list[dict[str, Any]]:
        entries: Any = self.redis.xrange(KEYS.events(self.sid))
        return [json.loads(next(iter(fields.values()))) for _, fields in entries]

    def followed(self) -> bool:
        """Whether somebody listens to both channels."""
        channels = [KEYS.messages_channel(self.sid), KEYS.status_channel(self.sid)]
        return all(count for _, count in self.redis.pubsub_numsub(*channels))

    def _head(self, place: int = 1) -> dict[str, Any]:
        return {"cursor": f"{self.epoch}-{self.seq + place}", "sessionId": self.sid, "timestamp": self.clock()}
