"""Writes of one pipeline that hold only while a session is as it was seen: by its id there may be another meanwhile.

Owns how a pipeline, RQ's own code's too, becomes one such step (run_if_same_session.lua). Does not own what is written
of a job, nor when (job_records.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import redis
from redis.client import Pipeline

from agentrq.rq_commands import RedisCommand, collected
from agentrq.wire import script_calls, scripts
from agentrq.wire.keys import Keys
from agentrq.wire.status import Status

MOST_WORDS: Final = 4000
"""Members of one command: a script hands on no more than some 8000 words at once."""


class SessionIdentity(NamedTuple):
    """A session, as the one that a job is of: its id, its start's nonce (None: there is none by that id), its status.

    ``status`` None: whichever it has.
    """

    session_id: str
    nonce: str | None
    status: Status | None = None


class FencedPipeline:
    """Makes the pipelines of a connection whose commands hold only if a session is as it was seen."""

    def __init__(self, connection: redis.Redis, keys: Keys, whose: SessionIdentity | None) -> None:
        self.refused = False
        """It was not so, and nothing of what was to be done has been done."""
        self.decided = False
        """What was to be done is done: what RQ does after it (a job's dependents) is done in any case."""
        self.keys = keys
        self.whose = whose
        self._connection = connection

    def __call__(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """As `redis.Redis.pipeline`."""
        pool, callbacks = self._connection.connection_pool, self._connection.response_callbacks
        pipeline = _Pipeline(pool, callbacks, transaction, shard_hint)
        pipeline.only = self
        return pipeline


class _Refused(Exception):
    """Nothing was done: what RQ's code would do next about the job's end is not to be done either."""


class _Pipeline(Pipeline):
    only: FencedPipeline

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """All its commands as one step; answers nothing. (RQ does not ask, and a WATCH of its own stays good.)"""
        only, commands = self.only, [part for command in collected(self) for part in _in_parts(command)]
        if not commands or only.whose is None or only.decided:
            return super().execute(raise_on_error)
        sid, nonce, status = only.whose
        step = script_calls.run_if_same_session(only.keys, sid, nonce, status, commands)
        self.command_stack.clear()
        self.pipeline_execute_command("EVAL", scripts.SOURCES[step.script], len(step.keys), *step.keys, *step.args)
        (done,) = super().execute(raise_on_error)
        only.decided, only.refused = True, not done
        if only.refused:
            raise _Refused
        return []


@contextlib.contextmanager
def only(connection: redis.Redis, keys: Keys, whose: SessionIdentity | None) -> Iterator[FencedPipeline]:
    """The first pipeline of ``connection`` that is executed within holds only if its session is ``whose``."""
    made = FencedPipeline(connection, keys, whose)
    if whose is None:
        yield made
        return
    connection.pipeline = made  # type: ignore[method-assign]  # before the class's own
    try:
        with contextlib.suppress(_Refused):
            yield made
    finally:
        del connection.pipeline


def _in_parts(command: RedisCommand) -> list[RedisCommand]:
    """A command on any number of members as several, none over `MOST_WORDS`."""
    name, key, *members = command
    if len(members) <= MOST_WORDS or name not in ("SADD", "SREM", "ZREM", "DEL"):
        return [command]
    if name == "DEL":
        return [(name, each) for each in (key, *members)]
    return [(name, key, *members[at : at + MOST_WORDS]) for at in range(0, len(members), MOST_WORDS)]
