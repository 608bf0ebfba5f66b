"""Figure 11: the replay of a long stream to a reader, against a bare XRANGE of all of it with a msgspec decode."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any, Final

import msgspec
import redis

from agentrq import AgentClient, AsyncAgentClient
from benchmarks.report import Row, at_least, rate
from benchmarks.stage import stage

FIGURES: Final = (11,)
PAGE: Final = 2000


class _Bare(msgspec.Struct, rename="camel"):
    """An event as far as anybody needs it."""

    cursor: str
    session_id: str
    timestamp: int
    type: str = ""
    id: str = ""
    content: dict[str, Any] = {}


def _bare(client: Any, key: str) -> int:
    decode = msgspec.json.Decoder(_Bare).decode
    seen, start = 0, "-"
    while entries := client.xrange(key, start, count=PAGE):
        for _place, fields in entries:
            for value in fields.values():
                decode(value)
        seen += len(entries)
        start = f"({entries[-1][0].decode()}"
    return seen


async def _bare_async(client: Any, key: str) -> int:
    decode = msgspec.json.Decoder(_Bare).decode
    seen, start = 0, "-"
    while entries := await client.xrange(key, start, count=PAGE):
        for _place, fields in entries:
            for value in fields.values():
                decode(value)
        seen += len(entries)
        start = f"({entries[-1][0].decode()}"
    return seen


def _sync(client: AgentClient, sid: str, wanted: int) -> int:
    seen = 0
    for _event in client.session(sid).events():
        seen += 1
        if seen == wanted:
            break
    return seen


async def _async(client: AsyncAgentClient, sid: str, wanted: int) -> int:
    seen = 0
    async for _event in client.session(sid).events():
        seen += 1
        if seen == wanted:
            break
    return seen


async def _measure(quick: bool) -> tuple[list[Row], list[str]]:
    length, rounds = (20_000, 3) if quick else (100_000, 5)
    times: dict[str, list[float]] = {"sync": [], "bare": [], "async": [], "bare async": []}
    async with stage() as on, on.client_redis() as raw:
        await on.worker()
        sessions = await on.sessions(1, "small")
        await on.turns(sessions, f"flood {length - 100}")
        sid = sessions[0].id
        key = on.client.context.keys.events(sid)
        wanted = int(await raw.xlen(key))
        with redis.Redis.from_url(on.url) as plain, AgentClient.from_url(on.url) as client:
            for _ in range(rounds):
                for name, taken in times.items():
                    began = time.perf_counter()
                    if name == "sync":
                        seen = _sync(client, sid, wanted)
                    elif name == "bare":
                        seen = _bare(plain, key)
                    elif name == "async":
                        seen = await _async(on.client, sid, wanted)
                    else:
                        seen = await _bare_async(raw, key)
                    assert seen == wanted, f"{seen} of {wanted}"
                    taken.append((time.perf_counter() - began) / wanted)
    median = {name: 1 / statistics.median(found) for name, found in times.items()}
    return [
        at_least(11, f"replay of {wanted} events, {name}, against bare XRANGE", rate(median[peer]), rate(median[name]),
                 median[name] / median[peer], 0.6, "%")
        for name, peer in (("async", "bare async"), ("sync", "bare"))
    ], []  # fmt: skip


def run(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    return asyncio.run(_measure(quick))
