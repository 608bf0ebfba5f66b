"""Writes one RQ job's records in one step, only while its session and the job are as expected.

Owns how commands, RQ's own methods' too, become one call of write_job.lua. Does not own what is written of a job, nor
when (job_records.py).
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias, cast

import redis
from redis.client import Pipeline

from agentrq.rq_commands import RedisCommand, collected
from agentrq.wire.keys import Keys
from agentrq.wire.script_calls import counted
from agentrq.wire.status import Status
from agentrq_worker.rq import scripts

MOST_WORDS: Final = 4000
"""Members of one command: Lua's `unpack` takes some 8000 words at once."""
_WRITE_JOB: Final = scripts.load("write_job")

Written: TypeAlias = Literal["written", "canceled", "changed"]
"""What became of a step: ``canceled``: the job was, in RQ; ``changed``: session or job are not as expected. In both
cases nothing was written."""


class SessionIdentity(NamedTuple):
    """The session that a job starts; its id may be given again, its nonce never is.

    ``status`` and ``claim`` None: any.
    """

    session_id: str
    nonce: str
    status: Status | None = None
    claim: str | None = None


class FencedPipeline:
    """Collects commands on one job's records and runs them as one step. A context manager; reads nothing itself."""

    def __init__(
        self,
        connection: redis.Redis,
        keys: Keys,
        job_key: str,
        identity: SessionIdentity | None = None,
        *,
        job_status: str = "",
        step: str = "",
    ) -> None:
        """``identity`` None: the job is not a session's. ``job_status``: what the job's must be, "" any but canceled.

        ``step`` names the step for good: a step that was carried out and whose reply was lost is not repeated.
        """
        self.rq: Pipeline = connection.pipeline()
        """What RQ's methods write their commands into. In between `watch` and `multi` it reads at once."""
        self._keys = [job_key]
        self._args: list[Any] = ["", "", ""]
        if identity is not None:
            self._keys.append(keys.state(identity.session_id))
            self._args = [identity.nonce, identity.status or "", identity.claim or ""]
        self._args += [job_status, step]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rq.reset()

    def add(self, *commands: RedisCommand) -> None:
        """Add commands of our own."""
        for command in commands:
            self.rq.pipeline_execute_command(*command)

    def execute(self) -> Written:
        """Run all that was collected. Raises `redis.WatchError` where a watched key has changed, `redis.RedisError`."""
        commands = [part for command in collected(self.rq) for part in split_command(command)]
        self.rq.command_stack.clear()
        self.rq.pipeline_execute_command(
            "EVAL", _WRITE_JOB, len(self._keys), *self._keys, *self._args, *counted(commands)
        )
        (answer,) = self.rq.execute()
        return cast(Written, answer.decode())


def split_command(command: RedisCommand) -> list[RedisCommand]:
    """A command on any number of members as several, each with at most `MOST_WORDS` of them."""
    name, key, *members = command
    if len(members) <= MOST_WORDS or name not in ("SADD", "SREM", "ZREM", "DEL"):
        return [command]
    if name == "DEL":
        return [(name, each) for each in (key, *members)]
    return [(name, key, *members[at : at + MOST_WORDS]) for at in range(0, len(members), MOST_WORDS)]
