"""Input that is wrong: one clear line, the contract's error, nothing lost, and the worker goes on."""

from __future__ import annotations

import functools
import json
import pickle  # noqa: TID251 - an attacker would
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from agentrq import AsyncAgentClient, InvalidOption, InvalidSessionId, SessionExists, SessionNotFound
from tests.attacks import attack
from tests.rq_checks import backend_queue, eventually, fetch, result_of, stuck
from tests.sessions import contents, until
from tests.workers import Worker

Start = Callable[..., Worker]


def put(raw: redis.Redis, job_id: str, queue: str = "agentrq", **fields: Any) -> str:
    """A job as another language, or an attacker, writes it."""
    given = {"data": '["agentrq.start",null,[null,"demo","/crash 0"],{}]', "status": "queued", "origin": queue,
             "created_at": "2026-11-22T10:00:00.000000Z", "timeout": "-1"} | fields  # fmt: skip
    raw.hset(f"rq:job:{job_id}", mapping={name: value for name, value in given.items() if value is not None})
    raw.sadd("rq:queues", f"rq:queue:{queue}")
    raw.rpush(f"rq:queue:{queue}", job_id)
    return job_id


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def call(function: str, *args: Any, **kwargs: Any) -> str:
    return json.dumps([function, None, args, kwargs])


