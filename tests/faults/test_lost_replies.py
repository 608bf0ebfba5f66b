"""The command line over a network that loses one reply: whoever started a session learns its id."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import redis

from tests.faults.proxy import Plan, Proxy
from tests.producer.command_line import run_cli


class LoseOneReply(Plan):
    """Drops the reply with this number, counted over all connections from 0."""

    def __init__(self, number: int) -> None:
        super().__init__(0, 0)
        self._left = number

    def draw(self, chance: random.Random, upward: bool) -> str | None:
        if upward:
            return None
        self._left -= 1
        return "drop_reply" if self._left == -1 else None


@pytest.mark.slow
async def test_a_start_whose_reply_is_lost_tells_its_id(redis_url: str, raw: redis.Redis) -> None:
    kept_silent, told = list[str](), 0
    for number in range(12):
        raw.flushall()
        raw.script_flush()
        async with Proxy.to(redis_url, LoseOneReply(number)) as network:
            done = await asyncio.to_thread(run_cli, "start", "demo", "hi", url=network.url)
        members: Any = raw.zrange("agentrq:sessions", 0, -1)
        started = [member.decode() for member in members]
        assert done.returncode in (0, 4)
        for sid in started:
            if sid not in done.stdout + done.stderr:
                kept_silent.append(sid)
            told += done.returncode == 4
        if done.returncode == 0:
            break
    assert kept_silent == []
    assert told >= 1, "no run lost the reply of the start itself"
