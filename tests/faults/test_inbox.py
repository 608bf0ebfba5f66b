"""The inbox under faults: each command has one receipt, each applied prompt reaches the runner once and in order.

Several clients send to the same sessions under ids of their own choice, some of them again and again, while owners are
killed, replaced and cut off. What the runners read is proved by their diaries (fakes/diary_runner.py).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentrq import AsyncAgentClient, Event, Message, Receipt
from agentrq.wire.messages import Cost, Error, Prompt
from tests.faults.inbox_storm import (
    CLIENTS,
    FAST,
    Sent,
    Start,
    cut_connections,
    replace_owners,
    talk,
)
from tests.faults.stream_checks import check_moves, check_stream
from tests.rq_checks import eventually
from tests.sessions import until


@pytest.fixture
def diaries(config: Path, tmp_path: Path) -> Path:
    """A provider ``diary``, and the directory of what its runners read."""
    directory = tmp_path / "diaries"
    directory.mkdir()
    program = Path(__file__).parents[1] / "fakes" / "diary_runner.py"
    with config.open("a") as file:
        file.write(f"""
[providers.diary]
protocol = "runner"
parser = "claude"
command = ["{sys.executable}", "-S", "-E", "{program}"]
env = {{ DIARY_DIR = "{directory}" }}
""")
    return directory


def diary(directory: Path, session_id: str) -> list[str]:
    """The prompts that the session's runners read, in order."""
    path = directory / session_id
    return [json.loads(line)[0] for line in path.read_text().splitlines()] if path.exists() else []


async def all_received(client: AsyncAgentClient, sent: Sent) -> None:
    """Until every command has its receipt and the last prompt's turn is over: a stop before that may find it unread."""
    left, in_turn = set(sent.ids), False
    async for event in client.session(sent.sid).events():
        content = event.content if isinstance(event, Message) else None
        if isinstance(event, Receipt):
            left.discard(event.command_id)
        elif isinstance(content, Prompt):
            in_turn = True
        elif isinstance(content, Cost) or (isinstance(content, Error) and content.code == "turn_interrupted"):
            in_turn = False
        if not left and not in_turn:
            return
    raise AssertionError(f"{sent.sid} ended without receipts of {sorted(left)}")


async def check(client: AsyncAgentClient, raw: Any, sent: Sent, diaries: Path) -> None:
    events = [event async for event in client.session(sent.sid).events()]
    check_stream(raw, sent.sid)
    check_moves(events)
    receipts = Counter(event.command_id for event in events if isinstance(event, Receipt) and event.command != "stop")
    assert receipts == Counter(sent.ids), "each command has one receipt"
    outcomes = {event.command_id: event.outcome for event in events if isinstance(event, Receipt)}
    assert {outcomes[name] for names in sent.by_client for name in names} == {"applied"}
    assert {outcomes[name] for name in sent.others} <= {"rejected"}
    handed = [event.content for event in events if isinstance(event, Message) and isinstance(event.content, Prompt)]
    order = [prompt.command_id for prompt in handed[1:]]
    for names in sent.by_client:
        assert [name for name in order if name in names] == names, "in the order they were sent"
    assert len(order) == len(set(order)), "each prompt is shown once"
    read = diary(diaries, sent.sid)
    assert len(read) == len(set(read)), "each prompt is read once"
    unread = cut_prompts(events)
    assert [prompt.text for prompt in handed if prompt.text in read or prompt.command_id not in unread] == read


def cut_prompts(events: list[Event]) -> set[str]:
    """Command ids of the prompts whose turn was cut."""
    cut, last = set(), ""
    for event in events:
        content = event.content if isinstance(event, Message) else None
        if isinstance(content, Prompt):
            last = content.command_id
        elif isinstance(content, Error) and content.code == "turn_interrupted":
            cut.add(last)
    return cut


