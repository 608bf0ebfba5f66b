"""Attacks by way of the front ends' protocols: what a grant does not allow elsewhere, it does not allow here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway, Grant
from tests.attacks import attack
from tests.gateway.answers import error_of
from tests.gateway.conftest import connect
from tests.gateway.listening import Listener
from tests.producer.session_writer import KEYS, Writer

ACTIONS = {"acme": ["read", "start", "prompt", "answer", "stop"], "reader": ["read"], "prompter": ["read", "prompt"]}


@pytest.fixture
async def gateway(client: AsyncAgentClient) -> AsyncIterator[Gateway]:
    """A gateway whose callers are named by a header; each but "other" is of the tenant acme."""

    def by_name(request: Any) -> Grant:
        name = request.headers["x-user"]
        tenant = "other" if name == "other" else "acme"
        return Grant(name, tenant=tenant, actions=ACTIONS.get(name, ACTIONS["acme"]))

    gateway = Gateway(client, auth=by_name)
    yield gateway
    await gateway.aclose()


def as_user(gateway: Gateway, name: str) -> httpx.AsyncClient:
    return connect(gateway, **{"X-User": name})


def chat(text: str = "hi", **members: Any) -> dict[str, Any]:
    return {"messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": text}]}]} | members


def thread(session_id: str, **members: Any) -> dict[str, Any]:
    message = {"id": "m1", "role": "user", "content": "hi"}
    return {"threadId": session_id, "runId": "r", "messages": [message], **members}


def approved(request: str) -> dict[str, Any]:
    part = {"type": "dynamic-tool", "toolName": "Bash", "toolCallId": "c", "state": "approval-responded"}
    part["approval"] = {"id": request, "approved": True}  # type: ignore[assignment] # JSON
    return {"messages": [{"id": "a", "role": "assistant", "parts": [part]}]}


@attack("A tenant posts to another's chat or thread, reads it, resumes its runs or stops it", "404; nothing is changed")
async def test_a_foreign_chat_is_not_there(gateway: Gateway, client: AsyncAgentClient) -> None:
    await client.start("demo", "secret", "theirs", metadata={"tenant": "acme"})
    before = await client.session("theirs").state()
    async with as_user(gateway, "other") as http:
        for method, path, body in (
            ("GET", "/ui/theirs/stream", None), ("GET", "/ui/theirs.0-0.p.theirs/stream", None),
            ("GET", "/ui/theirs.0-0.a.0-0.0/stream?startIndex=0", None), ("GET", "/ui/theirs/theirs/stream", None),
            ("POST", "/ui/theirs/stop", {}), ("GET", "/agui/theirs/connect", None),
            ("POST", "/ui/theirs", chat(provider="demo")), ("POST", "/ui", chat(provider="demo", id="theirs")),
            ("POST", "/ui/theirs", approved("r")),
            ("POST", "/agui", thread("theirs", forwardedProps={"provider": "demo"})),
            ("POST", "/agui", thread("theirs", resume=[{"interruptId": "r", "status": "resolved", "payload": True}])),
        ):  # fmt: skip
            response = await http.request(method, path, json=body)
            assert error_of(response)[:2] == (404, "session_not_found"), (method, path)
            assert "secret" not in response.text
    assert await client.session("theirs").state() == before


@attack("Another's run is asked for by way of one's own chat", "404")
async def test_a_run_belongs_to_its_chat(gateway: Gateway, client: AsyncAgentClient) -> None:
    await client.start("demo", "secret", "theirs", metadata={"tenant": "other"})
    await client.start("demo", "x", "mine", metadata={"tenant": "acme"})
    async with as_user(gateway, "acme") as http:
        response = await http.get("/ui/mine/theirs.0-0.p.theirs/stream")
    assert error_of(response)[:2] == (404, "session_not_found")


RESUME = [{"interruptId": "r", "status": "resolved", "payload": {"decision": "allow", "by": "the boss"}}]


@pytest.fixture
def asking(redis_url: str, raw: Any) -> Writer:
    """A session of acme's that waits for the answer to a request "r"."""
    writer = Writer.start(redis_url, "asks", metadata={"tenant": "acme"})
    writer.statuses("running")
    writer.message("approval_request", {"requestId": "r", "name": "Bash", "input": {}})
    writer.statuses("waiting")
    request = {"id": "r", "kind": "approval", "name": "Bash", "askedAt": 1, "cursor": "1-3"}
    raw.hset(KEYS.state("asks"), mapping={"openRequests": '["r"]', "requests": json.dumps([request])})
    return writer


