"""What a user of RQ sees and may do: jobs, registries, `rq info`, RQ's commands, from a backend without agentrq."""

from __future__ import annotations

import asyncio
import functools
import http.server
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from rq import Callback, Queue, Retry
from rq.command import send_command, send_shutdown_command, send_stop_execution_command, send_stop_job_command
from rq.job import Dependency
from rq.serializers import JSONSerializer
from rq.webhook import Webhook

from agentrq import AsyncAgentClient, CommandRejected, Message, StatusEvent
from agentrq.wire import script_calls
from agentrq.wire.keys import Keys
from tests.faults.deaths import LIGHT_PROVIDER
from tests.rq_checks import backend_queue, eventually, fetch, result_of, stuck
from tests.sessions import contents, until
from tests.workers import Worker

Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5")
RQ = str(Path(sys.executable).with_name("rq"))


def rq_command(*words: str) -> str:
    """The real ``rq``."""
    return subprocess.run([RQ, *words], capture_output=True, text=True, check=True, timeout=30).stdout


def is_started(raw: redis.Redis, job_id: str) -> bool:
    return fetch(raw, job_id).get_status().value == "started"


async def opened(raw: redis.Redis, session_id: str) -> None:
    """A start that RQ brings is given its state by a worker."""
    await eventually(lambda: raw.exists(f"agentrq:{{{session_id}}}:state"))