async def inbox_run(
    seeds: list[int], url: str, start_worker: Start, diaries: Path, raw: Any, replacements: int
) -> None:
    chance = random.Random(seeds[0])
    workers = [start_worker(*FAST, "--name", f"first{number}") for number in range(2)]
    sessions = [Sent(seed) for seed in seeds]
    async with asyncio.timeout(110), AsyncAgentClient.from_url(url) as client:
        for sent in sessions:
            await client.start("diary", "begin 0", sent.sid, max_recoveries=1000)
        async with asyncio.TaskGroup() as storm:
            cuts = storm.create_task(cut_connections(url, chance))
            async with asyncio.TaskGroup() as talks:
                talks.create_task(replace_owners(url, start_worker, workers, chance, replacements))
                for sent in sessions:
                    for number in range(CLIENTS):
                        talks.create_task(talk(url, sent, number))
            cuts.cancel()
        for sent in sessions:
            await all_received(client, sent)
            await client.session(sent.sid).stop()
            assert (await client.session(sent.sid).wait(30)).reason == "stopped"
            await check(client, raw, sent, diaries)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [range(4)], ids=["4 seeds"])
async def test_each_command_is_applied_once_and_in_order(
    redis_url: str, start_worker: Start, diaries: Path, raw: Any, seeds: range
) -> None:
    await inbox_run(list(seeds), redis_url, start_worker, diaries, raw, replacements=2)


@pytest.mark.long
@pytest.mark.parametrize("first", range(100, 150, 5))
async def test_each_command_is_applied_once_and_in_order_for_long(
    redis_url: str, start_worker: Start, diaries: Path, raw: Any, first: int
) -> None:
    await inbox_run(list(range(first, first + 5)), redis_url, start_worker, diaries, raw, replacements=5)


# -- a stop is a state


@pytest.mark.slow
@pytest.mark.parametrize("when", ["queued", "starting", "running", "dead", "ownerless"])
async def test_a_stop_overtakes_everything(
    client: AsyncAgentClient,
    start_worker: Start,
    diaries: Path,
    raw: Any,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    """In every status, with prompts waiting and nobody else there: the session ends, and no prompt follows."""
    monkeypatch.setattr("agentrq.client.asyncio_client.CHECK_AGAIN_S", 0.3)
    worker = start_worker(*FAST, "--name", "w") if when != "queued" else None
    session = await client.start("diary", "mute" if when == "starting" else "first 60")
    if worker is not None:
        await eventually(lambda: diary(diaries, session.id), "the first prompt in the diary")
        if when != "starting":
            await until(session, "running")
    for number in range(300):
        await session.prompt(f"p{number} 0", command_id=f"p{number}")
    if worker is not None and when in ("dead", "ownerless"):
        worker.kill()
    if when == "ownerless":
        await eventually(lambda: not raw.exists("agentrq:worker:w"), "the end of a dead worker's lease")
    assert (await session.state()).status == (when if when in ("queued", "starting") else "running")
    await session.stop()
    if when in ("queued", "ownerless"):
        assert (await session.state()).status == "done", "at once"
    state = await session.wait(30)
    assert (state.status, state.reason) == ("done", "stopped")
    events = [event async for event in session.events()]
    receipts = [event for event in events if isinstance(event, Receipt)]
    assert Counter(receipt.outcome for receipt in receipts) == {"expired": 300, "applied": 1}
    assert len(diary(diaries, session.id)) <= 1
    check_stream(raw, session.id)


@pytest.mark.slow
async def test_a_stop_ends_a_lost_session_before_anybody_goes_on_with_it(
    client: AsyncAgentClient, start_worker: Start, diaries: Path
) -> None:
    """Its worker dies, it is stopped, another worker comes: the agent is not told to continue."""
    first = start_worker(*FAST, "--name", "first")
    session = await client.start("diary", "first 60", on_interrupt="continue")
    await eventually(lambda: diary(diaries, session.id), "the first prompt in the diary")
    first.kill()
    await session.stop()
    start_worker(*FAST, "--name", "second")
    state = await session.wait(30)
    assert (state.status, state.reason, state.exit_code) == ("done", "stopped", None)
    assert diary(diaries, session.id) == ["first 60"]
