"""The other workers of this machine: when one's process has ended, its lease is given back at once.

Owns the record that each worker leaves for the others, and the watch. Other machines' workers, and those in other pid
namespaces, cannot be seen from here: their leases run out by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import redis
import redis.asyncio

from agentrq.connection import is_outage
from agentrq.script_runner import AsyncScriptRunner
from agentrq.wire import owner_calls
from agentrq.wire.keys import Keys
from agentrq_worker.logs import event
from agentrq_worker.process import procfs
from agentrq_worker.process.guardian import end_worker
from agentrq_worker.process.identity import ProcessId, machine_id, own_process
from agentrq_worker.redis_retry import CALL_TIMEOUT_S

log = logging.getLogger(__name__)

WATCH_S: Final = 0.5
"""How often the processes of the other workers are checked."""
REFRESH_S: Final = 2.0
"""How often this worker's record is renewed and the others' are read."""
RECORD_TTL_MS: Final = 86_400_000
END_RUNNERS_S: Final = 5.0
"""The longest that a dead worker's lease waits for the end of its runners."""
LONGEST_RECORD: Final = 100
_LONGEST_NUMBER: Final = 18


class WorkerRecord(NamedTuple):
    """A worker of this machine: its process, and the token of its lease."""

    process: ProcessId
    token: str

    def to_text(self) -> str:
        """As Redis keeps it: ``PID.STARTTIME.TOKEN``."""
        return f"{self.process.pid}.{self.process.starttime}.{self.token}"


def read_record(data: bytes) -> WorkerRecord | None:
    """The record in ``data``; None where it is not a valid one."""
    pid, _, rest = data[:LONGEST_RECORD].decode("ascii", "replace").partition(".")
    starttime, _, token = rest.partition(".")
    if not token or not all(part.isdecimal() and len(part) <= _LONGEST_NUMBER for part in (pid, starttime)):
        return None
    return WorkerRecord(ProcessId(int(pid), int(starttime)), token) if int(pid) > 0 else None


class Neighbours:
    """The workers of one machine, as one of them sees the others."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, name: str, token: str) -> None:
        self.on_release: Callable[[str], Awaitable[None]] | None = None
        """Awaited by `watch` with the token of each lease that was given back here."""
        self._released: list[str] = []
        """Tokens that `on_release` has not been told yet."""
        self._client = client
        self._keys = keys
        self._name = name
        machine, process = machine_id(), own_process()
        self._key = None if machine is None or process is None else keys.machine(machine)
        self._record = None if process is None else WorkerRecord(process, token)
        self._others: dict[str, WorkerRecord] = {}
        self._scripts = AsyncScriptRunner(client)

    async def watch(self) -> None:
        """Give back the leases of workers whose processes end, until cancelled."""
        if self._key is None:
            log.info(
                "cannot identify this machine's processes: the end of another worker shows only when its lease expires"
            )
            return
        while True:
            try:
                await self._refresh()
                for _ in range(int(REFRESH_S / WATCH_S)):
                    for name in [name for name, record in self._others.items() if procfs.is_gone(record.process)]:
                        await self._release_ended(name, self._others[name])
                        self._others.pop(name, None)
                    while self._released and self.on_release is not None:
                        await self.on_release(self._released[0])
                        del self._released[0]
                    await asyncio.sleep(WATCH_S)
            except (redis.RedisError, OSError) as error:
                if not is_outage(error):
                    log.warning("the workers of this machine cannot be watched: %s", error)
                await asyncio.sleep(REFRESH_S)

    async def release_if_ended(self, name: str) -> bool:
        """Give back the lease that a worker of this name has, if its process was one of this machine and has ended."""
        if self._key is None:
            return False
        data: Any = await self._client.hget(self._key, name)
        record = read_record(data) if data is not None else None
        if record is None or not procfs.is_gone(record.process):
            return False
        return await self._release_ended(name, record)

    async def unregister(self) -> None:
        """Take this worker's record away: its lease was given back."""
        if self._key is not None:
            await self._client.hdel(self._key, self._name)

    async def _refresh(self) -> None:
        assert self._key is not None
        assert self._record is not None
        async with asyncio.timeout(CALL_TIMEOUT_S), self._client.pipeline(transaction=False) as pipeline:
            pipeline.hset(self._key, self._name, self._record.to_text())
            pipeline.pexpire(self._key, RECORD_TTL_MS)
            pipeline.hgetall(self._key)
            *_, found = await pipeline.execute()
        self._others = {}
        for name, data in found.items():
            record = read_record(data)
            if record is not None and name != self._name.encode():
                self._others[name.decode("utf-8", "replace")] = record

    async def _release_ended(self, name: str, record: WorkerRecord) -> bool:
        """True where its lease was there still, and was given back here."""
        assert self._key is not None
        # First its runners: two agents must not work in one directory. Its guardian is at the same work.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_RUNNERS_S):
                await asyncio.to_thread(end_worker, record.process)
        async with asyncio.timeout(CALL_TIMEOUT_S):
            released = await self._scripts.run(owner_calls.release_lease(self._keys, name, record.token))
            if await self._client.hget(self._key, name) == record.to_text().encode():
                await self._client.hdel(self._key, name)  # of a successor in between: it writes its own again
        if released:
            log.warning("worker %s (process %d) has ended: its lease is given back", name, record.process.pid,
                        extra=event("worker_lost", lost=name))  # fmt: skip
            self._released.append(record.token)
        return released
