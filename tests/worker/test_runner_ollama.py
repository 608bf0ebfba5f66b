"""The built-in Ollama runner as a real process against a scripted server: turns, history, and all that can fail."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentrq_worker.builtin_runners.ollama_http import OllamaError, Server
from tests.fakes.model_server import ModelServer
from tests.worker.runner_processes import query, run_runner, talking_runner

OLLAMA = "agentrq_worker.builtin_runners.ollama"


def lines(stdin: bytes, host: str, code: int = 0, **environment: Any) -> list[dict[str, Any]]:
    done = run_runner(OLLAMA, stdin, OLLAMA_HOST=host, **environment)
    assert done.returncode == code, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def events(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line["event"] for line in found if line["type"] == "agent_event"]


def said(found: list[dict[str, Any]], member: str = "content") -> str:
    return "".join(event.get("message", {}).get(member, "") for event in events(found))


def test_a_turn_goes_out_chunk_for_chunk() -> None:
    with ModelServer() as model:
        found = lines(query("[[think:hm]] [[text:yes]]", model="m", systemPrompt="be kind", cwd="/srv"), model.url)
    assert [line["type"] for line in found[:2]] == ["ready", "agent_started"]
    assert found[1]["parser"] == "ollama"
    assert events(found)[0] == {"type": "init", "session_id": "s1", "model": "m", "cwd": "/srv"}
    assert events(found)[-1]["done"] is True
    assert said(found, "thinking") == "hm"
    (request,) = model.requests
    assert [message["role"] for message in request.body["messages"]] == ["system", "user"]
    assert request.body["stream"] is True


def test_the_conversation_goes_on_over_turns_and_processes(tmp_path: Path) -> None:
    state: dict[str, Any] = {"XDG_STATE_HOME": str(tmp_path)}
    with ModelServer() as model:
        lines(query("[[text:one]]", model="m") + query("[[text:two]]"), model.url, **state)
        again = lines(query("[[text:three]]", model="m", resume="s1"), model.url, **state)
        other = lines(query("hi", model="m", resume="other"), model.url, **state)
        bodies = [request.body["messages"] for request in model.requests]
    assert [message["content"] for message in bodies[1]] == ["[[text:one]]", "one", "[[text:two]]"]
    assert [message["role"] for message in bodies[2]] == ["user", "assistant", "user", "assistant", "user"]
    assert events(again)[0]["session_id"] == "s1"
    assert not any("code" in event for event in events(again))
    assert events(other)[1]["code"] == "not_resumed"
    assert oct((tmp_path / "agentrq" / "ollama").stat().st_mode)[-3:] == "700"


def test_options_and_thinking_come_from_the_environment() -> None:
    with ModelServer() as model:
        lines(query("hi", model="m"), model.url, AGENTRQ_OLLAMA_OPTIONS='{"temperature":0}', AGENTRQ_OLLAMA_THINK="low")
        assert model.requests[0].body["options"] == {"temperature": 0}
        assert model.requests[0].body["think"] == "low"
        (error,) = (
            line
            for line in lines(query("x", model="m"), model.url, 1, AGENTRQ_OLLAMA_OPTIONS="{")
            if "error" in line["type"]
        )
    assert "AGENTRQ_OLLAMA_OPTIONS is not a JSON object" in error["message"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["No model given", "scripted"]),
        ({"model": "missing"}, ["404", "model 'missing' not found", "this server has scripted"]),
    ],
)
def test_a_model_that_is_not_there_is_one_clear_error(options: dict[str, Any], words: list[str]) -> None:
    with ModelServer() as model:
        found = lines(query("hi", **options) + query("more"), model.url, 1)
    (error,) = (line for line in found if line["type"] == "agent_error")
    assert all(word in error["message"] for word in words), error


@pytest.mark.parametrize("options", [{}, {"model": "m"}])
def test_a_server_that_is_not_there_is_one_clear_error(options: dict[str, Any]) -> None:
    with ModelServer() as model:
        gone = model.url
    (error,) = (line for line in lines(query("hi", **options), gone, 1) if line["type"] == "agent_error")
    assert error["message"].startswith(f"Ollama is not reachable at {gone}: Connection refused")
    assert "OLLAMA_HOST" in error["message"]


def test_an_ollama_error_fails_only_its_turn() -> None:
    with ModelServer() as model:
        found = lines(query("[[text:a]]", model="m") + query("[[error:500]]") + query("[[text:b]]"), model.url)
        bodies = [request.body["messages"] for request in model.requests]
    errors = [event for event in events(found) if "error" in event]
    assert errors == [{"error": "Ollama answered 500: scripted error 500"}]
    assert [message["content"] for message in bodies[-1]] == ["[[text:a]]", "a", "[[text:b]]"], "the failed one is gone"


@contextmanager
def raw_server(body: bytes, length: int | None = None) -> Iterator[str]:
    """A server that answers each chat with these bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message":{"content":"ha"}}\n{"error":"model runner has stopped"}\n', "model runner has stopped"),
        (b'{"message":{"content":"ha"}}\nno json\n\n', "Ollama ended in the middle of its answer"),
        (b"", "Ollama ended in the middle of its answer"),
    ],
)
def test_an_ollama_answer_that_breaks_off_fails_its_turn(body: bytes, message: str) -> None:
    with raw_server(body) as host:
        done = run_runner(OLLAMA, query("hi", model="m"), OLLAMA_HOST=host)
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1]) == {"type": "agent_error", "message": message}
    if b"no json" in body:
        assert b"no json" in done.stdout.splitlines()


def test_a_server_that_is_not_ollama_is_one_clear_error() -> None:
    with raw_server(b"") as host:
        (error,) = (line for line in lines(query("hi"), host, 1) if line["type"] == "agent_error")
    assert "is not an Ollama server" in error["message"]


async def test_a_stop_in_mid_turn_ends_it_at_once() -> None:
    with ModelServer() as model:
        async with talking_runner(OLLAMA, OLLAMA_HOST=model.url) as talk:
            talk.write(query("[[hold:never]]", model="m"))
            await talk.until("init")
            model.wait_request("hold:never")
            talk.command("ping")
            while await talk.read() != {"type": "pong"}:
                pass
            talk.command("stop")
            assert (await talk.rest())[-1] == {"type": "agent_stopped"}
            assert await talk.process.wait() == 0


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("gpu:1234", "http://gpu:1234"),
        ("http://gpu", "http://gpu:80"),
        ("https://gpu/ollama/", "https://gpu:443/ollama"),
        ("[::1]:9", "http://[::1]:9"),
    ],
)
def test_every_form_of_address_is_understood(address: str, url: str) -> None:
    assert Server(address).url == url


def test_an_address_that_is_not_valid_is_refused() -> None:
    with pytest.raises(OllamaError, match="OLLAMA_HOST is not a valid address"):
        Server("host:port")
