"""Who may do what: tokens, tickets, the cookie, tenants; where requests may come from."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway, Grant, JWTAuth, Settings
from tests.attacks import attack
from tests.gateway.answers import error_of
from tests.gateway.conftest import connect
from tests.gateway.listening import Listener

KEY = "a secret of at least thirty-two bytes"
OTHER = "another secret of at least thirty-two bytes"


def token(key: str = KEY, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token of alice that counts for a minute, but for what is given."""
    present = {"sub": "alice", "exp": int(time.time()) + 60} | claims
    return jwt.encode({k: v for k, v in present.items() if v is not None}, key, algorithm, headers)


@pytest.fixture
async def guarded(client: AsyncAgentClient) -> AsyncIterator[Gateway]:
    gateway = Gateway(client, auth=JWTAuth(KEY))
    yield gateway
    await gateway.aclose()


def as_caller(gateway: Gateway, **claims: Any) -> httpx.AsyncClient:
    return connect(gateway, Authorization=f"Bearer {token(**claims)}")


@attack(
    "A request without a token",
    "401 for every route but health, readiness and the API document",
)
async def test_a_caller_without_a_token_is_not_served(guarded: Gateway) -> None:
    async with connect(guarded) as http:
        for method, path in (
            ("GET", "/sessions"),
            ("POST", "/sessions"),
            ("GET", "/sessions/x/stream"),
            ("GET", "/whoami"),
        ):
            response = await http.request(method, path)
            assert error_of(response) == (401, "unauthorized", None)
            assert response.headers["www-authenticate"] == "Bearer"
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert (await http.get(path)).status_code == 200


NONE = jwt.encode({"sub": "alice", "exp": int(time.time()) + 3600}, "", "none")


@pytest.mark.parametrize(
    "made",
    [
        lambda: token(exp=None),
        lambda: token(sub=None),
        lambda: token(exp=int(time.time()) - 60),
        lambda: token(exp=int(time.time()) + 3600),
        lambda: token(exp="soon"),
        lambda: token(nbf=int(time.time()) + 60),
        lambda: token(iat=int(time.time()) + 60),
        lambda: token(aud="somebody else"),
        lambda: token(OTHER),
        lambda: token(2 * KEY, "HS512"),
        lambda: NONE,
        lambda: token(actions=["everything"]),
        lambda: token(actions="read"),
        lambda: token(sessions="all"),
        lambda: token(tenant=""),
        lambda: token()[:-4],
        lambda: "x",
        lambda: "a.b.c",
    ],
)
@attack(
    "A token that is expired, future, unsigned (`alg: none`), of another algorithm, key or audience, or cut",
    "401; nothing of the key is told",
)
async def test_a_token_that_does_not_count_is_refused(guarded: Gateway, made: Any) -> None:
    async with connect(guarded, Authorization=f"Bearer {made()}") as http:
        response = await http.get("/whoami")
        assert error_of(response)[0] == 401
        assert KEY not in response.text


@attack(
    "A token that was made for another service, or by one",
    "401",
)
async def test_audience_and_issuer_have_to_be_those_configured(client: AsyncAgentClient) -> None:
    gateway = Gateway(client, auth=JWTAuth(KEY, audience="agentrq", issuer="shop"))
    for claims, status in (({"aud": "agentrq", "iss": "shop"}, 200), ({"aud": "agentrq"}, 401), ({"iss": "shop"}, 401)):
        async with as_caller(gateway, **claims) as http:
            assert (await http.get("/whoami")).status_code == status


@attack(
    "A token of a key that was rotated out, or that names another key than signed it",
    "401",
)
async def test_keys_are_rotated_by_their_kid(client: AsyncAgentClient) -> None:
    gateway = Gateway(client, auth=JWTAuth({"old": OTHER, "new": KEY}))
    for key, kid, status in (
        (OTHER, "old", 200),
        (KEY, "new", 200),
        (KEY, "old", 401),
        (KEY, "newer", 401),
        (KEY, None, 401),
    ):
        headers = None if kid is None else {"kid": kid}
        async with connect(gateway, Authorization=f"Bearer {token(key, headers=headers)}") as http:
            assert (await http.get("/whoami")).status_code == status, (key, kid)


