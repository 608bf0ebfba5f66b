"""RQ jobs of a worker whose network loses replies and connections: each is carried out once, none is left open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agentrq import AsyncAgentClient
from agentrq.wire.keys import Keys
from tests.faults.proxy import Plan, Proxy
from tests.rq_checks import backend_queue, eventually, fetch, stuck
from tests.sessions import contents, until
from tests.workers import Worker

Start = Callable[..., Worker]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_jobs_are_carried_out_once_though_replies_are_lost(
    client: AsyncAgentClient, start_worker: Start, raw: Any, redis_url: str, seed: int
) -> None:
    plan = Plan(seed, rate=0.0)
    async with Proxy.to(redis_url, plan) as network:
        worker = await asyncio.to_thread(lambda: start_worker("--lease-s", "2", "--beat-s", "0.5", url=network.url))
        starts, commands = backend_queue(raw), backend_queue(raw, "agentrq-ctl")
        session = await client.start("demo", "/echo first")
        await until(session, "idle")
        plan.begin(0.04)
        ended = [starts.enqueue("agentrq.start", None, "demo", "/crash 0") for _ in range(5)]
        prompts = [commands.enqueue("agentrq.prompt", session.id, f"/echo {number}") for number in range(30)]
        jobs = [*prompts, *ended]
        await eventually(lambda: {fetch(raw, job.id).get_status().value for job in jobs} == {"finished"})
        assert plan.injected["drop_reply"] + plan.injected["cut"] > 5
        plan.calm()
        await eventually(lambda: int(raw.hget(Keys().state(session.id), "numTurns")) == len(prompts) + 1)
        commands.enqueue("agentrq.stop", session.id)
        await session.wait(30)
        said = [prompt.command_id for prompt in contents([event async for event in session.events()], "prompt")]
        assert sorted(said) == sorted([session.id, *(job.id for job in prompts)])
        await eventually(lambda: not stuck(raw))
        assert {fetch(raw, job.id).get_status().value for job in jobs} == {"finished"}
        assert await asyncio.to_thread(worker.terminate) == 0
