"""The floor of publishing: ready-made payloads by the product's own script, and nothing else.

``floor URL SESSIONS``; each number on stdin is a count of messages to publish, answered with the seconds it took and
the CPU seconds of this process. Two calls are under way, for half of the sessions each, as a flood has several
under way in the product.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from agentrq.connection import connect_async
from agentrq.wire import owner_calls, script_calls, scripts
from agentrq.wire.keys import Keys
from benchmarks.corpus import CORPORA
from benchmarks.peers.dict_code import Normaliser

BATCH = 512


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


async def main() -> None:
    url, sessions = sys.argv[1], int(sys.argv[2])
    client = connect_async(url)
    script = client.register_script(scripts.SOURCES["write_events"])
    keys = Keys("floor")
    read = Normaliser("01993b1e-7c1f-7000-8000-0123456789ab", json.loads, _dumps).line
    payloads = [read(line)[0][1] for line in CORPORA["small"][:BATCH]]
    limits = owner_calls.WriteLimits(100_000, 256 << 20, 86_400_000)
    halves: list[list[owner_calls.WriteTarget]] = []
    for half in (range(0, sessions, 2), range(1, sessions, 2)):
        names = [f"s{number}" for number in half]
        for name in names:
            place = {"epoch": 1, "claim": "t", "cursor": "1-0", "status": "running"}
            await client.hset(keys.state(name), mapping=place)
        halves.append([
            owner_calls.WriteTarget(
                name, 1, "t", script_calls.session_keys(keys, name), keys.messages_channel(name),
                keys.status_channel(name),
            )
            for name in names
        ])  # fmt: skip

    async def publish(targets: list[owner_calls.WriteTarget], seq: int, calls: int) -> int:
        share = BATCH // len(targets)
        for _ in range(calls):
            writes = owner_calls.EventWrites(limits, 1_763_793_000_123)
            for at, target in enumerate(targets):
                ready = payloads[at * share : (at + 1) * share]
                writes.add(target, {}, [owner_calls.Run("m", seq + 1, ready)], quick=True)
            answers = writes.read(await script(keys=writes.keys, args=writes.args))
            assert {answer.outcome for answer in answers} == {"ok"}, answers
            seq += share
        return seq

    seq = 0
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while said := await loop.run_in_executor(None, sys.stdin.readline):
        began, cpu = time.monotonic(), time.process_time()
        calls = int(said) // (2 * BATCH)
        seq, _ = await asyncio.gather(*(publish(half, seq, calls) for half in halves))
        print(json.dumps({"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}), flush=True)
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main())
