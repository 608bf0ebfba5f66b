"""The scripted agent: takes sessions that a test starts, and says what the test wrote.

Owns the thread that stands for a worker, its lease, and which turn is played next. What a session does with its turn
is scripted_session.py's.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final

import redis

from agentrq.client.redis_requests import Context
from agentrq.testing.scripted_session import ScriptedSession, WorkerDied
from agentrq.testing.session_writer import OwnerLost, SessionWriter
from agentrq.testing.steps import Step, Turn, text
from agentrq.wire.ids import new_id
from agentrq.wire.script_calls import text as decoded

LEASE_S: Final = 3600
GO_ON: Final = b"!go-on"
"""On the worker's wake channel: something is to be done that no client asked for."""


class ScriptedAgent:
    """Plays turns that a test wrote, in every session that is started; the fixture ``scripted_agent`` makes it.

    Each turn that a prompt begins takes the next of the turns given to `turn`. A prompt without one is answered by its
    own text. The methods may be called from any thread.
    """

    def __init__(self, client: redis.Redis, context: Context) -> None:
        """``client``: a synchronous redis-py client of the server that the sessions are on."""
        self._redis = client
        self._context = context
        self._keys = context.keys
        self._turns: deque[Turn] = deque()
        self._sessions: dict[str, ScriptedSession] = {}
        self._lives = 0
        self._errors: list[BaseException] = []
        self._todo: deque[Callable[[], None]] = deque()
        self._closed = False
        self._pubsub = client.pubsub()
        self._hire()
        self._thread = threading.Thread(target=self._run, name="agentrq scripted agent", daemon=True)
        self._thread.start()

    def turn(self, *steps: Step | Turn) -> None:
        """Have the next turn that no other script takes take these steps (see agentrq.testing.steps).

        Instead of steps a generator function may be given: it gets the prompt and yields steps; the value of a
        ``yield approval(…)`` or ``yield question(…)`` is the answer as the client sent it.
        """
        if len(steps) == 1 and callable(steps[0]):
            self._turns.append(steps[0])
            return
        if not all(isinstance(step, Step) for step in steps):
            raise TypeError("A turn is made of steps (agentrq.testing.steps), or is one generator function")
        self._turns.append(lambda _: _played(steps))

    def go_on(self) -> None:
        """End the ``hold()`` of every session that holds."""
        self._do(self._go_on)

    def recover(self) -> None:
        """After ``die()``: have another worker take the lost sessions; a cut turn goes on by the next script."""
        self._do(self._recover)

    def close(self) -> None:
        """End the thread. Raises what a script raised."""
        self._closed = True
        self._wake()
        self._thread.join(10)
        self._pubsub.close()
        with contextlib.suppress(redis.RedisError):
            self._redis.delete(self._keys.worker(self._name))
        if self._errors:
            raise self._errors[0]

    # -- the thread

    def _run(self) -> None:
        self._take_queued()
        while not self._closed:
            message = self._pubsub.get_message(timeout=1.0)
            if message is None or message["type"] not in ("message", "pmessage"):
                continue
            data = message["data"]
            if message["type"] == "pmessage":
                if b'"status":"queued"' in data:
                    self._take_if_queued(decoded(message["channel"]).partition("{")[2].partition("}")[0])
            elif data == GO_ON:
                while self._todo:
                    self._todo.popleft()()
            elif (session := self._sessions.get(decoded(data))) is not None:
                self._play(session, session.read_inbox)

    def _take_queued(self) -> None:
        ids: Any = self._redis.zrange(self._keys.sessions, 0, -1)
        for session_id in map(decoded, ids):
            self._take_if_queued(session_id)

    def _take_if_queued(self, session_id: str) -> None:
        """Take a session that nobody has taken: its start may be heard of after it was found in the index."""
        if self._redis.hget(self._keys.state(session_id), "status") == b"queued":
            self._take(session_id)

    def _take(self, session_id: str) -> None:
        if not self._token:
            return
        self._redis.lrem(f"rq:queue:{self._context.queue}", 1, session_id)
        writer = SessionWriter(self._redis, self._keys, session_id, self._context.retention_s)
        claim = writer.claim(self._name, self._token)
        if claim is not None:
            session = self._sessions[session_id] = ScriptedSession(writer, claim, self._next_turn)
            self._play(session, session.begin)
            self._play(session, session.read_inbox)

    def _play(self, session: ScriptedSession, act: Callable[[], None]) -> None:
        sid = session.writer.session_id
        if self._sessions.get(sid) is not session:
            return
        try:
            act()
        except OwnerLost:
            session.ended = True
        except WorkerDied:
            self._die()
            return
        except Exception as error:  # noqa: BLE001 - a script may raise anything: the test that wrote it is told
            self._errors.append(error)
            with contextlib.suppress(OwnerLost, redis.RedisError):
                session.fail(f"The test's script failed: {error!r}")
        if session.ended:
            del self._sessions[sid]

    def _next_turn(self, _: str, prompt: str) -> Generator[Step, Any, None]:
        turn = self._turns.popleft() if self._turns else _echo
        return turn(prompt)

    # -- the worker

    def _hire(self) -> None:
        """A worker with a lease of its own."""
        self._lives += 1
        self._name, self._token = f"scripted-agent-{self._lives}", new_id()
        self._redis.set(self._keys.worker(self._name), self._token, ex=LEASE_S)
        self._pubsub.subscribe(self._keys.wake_channel(self._name))
        self._pubsub.psubscribe(self._keys.status_channel("*"))

    def _die(self) -> None:
        self._redis.delete(self._keys.worker(self._name))
        self._token = ""

    def _go_on(self) -> None:
        for session in list(self._sessions.values()):
            self._play(session, session.go_on)

    def _recover(self) -> None:
        lost, self._sessions = list(self._sessions), {}
        self._hire()
        for session_id in lost:
            self._take(session_id)
        self._take_queued()

    def _do(self, act: Callable[[], Any]) -> None:
        self._todo.append(act)
        self._wake()

    def _wake(self) -> None:
        self._redis.publish(self._keys.wake_channel(self._name), GO_ON)


def _played(steps: Iterable[Any]) -> Generator[Step, Any, None]:
    yield from (step for step in steps)  # answers are sent in: a generator takes them, a tuple does not


def _echo(prompt: str) -> Generator[Step, Any, None]:
    yield text(prompt)