@attack(
    "RQ jobs with foreign functions, pickles (packed too), callbacks, garbage in every field",
    "failed, one log line each; nothing imported, unpickled or run",
)
async def test_a_foreign_job_fails_with_one_line(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("--lease-s", "2", "--beat-s", "0.5", "--name", "w")
    trap = tmp_path / "sprung"
    foreign = "ForeignFunction: "
    pickled = f"{foreign}The job was pickled, and agentrq reads only JSON: enqueue it on Queue(…, serializer="
    option = "InvalidOption: Invalid option "
    expected = {
        put(raw, "os-system", data=call("os.system", f"touch {trap}")): foreign + "'os.system' is not run here",
        put(raw, "builtin", data=call("eval", f"open({str(trap)!r}, 'w')")): foreign + "'eval' is not run here",
        put(raw, "pickled", data=pickle.dumps(("os.system", None, (Bomb(str(trap)),), {}))): pickled,
        put(raw, "pickled-z", data=zlib.compress(pickle.dumps(Bomb(str(trap))))): pickled,
        put(raw, "garbage", data=b"\x00\xff{{{"): foreign + "The job's data",
        put(raw, "no-data", data=None): foreign,
        put(raw, "not-a-call", data="[1,2]"): foreign + "The job's data",
        put(raw, "deep", data="[" * 50_000): foreign + "The job's data",
        put(raw, "status", status="dancing"): foreign + "The job cannot be read",
        put(raw, "times", created_at="yesterday"): foreign + "The job cannot be read",
        put(raw, "timeout", timeout="soon"): foreign + "The job cannot be read",
        put(raw, "depends-on-7", dependency_ids="7"): foreign + "The job cannot be read",
        put(raw, "depends-on-objects", dependency_ids="[{}]"): foreign + "The job cannot be read",
        put(raw, "no-date", created_at="x" * 1_000_000): foreign + "The job cannot be read",
        put(raw, "status-long", status="\x01" * 2_000_000): foreign + "The job cannot be read",
        put(raw, "names", success_callback_name="\n" * 900_000, data=call("x.y")): foreign + "'x.y' is not run here",
        put(raw, "parts", data=zlib.compress(b"[" + b"{}," * 1_500_000 + b"1]")): foreign + "The job's data has more",
        put(raw, "ctl-foreign", "agentrq-ctl", data=call("os.system", f"touch {trap}")): foreign + "'os.system'",
        put(raw, "ctl-status", "agentrq-ctl", status="dancing"): foreign + "The job cannot be read",
        put(raw, "callback", failure_callback_name="os.abort", data=call("x.y")): foreign + "'x.y' is not run here",
        put(raw, "no-provider", data=call("agentrq.start")): option + "'provider'",
        put(raw, "provider-7", data=call("agentrq.start", None, 7, "hi")): option + "'provider'",
        put(raw, "no-prompt", data=call("agentrq.start", None, "demo")): option + "'prompt'",
        put(raw, "prompt-list", data=call("agentrq.start", None, "demo", ["hi"])): option + "'prompt'",
        put(raw, "options-7", data=call("agentrq.start", None, "demo", "hi", 7)): option + "'options'",
        put(raw, "option-no", data=call("agentrq.start", None, "demo", "hi", {"speed": 1})): option + "'speed'",
        put(raw, "option-x", data=call("agentrq.start", None, "demo", "hi", {"maxTurns": "3"})): option + "'maxTurns'",
        put(raw, "env-7", data=call("agentrq.start", None, "demo", "hi", {"extra_env": {"A": 1}})): option
        + "'extra_env'",
        put(raw, "too-many", data=call("agentrq.start", None, "demo", "hi", {}, 5)): option + "'agentrq.start'",
        put(raw, "twice", data=call("agentrq.start", None, "demo", "hi", prompt="ho")): option,
        put(raw, "unknown-arg", data=call("agentrq.start", colour="red")): option,
        put(raw, "args-text", data='["agentrq.start",null,"abc",{}]'): option,
        put(raw, "sid-7", data=call("agentrq.start", 7, "demo", "hi")): "InvalidSessionId: ",
        put(raw, "sid-bad", data=call("agentrq.start", "a/b", "demo", "hi")): "InvalidSessionId: ",
        put(raw, "nobody", data=call("agentrq.start", None, "nobody", "hi")): "Runner not found: nobody; searched",
        put(raw, "nowhere", data=call("agentrq.start", None, "demo", "hi", {"cwd": "/no/where"})): "Working directory",
    }  # fmt: skip
    raw.set("rq:job:a-string", "no hash")
    put(raw, "no.job.id", data=call("agentrq.start", None, "demo", "hi"))
    raw.rpush("rq:queue:agentrq", "a-string", "no-such-job", b"\xff")
    expected["a-string"] = foreign + "The job cannot be read"
    await eventually(lambda: raw.hexists("rq:job:no-data", "data"))  # RQ's own reading passes over it
    for job_id, error in expected.items():
        await eventually(functools.partial(raw.exists, f"rq:results:{job_id}"))  # until then it may not be readable
        status, said = await result_of(raw, job_id)
        assert (status, said[: len(error)]) == ("failed", error), (job_id, said)
        assert "\n" not in said
        assert raw.zscore(f"rq:failed:{fetch(raw, job_id).origin}", job_id) is not None
    assert not trap.exists()
    good = put(raw, "by-hand")
    assert (await result_of(raw, good))[0] == "finished"
    put(raw, "surrogate", data='["agentrq.start",null,[null,"demo","/echo \\ud800"],{}]')
    await eventually(lambda: raw.exists("agentrq:{surrogate}:state"))
    session = client.session("surrogate")
    await until(session, "idle")
    await session.stop()
    await session.wait(20)
    assert contents([event async for event in session.events()], "text")[0].text == "\ufffd"
    assert worker.process.poll() is None
    for job_id in expected:
        worker.wait_log(f" job {job_id}|session {job_id}:")
        lines = [line for line in worker.log if f" job {job_id}" in line or f"session {job_id}:" in line]
        assert len(lines) in (1, 2), (job_id, lines)
    assert max(map(len, worker.log)) < 2000
    assert not [line for line in worker.log if "Traceback" in line]
    await eventually(lambda: not stuck(raw))


@attack("a scheduled RQ job that cannot be read", "failed; it delays no other")
async def test_a_bad_scheduled_job_does_not_delay_others(start_worker: Start, raw: redis.Redis) -> None:
    queue = backend_queue(raw)
    bad = queue.enqueue_at(datetime.now(UTC), "agentrq.start", None, "demo", "/crash 0")
    raw.hset(bad.key, "status", "dancing")
    good = queue.enqueue_at(datetime.now(UTC), "agentrq.start", None, "demo", "/crash 0")
    start_worker()
    assert (await result_of(raw, good.id))[0] == "finished"
    await eventually(lambda: raw.exists(f"rq:results:{bad.id}"))
    assert (await result_of(raw, bad.id))[0] == "failed"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"speed": 1}, "speed"),
        ({"max_turns": "3"}, "max_turns"),
        ({"max_turns": 0}, "max_turns"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"on_interrupt": "dance"}, "on_interrupt"),
        ({"extra_env": {"A": 1}}, "extra_env"),
        ({"metadata": {"a": ["b"]}}, "metadata"),
        ({"cwd": "a\0b"}, "cwd"),
    ],
)
async def test_a_client_refuses_bad_options_before_it_sends(
    client: AsyncAgentClient, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(InvalidOption, match=name):
        await client.start("demo", "hi", **options)
    assert (await client.sessions()).sessions == []


async def test_a_client_refuses_bad_input_before_it_sends(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    wrong: list[tuple[Any, Any]] = [("", "hi"), ("demo", ""), (7, "hi"), ("demo", None)]
    for provider, prompt in wrong:
        with pytest.raises(InvalidOption):
            await client.start(provider, prompt)
    for sid in ("a b", "", "x" * 65, "ä", "{a}"):
        with pytest.raises(InvalidSessionId):
            await client.start("demo", "hi", sid)
    with pytest.raises(SessionNotFound):
        await client.session("nobody").prompt("hi")
    assert not list(raw.scan_iter("*"))
    start_worker()
    failures = {
        "nobody": ({}, "Runner not found: nobody; searched settings [providers.nobody]"),
        "../../etc/passwd": ({}, "Runner not found: "),
        "demo": ({"cwd": "/no/where"}, "Working directory not found: /no/where"),
    }
    for provider, (options, error) in failures.items():
        session = await client.start(provider, "hi", **options)
        state = await session.wait(20)
        assert (state.status, state.reason) == ("error", "failed")
        assert (state.error or "").startswith(error)
        assert await result_of(raw, session.id) == ("failed", state.error)
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    with pytest.raises(SessionExists):
        await client.start("demo", "hi", session.id)
    await session.prompt("/echo unharmed", wait=True, timeout=20)
