"""Webhooks: what `agentrq deliver` posts to a real endpoint, how it fails, and what it never posts to."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from agentrq import AgentClient
from agentrq.webhooks import delivery, places, sender
from agentrq.webhooks.delivery import Delivery
from agentrq.webhooks.message import WebhookMessage
from agentrq.webhooks.settings import Endpoint, InvalidEndpoint, load, read_secret
from tests.producer.command_line import only_line, run_cli
from tests.producer.session_writer import KEYS, Writer
from tests.producer.webhook_receiver import SECRET, Receiver, receiving

KEY = base64.b64decode(SECRET.removeprefix("whsec_"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def sync_client(redis_url: str) -> Iterator[AgentClient]:
    with AgentClient.from_url(redis_url) as client:
        yield client


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "BACKOFF_S", (0.01, 0.02))
    monkeypatch.setattr(delivery, "STANDBY_S", 0.05)


def deliver(client: AgentClient, receiver: Receiver, **given: Any) -> None:
    """Deliver what is there to the receiver."""
    settings: dict[str, Any] = {"url": receiver.url, "secret": "S", "allow_private": True, "begin": "oldest"}
    endpoint = Endpoint(**settings | given)
    Delivery(client, "test", endpoint, KEY, threading.Event()).run(once=True)


def kinds(receiver: Receiver) -> list[str]:
    return [message["type"] for message in receiver.messages]


def test_each_entry_is_posted_once_signed_and_in_order(
    redis_url: str, sync_client: AgentClient, receiver: Receiver
) -> None:
    Writer.start(redis_url, "a", tenant="acme").end("done", "completed")
    deliver(sync_client, receiver)
    assert kinds(receiver) == ["session.started", "session.status", "session.ended"]
    assert receiver.ids == ["a_0-1_started", "a_1-1_status", "a_1-2_ended"]
    ended = receiver.messages[-1]
    assert ended["timestamp"].endswith("Z")
    expected = {"sessionId": "a", "cursor": "1-2", "tenant": "acme", "kind": "ended", "status": "done"}
    assert {name: ended["data"].get(name) for name in expected} == expected
    sync_client.session("a").remove()
    deliver(sync_client, receiver)
    assert kinds(receiver)[3:] == ["session.removed"]
    deliver(sync_client, receiver)
    assert len(receiver.attempts) == 4


def test_an_endpoint_that_is_away_gets_everything_once_it_is_back(
    redis_url: str, sync_client: AgentClient, receiver: Receiver
) -> None:
    receiver.answers = [503, 429, 500]
    for sid in ("a", "b"):
        Writer.start(redis_url, sid).end("done", "completed")
    deliver(sync_client, receiver)
    for sid in ("a", "b"):
        assert [each for each in receiver.ids if each.startswith(f"{sid}_")] == [
            f"{sid}_0-1_started", f"{sid}_1-1_status", f"{sid}_1-2_ended",
        ]  # fmt: skip
    assert len(receiver.attempts) == 9


def test_a_refused_message_becomes_a_dead_letter_and_can_be_sent_again(
    redis_url: str, sync_client: AgentClient, receiver: Receiver, raw: redis.Redis
) -> None:
    Writer.start(redis_url, "a").end("done", "completed")
    receiver.statuses = {"a_1-1_status": 400}
    deliver(sync_client, receiver)
    assert kinds(receiver) == ["session.started", "session.ended"]
    assert receiver.attempts.count("a_1-1_status") == delivery.REFUSED_ATTEMPTS
    (letter,) = sync_client.run(places.read_dead_letters(sync_client.context, "test", 10))
    assert (letter.message.id, letter.reason) == ("a_1-1_status", "HTTP 400")
    endpoint = Endpoint(url=receiver.url, secret="S", allow_private=True)
    again = Delivery(sync_client, "test", endpoint, KEY, threading.Event())
    assert again.resend() == 0
    receiver.statuses = {}
    assert again.resend() == 1
    assert receiver.ids[-1] == "a_1-1_status"
    assert raw.xlen(KEYS.webhook("test", "dead")) == 0


def test_an_entry_that_is_too_old_is_given_up(redis_url: str, sync_client: AgentClient, receiver: Receiver) -> None:
    Writer.start(redis_url, "a")
    receiver.statuses = {"a_": 503}
    deliver(sync_client, receiver, give_up_s=0.1)
    assert len(sync_client.run(places.read_dead_letters(sync_client.context, "test", 10))) == 2


def test_a_redirect_is_not_followed(redis_url: str, sync_client: AgentClient, receiver: Receiver) -> None:
    Writer.start(redis_url, "a")
    with receiving() as elsewhere:
        receiver.location, receiver.statuses = elsewhere.url, {"a_": 307}
        deliver(sync_client, receiver)
        assert elsewhere.attempts == []
    letters = sync_client.run(places.read_dead_letters(sync_client.context, "test", 10))
    assert {letter.reason for letter in letters} == {"HTTP 307"}


def test_filters_choose_by_kind_status_tenant_and_metadata(
    redis_url: str, sync_client: AgentClient, receiver: Receiver
) -> None:
    Writer.start(redis_url, "a", tenant="acme", metadata={"team": "blue"}).end("done", "completed")
    Writer.start(redis_url, "b", tenant="acme", metadata={"team": "red"}).end("error", "failed")
    Writer.start(redis_url, "c", tenant="zoo", metadata={"team": "blue"}).end("error", "failed")
    deliver(sync_client, receiver, kinds=["ended"], statuses=["error"], tenants=["acme"])
    assert receiver.ids == ["b_1-2_ended"]
    endpoint = Endpoint(url=receiver.url, secret="S", allow_private=True, begin="oldest", kinds=["ended"],
                        metadata={"team": "blue"})  # fmt: skip
    Delivery(sync_client, "other", endpoint, KEY, threading.Event()).run(once=True)
    assert sorted(receiver.ids[1:]) == ["a_1-2_ended", "c_1-2_ended"]


def test_a_new_endpoint_begins_now_unless_it_says_otherwise(
    redis_url: str, sync_client: AgentClient, receiver: Receiver
) -> None:
    Writer.start(redis_url, "a")
    deliver(sync_client, receiver, begin="now")
    assert receiver.attempts == []
    Writer.start(redis_url, "b")
    deliver(sync_client, receiver, begin="now")
    assert receiver.ids == ["b_0-1_started", "b_1-1_status"]


def test_what_was_dropped_from_the_feed_is_told_as_a_gap(
    redis_url: str, sync_client: AgentClient, receiver: Receiver, raw: redis.Redis
) -> None:
    raw.set(KEYS.webhook("test", "place"), "1-0")
    raw.set(KEYS.feed_trimmed, "5-0")
    deliver(sync_client, receiver)
    assert receiver.messages == [
        {"type": "feed.gap", "timestamp": "1970-01-01T00:00:00.005Z", "data": {"after": "1-0", "through": "5-0"}}
    ]
    deliver(sync_client, receiver)
    assert len(receiver.attempts) == 1


def test_one_process_at_a_time_serves_an_endpoint(
    redis_url: str, sync_client: AgentClient, receiver: Receiver, raw: redis.Redis
) -> None:
    Writer.start(redis_url, "a")
    raw.set(KEYS.webhook("test", "lease"), "another process", px=60_000)
    deliver(sync_client, receiver)
    assert receiver.attempts == []
    raw.delete(KEYS.webhook("test", "lease"))
    deliver(sync_client, receiver)
    assert len(receiver.ids) == 2
    assert not raw.exists(KEYS.webhook("test", "lease"))


def test_a_process_that_has_lost_the_lease_moves_no_place(sync_client: AgentClient, raw: redis.Redis) -> None:
    raw.set(KEYS.webhook("test", "lease"), "another process")
    assert not sync_client.run(places.move_place(sync_client.context, "test", "mine", "9-0"))
    assert not raw.exists(KEYS.webhook("test", "place"))


@pytest.mark.parametrize("address", [
    "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::", "no address",
])  # fmt: skip
def test_a_private_address_is_never_posted_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not sender.is_public(address)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 443)) for each in ("93.184.216.34", address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it connected"))
    failure = sender.post(Endpoint(url="https://hooks.example", secret="S"), KEY, WebhookMessage("a", b"{}"))
    assert failure is not None
    assert "is not a public address" in failure.reason


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_a_public_address_is_one(address: str) -> None:
    assert sender.is_public(address)


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    answers = iter(["93.184.216.34", "127.0.0.1"])

    def resolve(host: str, port: int, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(address: Any, timeout: float) -> Any:
        asked.append(address)
        raise ConnectionRefusedError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    sender.post(Endpoint(url="https://rebinding.example", secret="S"), KEY, WebhookMessage("a", b"{}"))
    assert asked == [("93.184.216.34", 443)]


def test_an_endpoint_that_drips_its_answer_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not ended.wait(0.02):
                    try:
                        connection.sendall(b"X: y\r\n")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        endpoint = Endpoint(url=f"http://127.0.0.1:{server.getsockname()[1]}/", secret="S", allow_private=True,
                            timeout_s=0.3)  # fmt: skip
        failure = sender.post(endpoint, KEY, WebhookMessage("a", b"{}"))
        ended.set()
        thread.join(20)
    assert failure is not None
    assert not failure.refused


CONFIGS = {
    "x = 1": "x: unknown",
    "": "no table",
    "[endpoints.a]\nsecret='S'": "url",
    "[endpoints.a]\nurl='http://example.com'\nsecret='S'": "use https://",
    "[endpoints.a]\nurl='https://u:p@example.com'\nsecret='S'": "login",
    "[endpoints.a]\nurl='https://example.com'\nsecret='S'\nkind=['turn']": "kind",
    "[endpoints.a]\nurl='https://example.com'\nsecret='S'\nbegin='later'": "begin",
    "[endpoints.a]\nurl='https://example.com'\nsecret='S'\ntimeout_s=0.0": "timeout_s",
    "[endpoints.'a:b']\nurl='https://example.com'\nsecret='S'": "name",
}


@pytest.mark.parametrize("text", CONFIGS)
def test_a_setting_that_cannot_be_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "deliver.toml").write_text(text)
    with pytest.raises(InvalidEndpoint, match=CONFIGS[text]):
        load(str(tmp_path / "deliver.toml"))


@pytest.mark.parametrize("secret", [None, "", "hunter2", "whsec_", "whsec_c2hvcnQ=", "whsec_no base64"])
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: str | None) -> None:
    environment = {} if secret is None else {"S": secret}
    with pytest.raises(InvalidEndpoint) as refused:
        read_secret("a", Endpoint(url="https://example.com", secret="S"), environment)
    assert not secret or secret == "whsec_" or secret not in str(refused.value)


@pytest.mark.slow
def test_the_command_delivers_until_it_is_ended_and_a_kill_loses_nothing(
    redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    config = tmp_path / "deliver.toml"
    config.write_text(f'[endpoints.main]\nurl = "{receiver.url}"\nsecret = "HOOK_SECRET"\nallow_private = true\n'
                      'begin = "oldest"\n')  # fmt: skip

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "agentrq", "deliver", "--config", str(config), "--redis", redis_url],
            env=os.environ | {"HOOK_SECRET": SECRET}, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    Writer.start(redis_url, "a")
    with start() as first:
        receiver.wait_for(2)
        first.kill()
    Writer.start(redis_url, "b").end("done", "completed")
    with redis.Redis.from_url(redis_url) as raw:
        raw.delete(KEYS.webhook("main", "lease"))  # it would run out
    with start() as second:
        with receiver.arrived:
            assert receiver.arrived.wait_for(lambda: "b_1-2_ended" in receiver.ids, 30)
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 0
    assert set(receiver.ids) == {"a_0-1_started", "a_1-1_status", "b_0-1_started", "b_1-1_status", "b_1-2_ended"}


def test_the_command_says_what_is_wrong(redis_url: str, tmp_path: Path) -> None:
    config = tmp_path / "deliver.toml"
    config.write_text('[endpoints.main]\nurl = "https://example.com"\nsecret = "NO_SUCH_SECRET"\n')
    assert "NO_SUCH_SECRET" in only_line(run_cli("deliver", "--config", str(config), "--once", url=redis_url).stderr)
    assert "no endpoint" in run_cli("deliver", "--config", str(config), "--dead", "x", url=redis_url).stderr
    assert run_cli("deliver", "--config", str(config), "--dead", "main", url=redis_url).stdout == ""
