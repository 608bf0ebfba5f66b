"""The plain way to the same end: ``readline``, ``json``, and redis-py, for each message.

``plain_worker await|pipeline|fenced URL SESSIONS ARGV…``: one process hosts all runners. "await": ``await xadd`` and
``await publish``; "pipeline": both in one pipeline, awaited; "fenced": both in a script that asks first whose the
session is, as a worker must that another may have replaced. Each line on stdin is a prompt for every runner.
"""

from __future__ import annotations

import asyncio
import json
import sys

import redis.asyncio

from benchmarks.peers.dict_code import Normaliser

MOST = 100_000
FENCED = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 'fenced' end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], ARGV[3], 'message', ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[4])
redis.call('HSET', KEYS[1], 'cursor', ARGV[3])
return 'ok'
"""


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


async def _session(client: redis.asyncio.Redis, mode: str, name: str, process: asyncio.subprocess.Process) -> None:
    assert process.stdout
    read = Normaliser(name, json.loads, _dumps).line
    state, stream = f"plain:{name}:state", f"plain:{name}:{mode}:events"
    channel = f"{'fenced' if mode == 'fenced' else 'plain'}:{name}:messages"
    fenced, number = client.register_script(FENCED), 0
    if mode == "fenced":
        await client.hset(state, "token", "mine")
    while line := await process.stdout.readline():
        for _, message in read(line):
            if mode == "await":
                await client.xadd(stream, {"message": message}, maxlen=MOST, approximate=True)
                await client.publish(channel, message)
            elif mode == "fenced":
                number += 1
                assert await fenced([state, stream], ["mine", MOST, f"1-{number}", message, channel]) == b"ok"
            else:
                async with client.pipeline(transaction=False) as pipeline:
                    pipeline.xadd(stream, {"message": message}, maxlen=MOST, approximate=True)
                    pipeline.publish(channel, message)
                    await pipeline.execute()


async def main() -> None:
    mode, url, sessions, *argv = sys.argv[1:]
    client = redis.asyncio.Redis.from_url(url, max_connections=10_000)
    names = [f"s{number}" for number in range(int(sessions))]
    pipes = asyncio.subprocess.PIPE
    processes = [await asyncio.create_subprocess_exec(*argv, stdin=pipes, stdout=pipes, limit=16 << 20) for _ in names]
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        for name, process in zip(names, processes, strict=True):
            group.create_task(_session(client, mode, name, process))
        while prompt := await loop.run_in_executor(None, sys.stdin.readline):
            for process in processes:
                assert process.stdin
                process.stdin.write(b'{"type":"query","prompt":"%s"}\n' % prompt.strip().encode())
        for process in processes:
            assert process.stdin
            process.stdin.close()
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main())
