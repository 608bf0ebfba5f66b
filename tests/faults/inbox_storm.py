"""Clients that send commands to sessions while connections are cut and owners are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial

import redis
import redis.asyncio

from agentrq import AsyncAgentClient, CommandRejected
from tests.faults.retries import persist
from tests.workers import Worker

Start = Callable[..., Worker]
FAST = ("--lease-s", "1.5", "--beat-s", "0.3", "--stop-grace-s", "0.2")
CLIENTS = 3
PROMPTS = 8


class Sent:
    """What was sent to one session: command ids in each client's order."""

    def __init__(self, seed: int) -> None:
        self.sid = f"seed-{seed}"
        self.chance = random.Random(seed)
        self.by_client: list[list[str]] = [[] for _ in range(CLIENTS)]
        self.others: set[str] = set()

    @property
    def ids(self) -> set[str]:
        return self.others.union(*self.by_client)


async def talk(url: str, sent: Sent, number: int) -> None:
    """One client: prompts in order, some sent again by whoever, and commands that come to nothing in between."""
    chance = sent.chance
    async with AsyncAgentClient.from_url(url) as client:
        session = client.session(sent.sid)
        for at in range(PROMPTS):
            name = f"{number}.{at}"
            seconds = chance.choice((0, 0.1, 0.2))
            await persist(partial(session.prompt, f"{name} {seconds}", command_id=name))
            sent.by_client[number].append(name)
            if chance.random() < 0.4:
                again = chance.choice(sorted(sent.ids))
                await persist(partial(session.prompt, f"{again} 0", command_id=again))
            if chance.random() < 0.2:
                useless = f"{number}.{at} useless"
                call = chance.choice((
                    session.interrupt,
                    partial(session.answer, "nobody", "allow"),
                    partial(session.set_model, "m"),
                ))  # fmt: skip
                with contextlib.suppress(CommandRejected):  # an answer to no open request is told so
                    await persist(partial(call, command_id=useless))
                sent.others.add(useless)
            await asyncio.sleep(chance.uniform(0, 0.6))


async def cut_connections(url: str, chance: random.Random) -> None:
    """Again and again, until cancelled, the server closes the connections of one kind."""
    async with redis.asyncio.Redis.from_url(url) as admin:
        while True:
            await asyncio.sleep(chance.uniform(0.1, 0.6))
            await admin.execute_command("CLIENT", "KILL", "TYPE", chance.choice(("normal", "pubsub")), "SKIPME", "yes")


async def replace_owners(
    url: str, start_worker: Start, workers: list[Worker], chance: random.Random, times: int
) -> None:
    """Again and again a worker dies, or is told to end, and another comes; Redis may stand still as it dies."""
    for number in range(times):
        await asyncio.sleep(chance.uniform(0.3, 1.2))
        victim = workers.pop(0)
        if chance.random() < 0.7:
            async with redis.asyncio.Redis.from_url(url) as admin:
                await persist(partial(admin.execute_command, "CLIENT", "PAUSE", 400, "WRITE"))
            await asyncio.sleep(0.3)  # turns end, and nothing that follows from it can be written any more
            await asyncio.to_thread(victim.kill)
        else:
            victim.process.terminate()
        workers.append(await asyncio.to_thread(restarted, start_worker, f"next{number}"))


def restarted(start_worker: Start, name: str) -> Worker:
    """As a supervisor does: a worker whose very first call was cut off says so and ends."""
    while True:
        try:
            return start_worker(*FAST, "--name", name)
        except AssertionError as error:
            if "is not reachable" not in str(error):
                raise