async def test_a_backend_without_agentrq_starts_sessions(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    start_worker()
    queue = backend_queue(raw)
    nameless = queue.enqueue("agentrq.start", None, "demo", "/echo one", {"metadata": {"from": "elsewhere"}})
    named = queue.enqueue("agentrq.start", session_id="mine", provider="demo", prompt="/echo two")
    for sid in (nameless.id, "mine"):
        await opened(raw, sid)
        await until(client.session(sid), "idle")
    assert (await client.session(nameless.id).state()).metadata == {"from": "elsewhere"}
    again = queue.enqueue("agentrq.start", "mine", "demo", "/echo three")
    status, error = await result_of(raw, again.id)
    assert (status, error) == ("failed", "SessionExists: Session mine exists already")
    # The id of the live session's own job is taken over by a second start: it fails, the session goes on.
    queue.enqueue("agentrq.start", None, "demo", "/echo four", job_id=nameless.id)
    assert await result_of(raw, nameless.id) == ("failed", f"SessionExists: Session {nameless.id} exists already")
    session = client.session(nameless.id)
    await session.prompt("/echo still here", wait=True, timeout=20)
    for sid in (nameless.id, "mine"):
        await client.session(sid).stop()
        assert (await client.session(sid).wait(20)).status == "done"
    await eventually(lambda: {fetch(raw, job.id).get_status().value for job in (nameless, named)} == {"finished"})
    assert raw.zscore("rq:failed:agentrq", nameless.id) is None
    assert not stuck(raw)
    # After the end the id is still taken.
    queue.enqueue("agentrq.start", None, "demo", "/echo five", job_id="late")
    await opened(raw, "late")
    await until(client.session("late"), "idle")
    await client.session("late").stop()
    await client.session("late").wait(20)
    await eventually(lambda: fetch(raw, "late").get_status().value == "finished")
    raw.delete("rq:results:late")
    queue.enqueue("agentrq.start", None, "demo", "/echo six", job_id="late")
    assert (await result_of(raw, "late"))[0] == "failed"


async def test_a_job_has_the_result_or_error_of_its_session(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    start_worker()
    queue = backend_queue(raw)
    good = queue.enqueue("agentrq.start", None, "demo", "/crash 0", result_ttl=77)
    bad = queue.enqueue("agentrq.start", None, "demo", "/crash 7", failure_ttl=66, retry=Retry(max=2))
    gone = queue.enqueue("agentrq.start", None, "demo", "/crash 0", result_ttl=0)
    status, state = await result_of(raw, good.id)
    assert (status, state["status"], state["reason"], state["sessionId"]) == ("finished", "done", "completed", good.id)
    assert 70 < raw.ttl(good.key) <= 77
    # A session that ended is not started again by RQ's retries: its stream has its last event.
    assert await result_of(raw, bad.id) == ("failed", "Exit code: 7")
    assert 55 < raw.ttl(f"rq:results:{bad.id}") <= 66
    await client.session(gone.id).wait(20)
    await eventually(lambda: not raw.exists(gone.key))
    long = queue.enqueue("agentrq.start", None, "demo", "/sleep 60", job_timeout=1)
    assert await result_of(raw, long.id) == ("failed", "Ran over 1 s")
    ended = await client.session(long.id).state()
    assert (ended.status, ended.reason) == ("error", "timeout")
    assert not stuck(raw)


@pytest.mark.slow
async def test_rq_info_suspend_and_stop_work_on_sessions(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, redis_url: str
) -> None:
    worker = start_worker(*FAST, "--name", "w1")
    sessions = [await client.start("demo", "/sleep 60") for _ in range(3)]
    for session in sessions:
        await until(session, "running")
    await eventually(lambda: raw.scard("rq:worker:w1:executions") == 3)
    shown = rq_command("info", "-u", redis_url, "--raw")
    assert "worker w1" in shown, shown
    assert " busy " in shown, shown
    assert all(session.id in shown for session in sessions) or "3 executing" in shown, shown
    rq_command("suspend", "-u", redis_url)
    held = await client.start("demo", "/echo held")
    await sessions[0].prompt("/echo taken")
    queue = backend_queue(raw, "agentrq-ctl")
    assert (await result_of(raw, queue.enqueue("agentrq.prompt", sessions[1].id, "/echo by rq").id))[0] == "finished"
    assert (await held.state()).status == "queued"
    assert raw.hget(f"rq:job:{held.id}", "status") == b"queued"
    rq_command("resume", "-u", redis_url)
    await until(held, "idle")
    # RQ's own commands, malformed ones in between.
    for rubbish in (b"\xff\xfe", b"{", b"[1]", b"7", b'{"command":7}', b'{"command":"stop-job"}', b"[" * 100_000):
        raw.publish("rq:pubsub:w1", rubbish)
    send_command(raw, "w1", "dance")
    send_stop_job_command(raw, sessions[0].id, serializer=JSONSerializer)
    assert (await sessions[0].wait(20)).reason == "stopped"
    assert (await result_of(raw, sessions[0].id))[0] == "stopped"
    execution = fetch(raw, sessions[1].id).get_executions()[0]
    send_stop_execution_command(raw, sessions[1].id, execution.id)
    assert (await result_of(raw, sessions[1].id))[0] == "stopped"
    other = start_worker(*FAST, "--name", "w2")
    send_shutdown_command(raw, "w1")
    place = await until(held, "recovering")
    await sessions[2].stop()
    assert await asyncio.to_thread(worker.process.wait, 30) == 0
    await until(held, "idle", place)
    await held.stop()
    assert (await held.wait(20)).worker == other.name
    await eventually(lambda: not stuck(raw))
    shown = rq_command("info", "-u", redis_url, "--raw")
    assert "worker w1" not in shown
    assert "idle" in shown


async def test_copies_of_a_job_in_the_queue_start_once(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    """An enqueue whose answer was lost is made again: one worker takes all the copies and runs the session once."""
    sessions = [await client.start("demo", "hello", f"s-{number}") for number in range(4)]
    for session in sessions:
        raw.lpush("rq:queue:agentrq", *[session.id] * 3)
    worker = start_worker()
    for session in sessions:
        await until(session, "idle")
        await session.stop()
        assert (await session.wait(30)).status == "done"
        events = [event async for event in session.events()]
        statuses = [event.status for event in events if isinstance(event, StatusEvent)]
        assert (statuses.count("starting"), statuses.count("idle")) == (1, 1)
        assert len(contents(events, "prompt")) == 1
    assert "not claimed: taken" in "".join(worker.log)
    await eventually(lambda: not stuck(raw), "nothing stuck in RQ")


async def test_a_session_is_fetched_with_the_dequeue_of_its_start(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    """Its session is read with what the dequeue asks anyhow; by itself only until Redis knows the script."""
    raw.set(Keys().maintenance_lock(), "nobody's", px=60_000)
    raw.script_flush()
    start_worker()
    looks = []
    for sid in ("first", "second"):
        with raw.monitor() as monitor:
            await until(await client.start("demo", "hello", sid), "idle")
            raw.echo("over")
            said = (monitor.next_command()["command"] for _ in itertools.count())
            commands = list(itertools.takewhile(lambda command: command != "ECHO over", said))
        look = script_calls.fetch_session(Keys(), sid)
        looks.append(sum(f"1 {look.keys[0]} {look.args[0]} " in command for command in commands))
    assert looks == [3, 1]  # the script is not there; it is still not there; it is


async def test_scheduled_and_dependent_starts_run_beside_plain_workers(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, redis_url: str
) -> None:
    start_worker()
    stock = subprocess.Popen(
        [RQ, "worker", "-u", redis_url, "--quiet", "stock"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        queue = backend_queue(raw)
        first = queue.enqueue("agentrq.start", None, "demo", "/sleep 1\n/crash 0")
        second = queue.enqueue("agentrq.start", None, "demo", "/crash 4", depends_on=first)
        third = queue.enqueue("agentrq.start", None, "demo", "/crash 0", depends_on=second)
        fourth = queue.enqueue(
            "agentrq.start", None, "demo", "/crash 0", depends_on=Dependency(jobs=[second], allow_failure=True)
        )
        later = queue.enqueue_in(timedelta(seconds=1), "agentrq.start", None, "demo", "/crash 0")
        plain = Queue("stock", connection=raw).enqueue("builtins.len", "four")
        assert second.get_status() == "deferred"
        assert [(await result_of(raw, job.id))[0] for job in (first, second, fourth, later)] == [
            "finished", "failed", "finished", "finished",
        ]  # fmt: skip
        assert third.get_status() == "deferred"
        started, ended = [await client.session(job.id).state() for job in (second, first)]
        assert started.created_at is not None
        assert ended.ended_at is not None
        assert started.created_at >= ended.ended_at
        assert await asyncio.to_thread(lambda: plain.latest_result(timeout=20).return_value) == 4  # type: ignore[union-attr]
        assert stock.poll() is None
    finally:
        stock.terminate()
        stock.wait(20)


async def test_commands_by_rq_reach_a_full_worker(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    start_worker("--max-sessions", "1")
    starts, commands = backend_queue(raw), backend_queue(raw, "agentrq-ctl")
    early = commands.enqueue("agentrq.prompt", "full", "/echo early", retry=Retry(max=5, interval=1))
    await eventually(lambda: fetch(raw, early.id).get_status().value in ("scheduled", "failed"))
    starts.enqueue("agentrq.start", "full", "demo", "/sleep 1")
    session, waits = client.session("full"), await client.start("demo", "/echo waits")
    await opened(raw, "full")
    await until(session, "running")
    ids = [commands.enqueue("agentrq.prompt", "full", f"/echo {number}").id for number in range(5)]
    idle = commands.enqueue("agentrq.interrupt", "full")
    answer = commands.enqueue("agentrq.answer", session_id="full", request_id="none", answer="allow")
    for job_id in (*ids, idle.id, answer.id, early.id):
        status, result = await result_of(raw, job_id)
        assert (status, result) == ("finished", {"commandId": job_id})
    await until(session, "idle")
    events = []
    async with asyncio.timeout(20):
        async for event in session.events():
            events.append(event)
            prompts = contents(events, "prompt")
            if len(prompts) == 7:
                break
    assert [prompt.command_id for prompt in prompts if prompt.command_id in ids] == ids
    assert (await waits.state()).status == "queued"
    wrong = {
        commands.enqueue("agentrq.prompt", "nobody", "hi").id: "SessionNotFound: No such session: nobody",
        commands.enqueue("agentrq.prompt", "full", 7).id: "InvalidOption: Invalid option 'prompt'",
        commands.enqueue("agentrq.prompt", "full", "hi", "loudly").id: "InvalidOption: Invalid option 'mode'",
        commands.enqueue("agentrq.prompt", "a b", "hi").id: "InvalidSessionId: ",
        commands.enqueue("agentrq.stop").id: "InvalidSessionId: ",
        commands.enqueue("agentrq.stop", "full", "now").id: "InvalidOption: ",
    }
    for job_id, error in wrong.items():
        status, said = await result_of(raw, job_id)
        assert status == "failed"
        assert said.startswith(error), said
    stop = commands.enqueue("agentrq.stop", "full")
    assert (await session.wait(20)).reason == "stopped"
    assert (await result_of(raw, stop.id))[0] == "finished"
    await until(waits, "idle")
    ended = commands.enqueue("agentrq.prompt", "full", "too late")
    assert (await result_of(raw, ended.id))[1] == "SessionEnded: Session full has ended (done)"
    with pytest.raises(CommandRejected):
        await waits.interrupt(wait=True, timeout=20)
    # Stops through RQ end what waits, too.
    again = await client.start("demo", "never")
    commands.enqueue("agentrq.stop", again.id)
    assert (await again.wait(20)).reason == "stopped"
    await waits.stop()
    await waits.wait(20)
    await eventually(lambda: fetch(raw, again.id).get_status().value == "canceled")
    # A start in the wrong queue goes where starts are counted.
    moved = commands.enqueue("agentrq.start", None, "demo", "/crash 0")
    assert (await result_of(raw, moved.id))[0] == "finished"


async def test_a_job_canceled_in_rq_ends_its_session(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    session = await client.start("demo", "never")
    fetch(raw, session.id).cancel()
    forgotten = await client.start("demo", "/crash 0")
    raw.delete(f"rq:job:{forgotten.id}", "rq:queue:agentrq")
    start_worker(*FAST)
    assert (await session.wait(20)).reason == "stopped"
    assert (await forgotten.wait(20)).reason == "completed"
    assert fetch(raw, session.id).get_status() == "canceled"
    # What runs is stopped, wherever it stands, and its job stays canceled.
    idle, busy = await client.start("demo", "/echo on"), await client.start("demo", "/sleep 60")
    await until(idle, "idle")
    await until(busy, "running")
    for running in (idle, busy):
        await eventually(functools.partial(is_started, raw, running.id))
        fetch(raw, running.id).cancel()
        assert (await running.wait(20)).reason == "stopped"
    await eventually(lambda: not stuck(raw))
    queue = backend_queue(raw)
    for it in (session, idle, busy):
        assert fetch(raw, it.id).get_status() == "canceled"
        assert it.id in queue.canceled_job_registry.get_job_ids()
        assert fetch(raw, it.id).latest_result() is None
        assert 0 < raw.ttl(f"rq:job:{it.id}") <= 86_400


async def test_a_start_canceled_in_rq_never_runs_however_close_the_race(start_worker: Start, raw: redis.Redis) -> None:
    start_worker(*FAST)
    queue, canceled = backend_queue(raw), []
    for number in range(60):
        job = queue.enqueue("agentrq.start", None, "demo", "/sleep 60")
        for _ in range(number % 20):  # the worker is elsewhere with it each time
            raw.ping()
        if fetch(raw, job.id).get_status() == "queued":
            job.cancel()
            if fetch(raw, job.id).get_status() == "canceled":
                canceled.append(job.id)
        else:
            send_stop_job_command(raw, job.id, serializer=JSONSerializer)
    assert canceled

    def live() -> list[str]:
        states = {sid: raw.hget(Keys().state(sid), "status") for sid in canceled}
        return [sid for sid, status in states.items() if status not in (None, b"done")]

    await eventually(lambda: not live() and not stuck(raw))
    assert {fetch(raw, job_id).get_status().value for job_id in canceled} == {"canceled"}
    assert set(canceled) <= set(queue.canceled_job_registry.get_job_ids())


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """An HTTP server that notes what is posted to it; the path /slow never answers while the test runs."""
    seen: list[dict[str, object]] = []
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/slow":
                over.wait(20)
            seen.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
async def test_webhooks_are_sent_and_callbacks_refused(
    client: AsyncAgentClient,
    start_worker: Start,
    raw: redis.Redis,
    endpoint: tuple[str, list[dict[str, object]]],
    tmp_path: Path,
) -> None:
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\ndef done(*_): pass\n")
    worker = start_worker(PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    url, seen = endpoint
    queue = backend_queue(raw)
    hooks = [Webhook(f"{url}/slow", "failed", method="POST", timeout=5)]
    slow = [queue.enqueue("agentrq.start", None, "demo", "/crash 1", webhooks=hooks) for _ in range(6)]
    trapped = queue.enqueue(
        "agentrq.start",
        None,
        "demo",
        "/crash 0",
        on_success=Callback("trap.done"),
        on_failure=Callback("trap.done"),
        on_stopped=Callback("trap.done"),
        webhooks=[Webhook(f"{url}/good", "finished", method="POST")],
    )
    assert (await result_of(raw, trapped.id))[0] == "finished"
    worker.wait_log(r"its callbacks are not run here: \[.trap\.done")
    for job in slow:
        assert (await result_of(raw, job.id))[0] == "failed"  # though their webhooks hang
    await eventually(lambda: any(body["job_id"] == trapped.id for body in seen))
    assert not (tmp_path / "sprung").exists()


async def test_workers_share_starts_by_their_free_slots(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, config: Path
) -> None:
    with config.open("a") as file:
        file.write(LIGHT_PROVIDER)
    start_worker("--name", "small", "--max-sessions", "4")
    first = [await client.start("light", "here") for _ in range(2)]
    for session in first:
        await until(session, "idle")
    start_worker("--name", "large", "--max-sessions", "40")
    await eventually(lambda: raw.hexists("rq:worker:large", "agentrq_free"))
    raw.hdel("rq:worker:small", "agentrq_free")
    await eventually(lambda: raw.hexists("rq:worker:small", "agentrq_free"))  # it has looked round since
    later = [await client.start("light", "there") for _ in range(12)]
    for session in later:
        await until(session, "idle")
    owners = [(await session.state()).worker for session in later]
    assert owners.count("large") >= 10, owners
    for session in (*first, *later):
        await session.stop()
        events = [event async for event in session.events()]
        assert isinstance(events[-1], StatusEvent)
        assert not [event for event in events if isinstance(event, Message) and event.type == "error"]
