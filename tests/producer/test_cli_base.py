"""What the tests of the command line share: the real command as a process, and a writer in a worker's place."""

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis

from agentrq.client import AgentClient
from agentrq.script_runner import ScriptRunner
from agentrq.wire import owner_calls, script_calls, scripts
from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys

LIMIT_S = 30.0
COMMAND = (sys.executable, "-m", "agentrq")
KEYS = Keys()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def environment(**changes: str | None) -> dict[str, str]:
    """Ours without what would change an output; None takes a variable away."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGENTRQ_", "PYTHONUN", "NO_COLOR"))
    }
    given = kept | {"TZ": "UTC", "TERM": "xterm-256color"} | changes
    return {name: value for name, value in given.items() if value is not None}


def run_cli(*arguments: str, url: str | None = None, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; ``url`` goes into its environment."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(AGENTRQ_REDIS_URL=url, **changes),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def run_python(code: str, *arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run code that calls ``agentrq.cli.main`` somehow."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(AGENTRQ_REDIS_URL=url),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def only_line(said: str) -> str:
    """The one line of stderr that a user's mistake costs."""
    assert said.count("\n") == 1, said
    assert said.startswith("agentrq: ")
    return said.removeprefix("agentrq: ").rstrip()


class Follower:
    """A command under way whose output is read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self.process = process
        self.seen = b""
        self._output = output

    def read_until(self, text: str, times: int = 1) -> str:
        """All output so far, once it has the text so many times."""
        deadline = time.monotonic() + LIMIT_S
        while self.seen.count(text.encode()) < times:
            assert select.select([self._output], [], [], deadline - time.monotonic())[0], self.seen
            assert self._read(), self.seen
        return self.seen.decode()

    def finish(self) -> tuple[int, str, str]:
        """Exit code, whole output, stderr."""
        deadline = time.monotonic() + LIMIT_S
        while select.select([self._output], [], [], max(deadline - time.monotonic(), 0))[0] and self._read():
            pass
        said = self.process.stderr.read() if self.process.stderr else b""
        return self.process.wait(LIMIT_S), self.seen.decode(), said.decode()

    def type(self, keys: str) -> None:
        """Keys on the terminal."""
        os.write(self._output, keys.encode())

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, as it did when the command began."""
        return bool(termios.tcgetattr(self._output)[3] & termios.ECHO)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def _read(self) -> bool:
        try:
            data = os.read(self._output, 65536)
        except OSError:  # a terminal whose last writer has gone
            return False
        self.seen += data
        return bool(data)


@contextmanager
def following(
    *command: str, url: str, terminal: bool = False, keyboard: bool = False, **changes: str | None
) -> Iterator[Follower]:
    """A command under way: on a terminal of 80 columns (with its keyboard too), or with its output in a pipe."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, b"\x28\x00\x50\x00\x00\x00\x00\x00")
    process = subprocess.Popen(
        command,
        env=environment(AGENTRQ_REDIS_URL=url, **changes),
        stdout=theirs,
        stderr=subprocess.PIPE,
        stdin=theirs if keyboard else subprocess.DEVNULL,
    )
    os.close(theirs)
    try:
        yield Follower(process, ours)
    finally:
        process.kill()
        process.wait(LIMIT_S)
        if process.stderr:
            process.stderr.close()
        os.close(ours)


class Writer:
    """Writes a session's events as its worker would. Use `start` or give the id of a session that waits for one."""

    def __init__(self, url: str, session_id: str) -> None:
        self.sid = session_id
        self.redis = redis.Redis.from_url(url)
        self.epoch, self.seq = 0, 1
        self._scripts = ScriptRunner(self.redis)
        self._write_events = self.redis.register_script(scripts.SOURCES["write_events"])

    @classmethod
    def start(cls, url: str, session_id: str, **options: Any) -> "Writer":
        """A new session, claimed."""
        with AgentClient.from_url(url) as client:
            client.start("fake", "Do it", session_id, **options)
        return cls(url, session_id).claim()

    def claim(self) -> "Writer":
        nonce = script_calls.text(self.redis.hget(KEYS.state(self.sid), "nonce"))
        seen = (self.epoch, "token" if self.epoch else "", nonce)
        self.fence = f"claim-{self.epoch}"
        call = owner_calls.claim_session(KEYS, self.sid, "fake-worker", "token", self.fence, *seen, "")
        outcome, cursor, _ = self._scripts.run(call)
        assert outcome == "claimed"
        self.epoch, self.seq = Cursor.parse(cursor)
        return self

    def message(self, kind: str, content: Any, **members: Any) -> None:
        self.write(("m", self._head() | {"id": f"m{self.seq + 1}", "type": kind} | members | {"content": content}))

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

    def write(self, *events: tuple[str, dict[str, Any]], most: int = 1000) -> None:
        fields: dict[str, Any] = {}
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
        part = owner_calls.write_arguments(self.sid, self.epoch, self.fence, channels, fields, entries)
        keys = list(script_calls.session_keys(KEYS, self.sid))
        answer: Any = self._write_events(keys=keys, args=[most, 1 << 20, 60_000, 1_763_793_000_123, *part])
        assert [each.outcome for each in owner_calls.read_write_answers(answer)] == ["ok"]

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
        return {"cursor": f"{self.epoch}-{self.seq + place}", "sessionId": self.sid, "timestamp": 1_763_793_000_123}
