"""Redis as an attack path: garbage in every key and channel a worker reads, beside a session that must not notice.

What comes as RQ jobs is test_bad_input.py's.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from agentrq import AsyncAgentClient
from agentrq.wire.keys import Keys
from tests.attacks import attack
from tests.polling import wait_until
from tests.rq_checks import eventually
from tests.sessions import contents, serves, until
from tests.workers import Worker, peak

Start = Callable[..., Worker]
KEYS = Keys()
DEEP = "[" * 100_000


def stalled(worker: Worker, raw: Any) -> None:
    """A worker that was frozen past half its lease checks all that it owns."""
    worker.freeze()
    frozen = time.monotonic()
    # It counts from the answer to a beat.
    wait_until(lambda: raw.pttl(KEYS.worker("w")) < 700 and time.monotonic() >= frozen + 1.1)
    worker.thaw()
    worker.wait_log("stalled for")


@pytest.fixture
def worker(start_worker: Start) -> Worker:
    return start_worker("--lease-s", "2", "--beat-s", "0.3", "--name", "w")


@attack(
    "garbage in an inbox: not JSON, other types, too deep, too long",
    "skipped, one log line each; the session goes on",
)
async def test_garbage_in_an_inbox_harms_no_session(client: AsyncAgentClient, worker: Worker, raw: Any) -> None:
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
    ids = [raw.xadd(KEYS.inbox(session.id), entry).decode() for entry in entries]
    receipt = await session.prompt("/echo after all that", wait=True, timeout=20)
    assert receipt.outcome == "applied"
    worker.wait_log(f"inbox entry {ids[-1]} is not a valid command: ")  # its log may be read later than Redis
    passed_over = [line for line in worker.log if "is not a valid command: " in line]
    assert len(passed_over) == len(entries)
    assert all(len(line) < 1000 for line in passed_over)
    await serves(client, neighbour)
    await session.stop()
    assert (await session.wait(20)).reason == "stopped"


@attack("garbage on the wake channel, 32 MiB in one message", "dropped")
async def test_garbage_on_the_wake_channel_is_ignored(client: AsyncAgentClient, worker: Worker, raw: Any) -> None:
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    for payload in (b"", b"\xff" * 100, b"x" * (32 << 20), b"no-such-session", DEEP.encode(), b"\0", b"*"):
        raw.publish(KEYS.wake_channel("w"), payload)
    await serves(client, session)
    assert all(len(line) < 1000 for line in worker.log)


@attack("garbage in the state of a live session", "its session is lost, one or two log lines; neighbours go on")
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
async def test_garbage_in_a_state_ends_only_its_session(
    client: AsyncAgentClient, worker: Worker, raw: Any, fields: dict[str, Any]
) -> None:
    neighbour = await client.start("demo", "/echo neighbour")
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    await until(neighbour, "idle")
    raw.hset(KEYS.state(session.id), mapping=fields)
    raw.xadd(KEYS.inbox(session.id), {"command": '{"commandId":"c","command":"prompt","text":"/echo b"}'})
    raw.publish(KEYS.wake_channel("w"), session.id)
    stalled(worker, raw)
    raw.hset(KEYS.state(session.id), mapping=fields)
    await serves(client, neighbour)
    late = await client.start("demo", "/echo late")
    await until(late, "idle")
    assert worker.process.poll() is None
    assert all(len(line) < 2000 for line in worker.log)
    assert len([line for line in worker.log if session.id in line]) < 20  # each takeover tells of itself


WRONG: dict[str, Callable[[Any, Any], object]] = {
    "string": lambda raw, key: raw.set(key, b"\xff\xfe"),
    "list": lambda raw, key: raw.rpush(key, "x", b"\xff\xfe"),
    "set": lambda raw, key: raw.sadd(key, "x"),
    "hash": lambda raw, key: raw.hset(key, "x", "y"),
    "zset": lambda raw, key: raw.zadd(key, {b"\xff": 1}),
    "stream": lambda raw, key: raw.xadd(key, {"a": "b"}),
}


def put_in_its_place(raw: Any, key: Any, make: Callable[[Any, Any], object]) -> None:
    """In one step: its owner may write it again at any time."""
    with raw.pipeline() as together:
        together.delete(key)
        make(together, key)
        together.execute()


RIGHT = {"state": "hash", "events": "stream", "inbox": "stream", "commands": "hash"}


@attack(
    "a session's keys with every other type, while it runs and before it is recovered",
    "its session is lost, its neighbours are served and recovered",
)
async def test_a_sessions_key_of_another_type_ends_only_its_session(
    client: AsyncAgentClient, worker: Worker, raw: Any, start_worker: Start
) -> None:
    neighbour = await client.start("demo", "/echo neighbour")
    await until(neighbour, "idle")
    for kind, right in RIGHT.items():
        for wrong, make in WRONG.items():
            if wrong != right:
                session = await client.start("demo", "/echo hi", f"{kind}-{wrong}")
                await until(session, "idle")
                key = getattr(KEYS, kind)(session.id)
                put_in_its_place(raw, key, make)
                raw.publish(KEYS.wake_channel("w"), session.id)
    stalled(worker, raw)
    await serves(client, neighbour)
    late = await client.start("demo", "/echo late")
    await until(late, "idle")
    assert worker.process.poll() is None
    worker.kill()
    second = start_worker("--lease-s", "2", "--beat-s", "0.3", "--recovery-timeout-s", "10")
    await until(neighbour, "recovering")
    await serves(client, neighbour)
    await eventually(lambda: not raw.keys("rq:queue:agentrq"))
    assert second.process.poll() is None
    for sid in (f"{kind}-{wrong}" for kind in RIGHT for wrong in WRONG):
        assert len([line for line in second.log if sid in line]) < 8, sid
    assert not [line for line in second.log if "Traceback" in line]


@attack(
    "the keys that all workers share, each with every wrong type", "no worker ends; work goes on once they are mended"
)
@pytest.mark.parametrize("wrong", WRONG)
async def test_a_shared_key_of_another_type_is_survived(
    client: AsyncAgentClient, worker: Worker, raw: Any, wrong: str
) -> None:
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    queues = ("agentrq", "agentrq-ctl")
    places = ("queue", "intermediate", "wip", "finished", "failed", "canceled", "deferred", "scheduled", "workers")
    shared = {f"rq:{place}:{queue}".encode() for place in places for queue in queues}
    shared |= {b"agentrq:maintenance", b"rq:queues", b"rq:suspended", f"rq:executions:{session.id}".encode()}
    shared |= {key for key in raw.scan_iter("*") if b"{" not in key and b"rq:job:" not in key}
    if wrong == "string":  # the right one for a lease; who may write that may take a worker's name
        shared.remove(KEYS.worker("w").encode())
    for key in shared:
        put_in_its_place(raw, key, WRONG[wrong])
    await eventually(lambda: raw.type(KEYS.worker("w")) == b"string")  # its lease: renewed over whatever stood there
    worker.wait_log("WRONGTYPE|not valid session ids")
    await serves(client, session)
    for key in shared - {KEYS.worker("w").encode()}:
        raw.delete(key)
    late = await client.start("demo", "/echo late")
    await until(late, "idle")
    assert worker.process.poll() is None
    assert not [line for line in worker.log if "Traceback" in line]


@attack("names in the index that are not session ids", "dropped, one line for all of them")
async def test_names_in_the_index_that_are_not_ids_are_dropped(
    client: AsyncAgentClient, worker: Worker, raw: Any
) -> None:
    names = {b"\xff\xfe": 1, "a/b": math.inf, "": -math.inf, "x" * 1000: 0, "}{": 5, "../../x": 1, "a\nb": 2}
    raw.zadd(KEYS.sessions, names)
    line = worker.wait_log("are not valid session ids")
    assert f"{len(names)} names" in line
    await eventually(lambda: not raw.exists(KEYS.sessions))
    await serves(client, await client.start("demo", "/echo late"))


@attack("a client lists sessions with one broken state, and follows one with a forged stream", "it sees the others")
async def test_a_client_reads_spoilt_keys_without_a_traceback(client: AsyncAgentClient, raw: Any) -> None:
    good, bad = await client.start("demo", "hi"), await client.start("demo", "hi")
    raw.delete(KEYS.state(bad.id))
    raw.rpush(KEYS.state(bad.id), "x")
    raw.zadd(KEYS.sessions, {b"\xff\xfe": 1, "}{": 2})
    assert [session.id for session in await client.sessions()] == [good.id]
    entries = [("message", DEEP), ("zzz", "1"), ("status", b"\xff"), ("message", "{}"), ("receipt", "[]")]
    for number, (field, value) in enumerate(entries, 2):
        raw.xadd(KEYS.events(good.id), {field: value}, id=f"0-{number}")
    end = {"cursor": "0-9", "sessionId": good.id, "status": "done", "timestamp": 1}
    raw.xadd(KEYS.events(good.id), {"status": json.dumps(end)}, id="0-9")
    raw.hset(KEYS.state(good.id), mapping={"status": "done", "cursor": "0-9"})
    seen = [event.cursor async for event in good.events()]
    assert (seen[0], seen[-1]) == ("0-1", "0-9")


@attack(
    "epochs and cursors at and over the end of what a stream holds, the stream's last id taken",
    "the session ends, reported once; other sessions are recovered",
)
async def test_numbers_at_their_limits_are_survived(
    client: AsyncAgentClient, worker: Worker, raw: Any, start_worker: Start
) -> None:
    neighbour = await client.start("demo", "/echo neighbour", "neighbour")
    last = str(2**64 - 1)
    spoilt: dict[str, dict[str, str]] = {
        "epoch-last": {"epoch": last}, "epoch-float": {"epoch": "1e308"}, "epoch-minus": {"epoch": "-5"},
        "epoch-over": {"epoch": "9" * 400}, "epoch-53": {"epoch": str(2**53 + 1)},
        "cursor-last": {"cursor": f"{last}-{last}"}, "cursor-over": {"cursor": "9" * 23 + "-1"}, "stream-full": {},
    }  # fmt: skip
    for sid, fields in spoilt.items():
        session = await client.start("demo", "/echo hi", sid)
        await until(session, "idle")
        if fields:
            raw.hset(KEYS.state(sid), mapping=fields)
        else:
            raw.xadd(KEYS.events(sid), {"message": "{}"}, id=f"{last}-{last}")
        raw.xadd(KEYS.inbox(sid), {"command": '{"commandId":"c","command":"prompt","text":"/echo b"}'})
        raw.publish(KEYS.wake_channel("w"), sid)
    stalled(worker, raw)
    await serves(client, neighbour)
    worker.kill()
    second = start_worker("--lease-s", "2", "--beat-s", "0.3", "--recovery-timeout-s", "10")
    await until(neighbour, "recovering")
    await serves(client, neighbour)
    for sid in ("epoch-last", "stream-full"):
        assert "cannot be written" in ((await client.session(sid).wait(30)).error or "")
        assert len([line for line in second.log if f"{sid}: " in line]) < 6
    assert not [line for line in second.log if "Traceback" in line]
    assert all(len(line) < 2000 for line in worker.log + second.log)


@attack(
    "the stream of a running session accepts no more events",
    "the session ends, reported once, in its state if not in its stream; its runner with it",
)
@pytest.mark.parametrize("how", ["full", "no stream"])
async def test_a_stream_spoilt_under_a_session_ends_only_that_session(
    client: AsyncAgentClient, worker: Worker, raw: Any, how: str
) -> None:
    neighbour = await client.start("demo", "/echo neighbour")
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    runner = psutil.Process(int(raw.hget(KEYS.state(session.id), "pid")))
    if how == "full":
        last = str(2**64 - 1)
        raw.xadd(KEYS.events(session.id), {"message": "{}"}, id=f"{last}-{last}")
    else:
        raw.delete(KEYS.events(session.id))
        raw.set(KEYS.events(session.id), "x")
    await session.prompt("/echo b")
    await eventually(lambda: raw.hget(KEYS.state(session.id), "status") == b"error")
    assert b"cannot be written" in raw.hget(KEYS.state(session.id), "error")
    await eventually(lambda: not runner.is_running())
    await eventually(lambda: raw.hget(f"rq:job:{session.id}", "status") == b"failed")
    await serves(client, neighbour)
    assert not [line for line in worker.log if "Traceback" in line]


@pytest.mark.slow
@attack(
    "hundreds of megabytes in a state, an inbox, a stream or an RQ job, packed by zlib too",
    "never read: the worker's memory stays as it was",
)
async def test_gigantic_values_are_not_read_whole(
    client: AsyncAgentClient, worker: Worker, raw: Any, start_worker: Start
) -> None:
    neighbour = await client.start("demo", "/echo neighbour")
    await until(neighbour, "idle")
    giant = b"x" * (40 << 20)  # over every limit, and more than the memory that may be taken
    for sid in ("inbox", "stream", "state"):
        await until(await client.start("demo", "/echo hi" if sid == "inbox" else "/sleep 600", sid), "running")
    before = peak(worker.pid)
    for sid in ("inbox", "stream"):
        raw.xadd(KEYS.inbox(sid), {"command": giant})
    raw.publish(KEYS.wake_channel("w"), "inbox")
    raw.hset(KEYS.state("state"), "prompt", giant)
    raw.hset("rq:job:large", mapping={"data": giant, "status": "queued"})
    raw.hset("rq:job:packed", mapping={"data": zlib.compress(b" " * (200 << 20)), "status": "queued"})
    raw.hset("rq:job:packed-error", mapping={"data": "[]", "exc_info": zlib.compress(b" " * (200 << 20))})
    raw.hset("rq:job:wide", mapping={"data": "[]", **{str(number): "" for number in range(2000)}})
    for queue in ("agentrq", "agentrq-ctl"):
        raw.rpush(f"rq:queue:{queue}", "large", "packed", "packed-error", "wide")
    raw.zadd("rq:scheduled:agentrq", {"large": 1, "packed": 1})
    for job in ("large", "packed", "packed-error", "wide"):
        assert "TooLarge" in worker.wait_log(f"job {job} .*cannot be read")
    worker.wait_log(f"inbox: inbox entry .*{40 << 20} bytes")
    await serves(client, neighbour)
    assert peak(worker.pid) - before < 32 << 20
    # What is read back of a turn that was cut, and the state of a session to be recovered:
    worker.kill()
    for number in range(3):
        raw.xadd(KEYS.events("stream"), {"message": giant}, id=f"1-{1000 + number}")
    second = start_worker("--lease-s", "2", "--beat-s", "0.3", "--name", "v")
    await until(neighbour, "recovering")
    await until(client.session("stream"), "recovering")
    await serves(client, neighbour)
    assert "bytes, over" in second.wait_log("session state: its state has")
    assert peak(second.pid) < before + (32 << 20)
    assert all(len(line) < 2000 for line in worker.log + second.log)


@attack("start options made unreadable in the state", "`refused`: they never become the defaults, which allow more")
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


@pytest.mark.slow
@attack("forged entries in the part of a stream that a recovery reads back", "skipped; neighbours go on")
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