@attack("A caller who may not start, prompt or answer does it by a chat or a thread", "403, nothing is sent")
async def test_a_front_end_may_what_its_grant_allows(
    gateway: Gateway, client: AsyncAgentClient, asking: Writer
) -> None:
    props = {"provider": "demo"}
    tried: tuple[tuple[str, str, Any], ...] = (
        ("reader", "/ui/asks", chat()), ("reader", "/ui/new", chat(provider="demo")),
        ("reader", "/agui", thread("asks")), ("reader", "/ui/asks/stop", {}),
        ("prompter", "/ui/new", chat(provider="demo")), ("prompter", "/agui", thread("new", forwardedProps=props)),
        ("prompter", "/ui/asks", approved("r")), ("prompter", "/agui", thread("asks", resume=RESUME)),
    )  # fmt: skip
    for name, path, body in tried:
        async with as_user(gateway, name) as http:
            response = await http.post(path, json=body)
        assert error_of(response)[:2] == (403, "forbidden"), (name, path, response.text)
    assert [state.session_id for state in await client.states()] == ["asks"]
    assert asking.inbox() == []


@attack("An answer names somebody else as the one who decided", "the caller's own name is written")
async def test_who_answers_is_who_called(gateway: Gateway, asking: Writer) -> None:
    body = thread("asks", resume=RESUME)
    async with Listener(gateway, "/agui", body=body, x_user="acme") as stream:
        assert stream.status == 200
    (command,) = asking.inbox()
    assert command["answer"] == {"decision": "allow", "by": "acme"}


@attack("A first message brings options that its grant forbids, or claims another tenant", "403 or 422, nothing starts")
async def test_a_first_message_starts_by_the_rules_of_a_start(gateway: Gateway, client: AsyncAgentClient) -> None:
    async with as_user(gateway, "acme") as http:
        for options, status in (({"metadata": {"tenant": "other"}}, 422), ({"nonsense": 1}, 422)):
            refused = await http.post("/ui/new", json=chat(provider="demo", options=options))
            assert refused.status_code == status, refused.text
        props = {"provider": "demo", "options": {"metadata": {"tenant": "other"}}}
        assert (await http.post("/agui", json=thread("new", forwardedProps=props))).status_code == 422
    assert await client.states() == []


@pytest.mark.parametrize(
    "name",
    [
        "mine.18446744073709551615-18446744073709551615.a.18446744073709551615-18446744073709551615.9999",
        "mine.9-9.p.x", "mine.0-0.a.99999-1.0",
    ],
)  # fmt: skip
@attack("A run id or a frame's id is made up", "an empty stream or an error, never another's events")
async def test_a_forged_run_reads_nothing(gateway: Gateway, client: AsyncAgentClient, name: str) -> None:
    session = await client.start("demo", "x", "mine", metadata={"tenant": "acme"})
    await session.stop()
    async with as_user(gateway, "acme") as http:
        for query in ("?startIndex=0", "?startIndex=-3"):
            response = await http.get(f"/ui/{name}/stream{query}")
            assert response.status_code in (200, 404), response.text
            assert '"text' not in response.text
    place = "18446744073709551615-18446744073709551615"
    async with as_user(gateway, "acme") as http:
        response = await http.get("/agui/mine/connect", headers={"Last-Event-ID": f"{place},a:5"})
    assert response.status_code == 200, response.text
    assert "RUN_FINISHED" in response.text


@attack("JSON that is nested a hundred thousand times, or has surrogates and huge numbers", "400 or 422")
async def test_odd_json_is_refused(gateway: Gateway) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    large = '{"messages":[{"parts":[' + "9" * 5000 + "]}]}"
    tried = (deep, '{"messages":' + deep + "}", "[]", "null", '"\\ud800"', "", large)
    async with as_user(gateway, "acme") as http:
        for path in ("/ui/c", "/agui"):
            for raw in tried:
                response = await http.post(path, content=raw, headers={"Content-Type": "application/json"})
                assert response.status_code in (400, 422), (path, raw[:50], response.text)
