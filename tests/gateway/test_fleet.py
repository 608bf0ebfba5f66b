"""What concerns all sessions: the feed of statuses, requests that wait, the gateway's figures."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway, Grant
from tests.end_to_end.conftest import fake_claude  # noqa: F401 - a fixture
from tests.gateway.conftest import connect
from tests.gateway.listening import Frame, Listener
from tests.sessions import until
from tests.workers import Worker

Start = Callable[..., Worker]


async def test_the_feed_tells_what_becomes_of_every_session(
    gateway: Gateway, client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    before = await client.start("demo", "/echo before", "before")
    await until(before, "idle")
    async with Listener(gateway, "/stream?feed=status") as stream:
        assert (await stream.next()) == Frame(None, None, None, retry=1000)
        assert (await stream.next()) == Frame(None, "ready", {})
        session = await client.start("demo", "/echo now", "now")
        frames = await stream.until("status", sessionId="now", status="idle")
        await session.stop()
        frames += await stream.until("status", sessionId="now", status="done")
        await session.remove()
        frames += await stream.until("removed", sessionId="now")
        await before.prompt("/echo more")
        frames += await stream.until("status", sessionId="before", status="idle")
    told = [frame.data["status"] for frame in frames if frame.event == "status" and frame.data["sessionId"] == "now"]
    assert told == ["queued", "starting", "running", "idle", "done"]
    assert all(frame.id is None for frame in frames)


@contextlib.asynccontextmanager
async def tenants(client: AsyncAgentClient) -> AsyncIterator[Gateway]:
    """A gateway whose callers are the tenants that they say they are."""
    gateway = Gateway(client, auth=lambda request: Grant(request.headers["x-user"], tenant=request.headers["x-user"]))
    yield gateway
    await gateway.aclose()


async def test_the_feed_tells_a_tenant_of_its_own_sessions(client: AsyncAgentClient) -> None:
    async with (
        tenants(client) as gateway,
        connect(gateway, **{"X-User": "acme"}) as acme,
        Listener(gateway, "/stream?feed=status", X_User="acme") as mine,
        Listener(gateway, "/stream?feed=status", X_User="other") as theirs,
    ):
        await mine.until("ready")
        await theirs.until("ready")
        sid = (await acme.post("/sessions", json={"provider": "demo", "prompt": "x"})).json()["sessionId"]
        await client.start("demo", "x", "other-session", tenant="other")
        await mine.until("status", sessionId=sid)
        (frame,) = await theirs.until("status")
        assert frame.data["sessionId"] == "other-session"


async def test_requests_wait_in_one_list_until_they_are_answered(
    http: httpx.AsyncClient,
    gateway: Gateway,
    client: AsyncAgentClient,
    start_worker: Start,
    fake_claude: None,  # noqa: F811 - the fixture
) -> None:
    start_worker()
    async with Listener(gateway, "/stream?feed=status") as stream:
        await stream.until("ready")
        for number in range(2):
            await client.start("fake-claude", f"ask ls {number}", f"s{number}", permission_mode="default", cwd="/tmp")
            await stream.until("waiting", sessionId=f"s{number}")
    waiting = (await http.get("/approvals")).json()["approvals"]
    assert [each["sessionId"] for each in waiting] == ["s0", "s1"]
    first = waiting[0]
    assert (first["type"], first["name"], first["cwd"], first["provider"]) == (
        "approval_request", "Bash", "/tmp", "fake-claude",
    )  # fmt: skip
    assert first["input"] == {"command": "ls 0"}
    assert first["askedAt"] <= waiting[1]["askedAt"]
    answered = await http.post(f"/sessions/s0/answers/{first['requestId']}?wait=20", json="allow")
    assert (answered.status_code, answered.json()["outcome"]) == (200, "applied")
    assert [each["sessionId"] for each in (await http.get("/approvals")).json()["approvals"]] == ["s1"]
    async with tenants(client) as other, connect(other, **{"X-User": "acme"}) as acme:
        assert (await acme.get("/approvals")).json() == {"approvals": []}


async def test_figures_are_those_of_this_process(
    http: httpx.AsyncClient, gateway: Gateway, client: AsyncAgentClient
) -> None:
    session = await client.start("demo", "x")
    async with Listener(gateway, f"/sessions/{session.id}/stream") as stream:
        await stream.until("status", status="queued")
        answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line.split() for line in answer.text.splitlines() if not line.startswith("#")]
    figures = {name: int(value) for name, value in lines}
    assert (figures["agentrq_gateway_streams"], figures["agentrq_gateway_followed_sessions"]) == (1, 1)
    assert figures["agentrq_gateway_errors_total"] == 0
    assert figures["agentrq_gateway_requests_total"] == 2


async def test_workers_and_queues_are_shown_to_who_runs_them(
    http: httpx.AsyncClient, client: AsyncAgentClient, start_worker: Start, raw: Any
) -> None:
    queued = (await http.get("/queues")).json()["queues"]
    assert queued == [{"name": name, "length": 0, "suspended": False} for name in ("agentrq", "agentrq-ctl")]
    worker = start_worker("--max-sessions", "3")
    session = await client.start("demo", "/echo one")
    await until(session, "idle")
    shown: dict[str, Any] = {}
    async with asyncio.timeout(30):
        while shown.get("used") != 1:
            (shown,) = (await http.get("/workers")).json()["workers"]
    assert (shown["name"], shown["alive"], shown["free"], shown["pid"]) == (worker.name, True, 2, worker.pid)
    assert shown["host"]
    assert shown["version"]
    assert 0 < shown["leaseMs"] <= 10_000
    raw.set("rq:suspended", 1)
    assert all(queue["suspended"] for queue in (await http.get("/queues")).json()["queues"])
    async with tenants(client) as gateway, connect(gateway, **{"X-User": "acme"}) as acme:
        for path in ("/workers", "/queues", "/metrics"):
            assert (await acme.get(path)).status_code == 403
