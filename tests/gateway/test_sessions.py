"""Sessions over HTTP, with a real server and a real worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway
from tests.gateway.answers import error_of
from tests.sessions import until
from tests.workers import Worker

Start = Callable[..., Worker]


async def test_a_session_is_started_prompted_shown_and_removed(
    http: httpx.AsyncClient, client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    made = await http.post("/sessions", json={"provider": "demo", "prompt": "/echo one", "options": {"cwd": "/tmp"}})
    assert made.status_code == 201
    sid = made.json()["sessionId"]
    assert made.headers["location"] == f"/sessions/{sid}"
    await until(client.session(sid), "idle")

    state = (await http.get(made.headers["location"])).json()
    assert (state["sessionId"], state["status"], state["provider"], state["numTurns"]) == (sid, "idle", "demo", 1)

    sent = await http.post(f"/sessions/{sid}/prompts", json={"text": "/echo two"}, headers={"Idempotency-Key": "two"})
    assert (sent.status_code, sent.json()) == (202, {"commandId": "two"})
    again = await http.post(
        f"/sessions/{sid}/prompts?wait=30", json={"text": "/echo two"}, headers={"Idempotency-Key": "two"}
    )
    assert again.status_code == 200
    assert (again.json()["commandId"], again.json()["outcome"]) == ("two", "applied")

    assert (await http.delete(f"/sessions/{sid}")).status_code == 204
    assert error_of(await http.get(f"/sessions/{sid}")) == (404, "session_not_found", None)
    assert error_of(await http.delete(f"/sessions/{sid}")) == (404, "session_not_found", None)


async def test_a_rejected_command_is_answered_by_its_receipt(
    http: httpx.AsyncClient, client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    session = await client.start("demo", "/echo one")
    await until(session, "idle")
    rejected = await http.post(f"/sessions/{session.id}/interrupt?wait=20")
    assert rejected.status_code == 200
    assert (rejected.json()["outcome"], rejected.json()["reason"]) == ("rejected", "idle")
    late = await http.post(f"/sessions/{session.id}/answers/nobody-asked", json="allow")
    assert error_of(late) == (409, "command_rejected", None)
    stopped = await http.post(f"/sessions/{session.id}/stop")
    assert (stopped.status_code, set(stopped.json())) == (202, {"commandId"})
    await session.wait(30)
    assert error_of(await http.post(f"/sessions/{session.id}/prompts", json={"text": "x"})) == (
        409,
        "session_ended",
        None,
    )


async def test_a_start_with_an_idempotency_key_starts_one_session(http: httpx.AsyncClient) -> None:
    body = {"provider": "demo", "prompt": "/echo one"}
    first = await http.post("/sessions", json=body, headers={"Idempotency-Key": "k1"})
    second = await http.post("/sessions", json=body, headers={"Idempotency-Key": "k1"})
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    other = await http.post("/sessions", json=body, headers={"Idempotency-Key": "k2"})
    assert other.status_code == 201
    assert other.json() != first.json()
    changed = await http.post("/sessions", json=body | {"prompt": "x"}, headers={"Idempotency-Key": "k1"})
    assert error_of(changed) == (422, "key_reused", "Idempotency-Key")
    named = [
        await http.post("/sessions", json=body | {"sessionId": "mine"}, headers={"Idempotency-Key": "k3"})
        for _ in range(2)
    ]
    assert [(each.status_code, each.json()["sessionId"]) for each in named] == [(201, "mine"), (200, "mine")]
    taken = await http.post("/sessions", json=body | {"sessionId": "mine"}, headers={"Idempotency-Key": "k4"})
    assert error_of(taken) == (409, "session_exists", None)
    assert error_of(await http.post("/sessions", json=body | {"sessionId": "mine"})) == (409, "session_exists", None)


async def test_sessions_are_listed_by_page_and_filter(http: httpx.AsyncClient) -> None:
    for number in range(5):
        options = {"metadata": {"number": str(number), "parity": str(number % 2)}}
        body = {"provider": "demo", "prompt": "x", "sessionId": f"s{number}", "options": options}
        assert (await http.post("/sessions", json=body)).status_code == 201

    async def ids(**query: Any) -> tuple[list[str], str | None]:
        page = (await http.get("/sessions", params=query)).json()
        return [state["sessionId"] for state in page["sessions"]], page.get("next")

    assert await ids() == (["s4", "s3", "s2", "s1", "s0"], None)
    first, following = await ids(limit=2)
    assert first == ["s4", "s3"]
    assert (await ids(limit=2, before=following))[0] == ["s2", "s1"]
    assert (await ids(**{"metadata.parity": "1"}))[0] == ["s3", "s1"]
    assert (await ids(status="queued,idle", provider="demo"))[0] == ["s4", "s3", "s2", "s1", "s0"]
    assert (await ids(status="idle"))[0] == []
    assert (await ids(q="S3"))[0] == ["s3"]


BODY = {"provider": "demo", "prompt": "x"}


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/sessions", b"{", (400, "malformed_json", None)),
        ("POST", "/sessions", b'{"options":' + b"[" * 100_000, (422, "invalid", "options")),
        ("POST", "/sessions", b'{"options":{"approvals":' + b'{"a":' * 100_000, (400, "malformed_json", None)),
        ("POST", "/sessions", b"\xff", (400, "malformed_json", None)),
        ("POST", "/sessions", [], (422, "invalid", None)),
        ("POST", "/sessions", {"provider": "demo"}, (422, "invalid", "prompt")),
        ("POST", "/sessions", BODY | {"promt": "x"}, (422, "invalid", "promt")),
        ("POST", "/sessions", BODY | {"prompt": 1}, (422, "invalid", "prompt")),
        ("POST", "/sessions", BODY | {"prompt": ""}, (422, "invalid", "prompt")),
        ("POST", "/sessions", BODY | {"sessionId": "a b"}, (422, "invalid_session_id", "sessionId")),
        ("POST", "/sessions", BODY | {"options": {"cwdd": "/"}}, (422, "invalid", "options.cwdd")),
        ("POST", "/sessions", BODY | {"options": {"maxTurns": 0}}, (422, "invalid", "options.maxTurns")),
        ("GET", "/sessions?limit=0", None, (422, "invalid", "limit")),
        ("GET", "/sessions?limit=x", None, (422, "invalid", "limit")),
        ("GET", "/sessions?limit=1&limit=2", None, (422, "invalid", "limit")),
        ("GET", "/sessions?before=x", None, (422, "invalid", "before")),
        ("GET", "/sessions?status=gone", None, (422, "invalid", "status")),
        ("GET", "/sessions?stat=idle", None, (422, "invalid", "stat")),
        ("GET", "/sessions/nobody", None, (404, "session_not_found", None)),
        ("GET", "/sessions/%0d%0aX-Evil:1", None, (404, "session_not_found", None)),
        ("GET", "/sessions/" + "x" * 65, None, (404, "session_not_found", None)),
        ("POST", "/sessions/nobody/prompts", {"text": "x"}, (404, "session_not_found", None)),
        ("POST", "/sessions/nobody/prompts", {"text": "x", "mode": "now"}, (422, "invalid", "mode")),
        ("POST", "/sessions/nobody/prompts?wait=-1", {"text": "x"}, (422, "invalid", "wait")),
        ("POST", "/sessions/nobody/prompts?wait=nan", {"text": "x"}, (422, "invalid", "wait")),
        ("POST", "/sessions/nobody/interrupt", {"x": 1}, (422, "invalid", "x")),
        ("POST", "/sessions/nobody/stop", None, (404, "session_not_found", None)),
        ("POST", "/sessions/nobody/model", {}, (422, "invalid", "model")),
        ("GET", "/nowhere", None, (404, "not_found", None)),
        ("PUT", "/sessions", BODY, (405, "method_not_allowed", None)),
    ],
)
async def test_bad_input_is_answered_by_one_clear_error(
    http: httpx.AsyncClient, method: str, path: str, body: Any, expected: tuple[int, str, str | None]
) -> None:
    content = body if isinstance(body, bytes) else None
    response = await http.request(
        method, path, content=content, json=None if content else body,
        headers={"Content-Type": "application/json"} if content or body is not None else {},
    )  # fmt: skip
    assert error_of(response) == expected
    assert response.headers["content-type"] == "application/json"


async def test_a_body_that_is_not_json_or_too_large_is_refused(gateway: Gateway, http: httpx.AsyncClient) -> None:
    form = await http.post("/sessions", data={"provider": "demo", "prompt": "x"})
    assert error_of(form) == (415, "not_json", None)
    large = await http.post("/sessions", content=b'"' + b"x" * (8 << 20) + b'"')
    assert error_of(large) == (413, "too_large", None)

    async def endless() -> Any:
        for _ in range(9):
            yield b"x" * (1 << 20)
        raise AssertionError("read past the limit")

    assert error_of(await http.post("/sessions", content=endless())) == (413, "too_large", None)