@attack(
    "Key confusion: a token signed by HS256 with the text of the public key",
    "401",
)
async def test_a_public_key_is_no_secret(client: AsyncAgentClient) -> None:
    """Key confusion: a token signed by HS256 with the text of the public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    gateway = Gateway(client, auth=JWTAuth(public, algorithm="EdDSA"))
    good = jwt.encode({"sub": "alice", "exp": int(time.time()) + 60, "actions": ["read"]}, private, "EdDSA")
    async with connect(gateway, Authorization=f"Bearer {good}") as http:
        assert (await http.get("/whoami")).json()["actions"] == ["read"]
        assert error_of(await http.post("/tokens")) == (403, "cannot_sign", None)
    import base64
    import hashlib
    import hmac

    head, claims = good.split(".")[0], good.split(".")[1]
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    mac = hmac.new(public, f"{head}.{claims}".encode(), hashlib.sha256).digest()
    forged = f"{head}.{claims}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    async with connect(gateway, Authorization=f"Bearer {forged}") as http:
        assert (await http.get("/whoami")).status_code == 401


@pytest.mark.parametrize("keys", ["short", b"", {}, {"a": "short"}])
def test_keys_that_cannot_work_are_refused(keys: Any) -> None:
    with pytest.raises(ValueError, match="key"):
        JWTAuth(keys)


@attack(
    "A caller who may read prompts, answers or stops",
    "403 for each action that the grant lacks",
)
async def test_each_action_needs_its_grant(guarded: Gateway, client: AsyncAgentClient) -> None:
    session = await client.start("demo", "x")
    path = f"/sessions/{session.id}"
    needed = {
        ("GET", path): "read", ("GET", "/sessions"): "read", ("GET", f"{path}/events"): "read",
        ("POST", "/sessions"): "start", ("POST", f"{path}/prompts"): "prompt", ("POST", f"{path}/interrupt"): "prompt",
        ("POST", f"{path}/answers/r"): "answer", ("POST", f"{path}/permission-mode"): "answer",
        ("POST", f"{path}/stop"): "stop", ("DELETE", path): "stop",
    }  # fmt: skip
    actions = ("read", "start", "prompt", "answer", "stop")
    for (method, route), action in needed.items():
        for granted in ([each for each in actions if each != action], [action]):
            async with as_caller(guarded, sub=f"{method}{route}{granted}", actions=granted) as http:
                response = await http.request(
                    method, route, json={} if route.endswith("/stop") or method == "POST" else None
                )
            assert (response.status_code == 403) == (action not in granted), (method, route, granted, response.text)


@attack(
    "A tenant tries the ids of another's sessions on every route, and claims them by metadata",
    "404, byte for byte the answer for an id that does not exist; the claim is refused",
)
async def test_a_tenant_sees_its_own_sessions_and_no_trace_of_others(
    guarded: Gateway, client: AsyncAgentClient
) -> None:
    body = {"provider": "demo", "prompt": "x"}
    async with as_caller(guarded, tenant="acme") as acme, as_caller(guarded, sub="bob", tenant="other") as other:
        mine = (await acme.post("/sessions", json=body)).json()["sessionId"]
        theirs = (await other.post("/sessions", json=body)).json()["sessionId"]
        nobodys = (await client.start("demo", "x")).id
        forged = await acme.post("/sessions", json=body | {"options": {"metadata": {"tenant": "other"}}})
        assert error_of(forged) == (422, "reserved", "options.metadata.tenant")
        listed = (await acme.get("/sessions")).json()["sessions"]
        assert [state["sessionId"] for state in listed] == [mine]
        assert (await acme.get("/sessions?tenant=other")).json() == {"sessions": []}
        assert (await acme.get("/sessions?metadata.tenant=other")).status_code in (200, 422)
        assert (await acme.get(f"/sessions/{mine}")).status_code == 200
        for foreign in (theirs, nobodys):
            missing = await acme.get("/sessions/missing")
            for method, path, content in (
                ("GET", "", None), ("GET", "/events", None), ("GET", "/stream", None), ("DELETE", "", None),
                ("POST", "/prompts", {"text": "x"}), ("POST", "/answers/r", "allow"), ("POST", "/stop", {}),
                ("POST", "/interrupt", {}), ("POST", "/model", {"model": "x"}),
                ("POST", "/permission-mode", {"permissionMode": "x"}),
            ):  # fmt: skip
                response = await acme.request(method, f"/sessions/{foreign}{path}", json=content)
                assert response.status_code == 404, (method, path)
                assert response.text == missing.text.replace("missing", foreign), (
                    "nothing tells it from one that is not"
                )
                assert response.headers.keys() == missing.headers.keys()
        taken = await acme.post("/sessions", json=body | {"sessionId": theirs}, headers={"Idempotency-Key": "k"})
        assert error_of(taken) == (409, "session_exists", None)
    assert not [state for state in await client.states() if state.ended]


@attack(
    "A tenant streams another's session",
    "`reset`, `gone`, as for one that does not exist",
)
async def test_the_browser_of_a_tenant_streams_no_foreign_session(guarded: Gateway, client: AsyncAgentClient) -> None:
    foreign = await client.start("demo", "x")
    bearer = f"Bearer {token(tenant='acme')}"
    async with Listener(guarded, f"/stream?session={foreign.id}", Authorization=bearer) as stream:
        frames = await stream.rest()
    assert [frame.event for frame in frames] == [None, "reset"]
    assert frames[1].data == {"sessionId": foreign.id, "reason": "gone"}


async def test_a_grant_for_some_sessions_is_for_no_other(guarded: Gateway, client: AsyncAgentClient) -> None:
    for sid in ("one", "two"):
        await client.start("demo", "x", sid)
    async with as_caller(guarded, sessions=["one", "three"]) as http:
        assert (await http.get("/sessions/one")).status_code == 200
        assert (await http.get("/sessions/two")).status_code == 404
        assert [each["sessionId"] for each in (await http.get("/sessions")).json()["sessions"]] == ["one"]
        body = {"provider": "demo", "prompt": "x"}
        assert error_of(await http.post("/sessions", json=body)) == (403, "forbidden", "sessionId")
        assert (await http.post("/sessions", json=body | {"sessionId": "three"})).status_code == 201


@attack(
    "A start outside the directory of the grant, by `..`, a sibling or another option",
    "403, naming the option",
)
async def test_a_grant_bounds_what_is_started(guarded: Gateway) -> None:
    async with as_caller(guarded, providers=["demo"], cwd_prefix="/srv/acme") as http:

        async def start(provider: str = "demo", **options: Any) -> tuple[int, str | None]:
            response = await http.post("/sessions", json={"provider": provider, "prompt": "x", "options": options})
            return response.status_code, response.json().get("error", {}).get("field")

        assert await start("claude", cwd="/srv/acme") == (403, "provider")
        assert await start() == (403, "options.cwd")
        for cwd in ("/srv", "/srv/acme2", "/srv/acme/../x", "/srv/acme/a/../../x", "relative", "/"):
            assert await start(cwd=cwd) == (403, "options.cwd"), cwd
        assert await start(cwd="/srv/acme/a", additionalDirectories=["/etc"]) == (403, "options.additionalDirectories")
        assert await start(cwd="/srv/acme/a", configDir="/root") == (403, "options.configDir")
        assert (await start(cwd="/srv/acme/a/b"))[0] == 201
        assert (await start(cwd="/srv/acme"))[0] == 201


@attack(
    "A caller signs itself a token that may more",
    "403",
)
async def test_a_token_is_made_narrower_and_never_wider(guarded: Gateway) -> None:
    async with as_caller(guarded, tenant="acme", actions=["read", "prompt"], sessions=["a", "b"]) as http:
        made = await http.post("/tokens", json={"sessions": ["a"], "actions": ["read"], "expiresIn": 3600 / 60})
        assert made.status_code == 201
        async with connect(guarded, Authorization=f"Bearer {made.json()['token']}") as narrow:
            told = (await narrow.get("/whoami")).json()
        assert (told["subject"], told["tenant"], told["sessions"], told["actions"]) == (
            "alice",
            "acme",
            ["a"],
            ["read"],
        )
        assert told["expires"] == made.json()["expires"] <= (time.time() + 60) * 1000, "not after the caller's own"
        for wider, field in (
            ({"sessions": ["c"]}, "sessions"), ({"sessions": ["*"]}, "sessions"), ({"actions": ["stop"]}, "actions"),
            ({"tenant": "other"}, "tenant"), ({"subject": "bob"}, "subject"),
        ):  # fmt: skip
            assert error_of(await http.post("/tokens", json=wider)) == (403, "not_narrower", field)
        assert (await http.post("/tokens", json={"expiresIn": 3600})).status_code == 422
    async with as_caller(guarded, sub="backend", actions=["admin", "read"]) as http:
        made = await http.post("/tokens", json={"subject": "bob", "tenant": "acme", "actions": ["read"]})
        async with connect(guarded, Authorization=f"Bearer {made.json()['token']}") as bob:
            assert (await bob.get("/whoami")).json()["subject"] == "bob"


@attack(
    "A ticket is used again, at another gateway, for a write, or in place of a token",
    "401",
)
async def test_a_ticket_counts_once_in_all_gateways(guarded: Gateway, client: AsyncAgentClient) -> None:
    session = await client.start("demo", "x")
    second = Gateway(client, auth=JWTAuth(KEY))
    async with as_caller(guarded, actions=["read"]) as http, connect(guarded) as nobody:
        ticket = (await http.post("/tickets")).json()["ticket"]
        assert (await nobody.get("/whoami", headers={"Authorization": f"Bearer {ticket}"})).status_code == 401
        async with Listener(second, f"/sessions/{session.id}/stream?ticket={ticket}") as stream:
            assert stream.status == 200
            await stream.until("status", status="queued")
            second.streams.look(time.monotonic() + 40)
            assert (await stream.next()).comment, "the stream outlives the ticket"  # type: ignore[union-attr]
            second.streams.look(time.monotonic() + 70)
            assert (await stream.rest())[-1].event == "expired", "and ends with the grant"
        assert error_of(await nobody.get(f"/whoami?ticket={ticket}")) == (401, "ticket_used", None)
        assert (await nobody.get(f"/whoami?ticket={token()}")).status_code == 401
        other = (await http.post("/tickets")).json()["ticket"]
        assert (await nobody.post(f"/sessions/{session.id}/stop?ticket={other}")).status_code == 401, "for GET only"
    await second.aclose()


@attack(
    "CSRF: another site's page writes with a browser's cookie",
    "403 for foreign and absent origins, 415 for what is not JSON",
)
async def test_the_cookie_is_kept_from_scripts_and_from_other_sites(guarded: Gateway, client: AsyncAgentClient) -> None:
    session = await client.start("demo", "x")
    async with as_caller(guarded) as http, connect(guarded) as browser:
        made = await http.post("/cookie")
        assert made.json()["expires"] <= (time.time() + 61) * 1000
        attributes = {part.strip().lower().partition("=")[0] for part in made.headers["set-cookie"].split(";")}
        assert {"agentrq_token", "httponly", "secure", "samesite", "path", "max-age"} <= attributes
        assert "samesite=strict" in made.headers["set-cookie"].lower()
        browser.headers["Cookie"] = made.headers["set-cookie"].partition(";")[0]
        assert (await browser.get(f"/sessions/{session.id}")).status_code == 200
        path = f"/sessions/{session.id}/prompts"
        sites = [{"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "none")]
        for headers in ({}, *sites, {"Origin": "https://evil.example"}, {"Origin": "null"}):
            refused = await browser.post(path, json={"text": "x"}, headers=headers)
            assert error_of(refused) == (403, "cross_site", None), headers
        assert (await browser.delete(f"/sessions/{session.id}")).status_code == 403
        own = {"Sec-Fetch-Site": "same-origin"}
        assert (await browser.post(path, json={"text": "x"}, headers=own)).status_code == 202
        text = await browser.post(path, content='{"text":"x"}', headers=own | {"Content-Type": "text/plain"})
        assert text.status_code == 415
        bare = await browser.post(f"/sessions/{session.id}/stop", headers=own)
        assert bare.status_code == 415, "JSON, though nothing is said"
        forgotten = await browser.delete("/cookie", headers=own)
        assert (forgotten.status_code, "Max-Age=0" in forgotten.headers["set-cookie"]) == (204, True)


async def test_a_ticket_becomes_a_cookie_that_is_renewed_up_to_its_end(client: AsyncAgentClient) -> None:
    auth = JWTAuth(KEY, max_age_s=60)
    gateway = Gateway(client, auth=auth)
    until = int(time.time()) + 600
    ticket, _ = auth.sign_ticket(Grant("alice", expires_at=until))
    own = {"Sec-Fetch-Site": "same-origin"}
    async with connect(gateway) as browser:
        made = await browser.post("/cookie", json={"ticket": ticket}, headers=own)
        assert made.json()["expires"] <= (time.time() + 61) * 1000
        browser.headers["Cookie"] = made.headers["set-cookie"].partition(";")[0]
        renewed = await browser.post("/cookie", json={}, headers=own)
        assert renewed.status_code == 200
        claims = jwt.decode(renewed.headers["set-cookie"].partition(";")[0].partition("=")[2], KEY, ["HS256"])
        assert claims["until"] == until
        assert claims["exp"] <= time.time() + 61
        again = await browser.post("/cookie", json={"ticket": ticket}, headers=own)
        assert error_of(again) == (401, "ticket_used", None)


@attack(
    "CORS: a page of an origin that is not listed, or only looks like it, reads answers",
    "no `Access-Control-Allow-Origin`",
)
async def test_other_origins_are_served_if_they_are_listed(client: AsyncAgentClient) -> None:
    origin = "https://app.example.com"
    gateway = Gateway(client, auth=JWTAuth(KEY), settings=Settings(origins=[origin]))
    async with as_caller(gateway) as http:
        preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        allowed = await http.options("/sessions", headers=preflight | {"Origin": origin})
        assert allowed.headers["access-control-allow-origin"] == origin
        assert allowed.headers["access-control-allow-credentials"] == "true"
        answer = await http.get("/sessions", headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        for stranger in ("https://evil.example", "https://app.example.com.evil.example", "null"):
            refused = await http.options("/sessions", headers=preflight | {"Origin": stranger})
            assert "access-control-allow-origin" not in refused.headers
        made = await http.post("/cookie")
    async with connect(gateway, Cookie=made.headers["set-cookie"].partition(";")[0], Origin=origin) as browser:
        assert (await browser.post("/sessions", json={"provider": "demo", "prompt": "x"})).status_code == 201
    await gateway.aclose()


@pytest.mark.parametrize(
    ("host", "served"),
    [("localhost:8420", True), ("127.0.0.1", True), ("[::1]:8420", True), ("gateway", True), ("a.localhost", True),
     ("evil.example", False), ("127.0.0.1.evil.example:8420", False), ("10.0.0.1", False), ("", False),
     ("evil.example.", False)],
)  # fmt: skip
@attack(
    "DNS rebinding: a name of a stranger that leads to this machine",
    "400",
)
async def test_a_gateway_without_authentication_serves_local_names_only(
    gateway: Gateway, host: str, served: bool
) -> None:
    async with connect(gateway) as http:
        response = await http.get("/sessions", headers={"Host": host})
    assert (response.status_code == 200) == served
    if not served:
        assert error_of(response) == (400, "host_not_allowed", None)


async def test_hosts_are_those_of_the_list(client: AsyncAgentClient) -> None:
    gateway = Gateway(client, settings=Settings(hosts=["agents.example.com", "*.internal"]))
    async with connect(gateway) as http:
        for host, status in (
            ("agents.example.com:443", 200),
            ("a.internal", 200),
            ("internal", 400),
            ("localhost", 400),
        ):
            assert (await http.get("/sessions", headers={"Host": host})).status_code == status, host


@attack(
    "Another machine calls a gateway without authentication",
    "403",
)
async def test_a_gateway_without_authentication_serves_its_machine_only(gateway: Gateway) -> None:
    for peer, status in (("127.0.0.1", 422), ("::1", 422), ("10.0.0.7", 403), ("::ffff:10.0.0.7", 403)):
        async with Listener(gateway, "/stream", client=peer) as stream:
            assert stream.status == status, peer


@attack(
    "A web page writes to the gateway on the machine of its reader",
    "403",
)
async def test_a_page_of_another_site_writes_nothing_without_authentication(gateway: Gateway) -> None:
    body = {"provider": "demo", "prompt": "x"}
    async with connect(gateway) as http:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert error_of(await http.post("/sessions", json=body, headers=headers)) == (403, "cross_site", None)
        assert (await http.post("/sessions", json=body, headers={"Sec-Fetch-Site": "same-origin"})).status_code == 201
        assert (await http.post("/sessions", json=body)).status_code == 201


async def test_the_host_apps_own_function_says_who_a_caller_is(client: AsyncAgentClient) -> None:
    async def by_name(request: Any) -> Grant | None:
        name = request.headers.get("x-user")
        return Grant(name, tenant=name, actions={"read"}) if name else None

    gateway = Gateway(client, auth=by_name)
    async with connect(gateway) as http:
        assert (await http.get("/whoami")).status_code == 401
        told = (await http.get("/whoami", headers={"X-User": "alice"})).json()
        assert (told["subject"], told["tenant"], told["actions"], told["auth"]) == ("alice", "alice", ["read"], True)
        assert error_of(await http.post("/tokens", headers={"X-User": "alice"})) == (404, "no_tokens", None)


@attack(
    "The host app's login fails",
    "500, nobody is let in, nothing of the cause is told",
)
async def test_an_auth_function_that_fails_lets_nobody_in(client: AsyncAgentClient) -> None:
    def broken(_: Any) -> Grant | None:
        raise RuntimeError("the login's database is away")

    async with connect(Gateway(client, auth=broken)) as http:
        response = await http.get("/sessions")
    assert error_of(response) == (500, "internal", None)
    assert "database" not in response.text
