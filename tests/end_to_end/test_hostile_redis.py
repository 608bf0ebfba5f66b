"""Redis as an attack path: garbage in every key and channel a worker reads, beside a session that must not notice.

What comes as RQ jobs is test_bad_input.py's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from agentrq import AsyncAgentClient
from agentrq.wire.keys import Keys
from tests.rq_checks import eventually
from tests.sessions import contents, until
from tests.workers import Worker

Start = Callable[..., Worker]
KEYS = Keys()
DEEP = "[" * 100_000


async def serves(client: AsyncAgentClient, session: Any) -> None:
    """A neighbour goes on as if nothing had been."""
    command = await session.prompt("/echo still here")
    receipt = await session.prompt("/echo and here", wait=True, timeout=20)
    assert receipt.outcome == "applied"
    assert command
    state = await session.state()
    assert not state.ended


@pytest.fixture
def worker(start_worker: Start) -> Worker:
    return start_worker("--lease-s", "2", "--beat-s", "0.3", "--name", "w")


async def test_garbage_in_an_inbox(client: AsyncAgentClient, worker: Worker, raw: Any) -> None:
    neighbour = await client.start("demo", "/echo neighbour")
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    good = {"commandId": "x", "command": "prompt", "text": "/echo a"}
    entries: list[dict[Any, Any]] = [
        {"command": "not json"},
        {"command": b"\xff\xfe\x00"},
        {"command": DEEP},
        {"command": "null"},
        {"command": "[]"},
        {"other": "field"},
        {"command": json.dumps({"commandId": "x", "command": "format_disk"})},
        {"command": json.dumps({"commandId": 7, "command": "stop"})},
        {"command": json.dumps(good | {"commandId": ""})},
        {"command": json.dumps(good | {"commandId": "y" * 201})},
        {"command": json.dumps(good | {"text": None})},
        {"command": json.dumps(good | {"text": "x" * (9 << 20)})},
        {"command": json.dumps(good | {"mode": "shout"})},
        {"command": json.dumps({"commandId": "z", "command": "answer", "answer": 1})},
        {"command": json.dumps({"commandId": "z", "command": "answer", "requestId": "r", "answer": "x" * (9 << 20)})},
        {"command": '{"commandId":"z","command":"answer","requestId":"r","answer":' + DEEP + "}"},
        {"command": json.dumps({"commandId": "z", "command": "set_model", "text": ""})},
    ]
    for entry in entries:
        raw.xadd(KEYS.inbox(session.id), entry)
    receipt = await session.prompt("/echo after all that", wait=True, timeout=20)
    assert receipt.outcome == "applied"
    passed_over = [line for line in worker.log if "is no command and is passed over" in line]
    assert len(passed_over) == len(entries)
    assert all(len(line) < 1000 for line in passed_over)
    await serves(client, neighbour)
    await session.stop()
    assert (await session.wait(20)).reason == "stopped"


async def test_garbage_on_the_wake_channel(client: AsyncAgentClient, worker: Worker, raw: Any) -> None:
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    for payload in (b"", b"\xff" * 100, b"x" * (32 << 20), b"no-such-session", DEEP.encode(), b"\0", b"*"):
        raw.publish(KEYS.wake_channel("w"), payload)
    await serves(client, session)
    assert all(len(line) < 1000 for line in worker.log)


@pytest.mark.parametrize(
    "fields",
    [
        {"epoch": "garbage"},
        {"epoch": "1e400"},
        {"epoch": "-7", "token": "x"},
        {"cursor": "here"},
        {"streamBytes": "many", "cursor": "1-x"},
        {"status": "dancing"},
        {"token": b"\xff\xfe", "worker": b"\xff"},
        {"metadata": DEEP, "costUsd": "NaN", "pid": "x", "createdAt": "then", "endedAt": "never"},
        {"options": DEEP, "prompt": b"\xff"},
    ],
    ids=lambda fields: ",".join(fields),
)
async def test_garbage_in_the_state_of_a_live_session(
    client: AsyncAgentClient, worker: Worker, raw: Any, fields: dict[str, Any]
) -> None:
    neighbour = await client.start("demo", "/echo neighbour")
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    await until(neighbour, "idle")
    raw.hset(KEYS.state(session.id), mapping=fields)
    raw.xadd(KEYS.inbox(session.id), {"command": '{"commandId":"c","command":"prompt","text":"/echo b"}'})
    raw.publish(KEYS.wake_channel("w"), session.id)
    worker.freeze()  # past half its lease it looks at all that it owns
    await eventually(lambda: raw.pttl(KEYS.worker("w")) < 700)
    worker.thaw()
    worker.wait_log("stalled for")
    raw.hset(KEYS.state(session.id), mapping=fields)
    await serves(client, neighbour)
    late = await client.start("demo", "/echo late")
    await until(late, "idle")
    assert worker.process.poll() is None
    assert all(len(line) < 2000 for line in worker.log)
    assert len([line for line in worker.log if session.id in line]) < 20  # each takeover tells of itself


async def test_keys_of_another_type(client: AsyncAgentClient, worker: Worker, raw: Any) -> None:
    neighbour = await client.start("demo", "/echo neighbour")
    await until(neighbour, "idle")
    for kind in ("state", "events", "inbox", "commands"):
        session = await client.start("demo", "/echo hi", f"typed-{kind}")
        await until(session, "idle")
        key = getattr(KEYS, kind)(session.id)
        raw.delete(key)
        raw.set(key, "a string")
        raw.publish(KEYS.wake_channel("w"), session.id)
    worker.freeze()
    await eventually(lambda: raw.pttl(KEYS.worker("w")) < 700)
    worker.thaw()
    worker.wait_log("stalled for")
    raw.zadd(KEYS.sessions, {b"\xff\xfe": 1, "a/b": math.inf, "": -math.inf, "x" * 1000: 0, "}{": 5})
    await serves(client, neighbour)
    late = await client.start("demo", "/echo late")
    await until(late, "idle")
    assert worker.process.poll() is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("{", "options cannot be read"),
        (DEEP, "options cannot be read"),
        ('{"approvals":' + DEEP, "options cannot be read"),
        ('{"cwd":7}', "options cannot be read"),
        ('{"sudo":true}', "options cannot be read"),
        ('{"maxTurns":-1}', "options cannot be read"),
        ('{"cwd":"/tmp\\u0000/x"}', "options cannot be read"),
        ('{"approvals":"perhaps"}', "approvals"),
    ],
    ids=lambda text: text[:12],
)
async def test_options_that_cannot_be_read_do_not_become_defaults(
    client: AsyncAgentClient, start_worker: Start, raw: Any, options: str, says: str
) -> None:
    """Who cannot read what was asked for must not run it with every permission instead."""
    session = await client.start("demo", "/echo hi")
    raw.hset(KEYS.state(session.id), "options", options)
    start_worker()
    state = await session.wait(20)
    assert (state.status, state.reason) == ("error", "refused")
    assert says in (state.error or "")
    assert len(state.error or "") < 500
    assert contents([event async for event in session.events()], "text") == []


async def test_a_forged_stream_costs_its_own_session(client: AsyncAgentClient, start_worker: Start, raw: Any) -> None:
    """Entries that no worker wrote, in the part that a recovery reads back."""
    first = start_worker("--lease-s", "2", "--beat-s", "0.5")
    session = await client.start("demo", "/sleep 60")
    await until(session, "running")
    first.kill()
    for field, value in (("message", DEEP), ("message", "{}"), ("status", b"\xff"), ("zzz", "1"), ("receipt", "null")):
        raw.xadd(KEYS.events(session.id), {field: value})
    second = start_worker("--lease-s", "2", "--beat-s", "0.5")
    other = await client.start("demo", "/echo fine")
    await until(other, "idle")
    await serves(client, other)
    assert second.process.poll() is None
