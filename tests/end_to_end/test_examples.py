"""The examples, run as they are: real servers, a real worker."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import redis

from agentrq import AgentClient, StatusEvent
from agentrq.wire.keys import Keys
from tests.polling import wait_until
from tests.sessions import contents
from tests.workers import Worker, free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
Start = Callable[..., Worker]


def listens(process: subprocess.Popen[str], port: int) -> bool:
    """Whether an example accepts connections; fails where it has ended."""
    assert process.poll() is None, process.stdout.read() if process.stdout else ""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(*command: str, port: int | None = None, **env: str) -> Iterator[subprocess.Popen[str]]:
    """An example as a process; with a port, once it accepts connections."""
    process = subprocess.Popen(
        [sys.executable, *command], env=os.environ | env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        if port is not None:
            wait_until(partial(listens, process, port), 60)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def call(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"Content-Type": "application/json"} | headers)
    response = connection.getresponse()
    try:
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def read_events(port: int, session_id: str, until: str, after: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Server-sent events up to a status: (id, data)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/sessions/{session_id}/events", headers={"Last-Event-ID": after} if after else {})
    response = connection.getresponse()
    events = []
    place = ""
    for line in response:
        if line.startswith(b"id: "):
            place = line[4:].strip().decode()
        elif line.startswith(b"data: "):
            events.append((place, json.loads(line[6:])))
            if events[-1][1].get("status") == until:
                break
    connection.close()
    return events


def read_status(port: int, session_id: str, after: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/sessions/{session_id}/events", headers={"Last-Event-ID": after})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_fastapi_example_streams_a_session(redis_url: str, start_worker: Start, tmp_path: Path) -> None:
    start_worker()
    port = free_port()
    app = ("-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_sse:app", "--port", str(port), "--log-level", "error")
    with running(*app, port=port, AGENTRQ_REDIS_URL=redis_url):
        wanted = {"provider": "demo", "prompt": "/echo one", "cwd": str(tmp_path)}
        status, made = call(port, "POST", "/sessions", wanted)
        assert status == 201
        session_id = made["sessionId"]
        first = read_events(port, session_id, "idle")
        assert call(port, "POST", f"/sessions/{session_id}/prompts", {"text": "/echo two"})[0] == 202
        second = read_events(port, session_id, "idle", after=first[-1][0])
        assert call(port, "DELETE", f"/sessions/{session_id}")[0] == 202
        third = read_events(port, session_id, "done", after=second[-1][0])
        assert call(port, "POST", f"/sessions/{session_id}/prompts", {"text": "late"})[0] == 409
        assert call(port, "POST", "/sessions/nobody/prompts", {"text": "hello"})[0] == 404
        assert read_status(port, session_id, third[-1][0]) == 204
        assert read_status(port, session_id, "nonsense") == 400
        with AgentClient.from_url(redis_url) as client:
            places = [event.cursor for event in client.session(session_id).events()]
        assert [place for place, _ in first + second + third] == places
        with redis.Redis.from_url(redis_url) as raw:
            raw.xtrim(Keys().events(session_id), maxlen=1, approximate=False)
            raw.hset(Keys().state(session_id), "trimmedThrough", places[-2])
        assert read_events(port, session_id, "done", after=places[0]) == [(places[-2], {})]
        assert read_events(port, session_id, "done", after=places[-2]) == third[-1:]


def test_the_django_example_streams_a_session(redis_url: str, start_worker: Start) -> None:
    start_worker()
    port = free_port()
    server = (str(EXAMPLES / "django_view.py"), "runserver", f"127.0.0.1:{port}", "--noreload")
    with running(*server, port=port, AGENTRQ_REDIS_URL=redis_url):
        status, made = call(port, "POST", "/sessions", {"provider": "demo", "prompt": "/crash 4"})
        assert status == 201
        with AgentClient.from_url(redis_url) as client:
            client.session(made["sessionId"]).wait(30)
        status, state = call(port, "GET", f"/sessions/{made['sessionId']}")
        assert (status, state["status"], state["error"]) == (200, "error", "Exit code: 4")
        assert call(port, "GET", "/sessions/nobody")[0] == 404
        assert call(port, "POST", "/sessions", {"prompt": "x"})[0] == 400


@pytest.mark.filterwarnings("default")
def test_the_cron_example_prompts_a_session(redis_url: str, start_worker: Start) -> None:
    start_worker()
    with AgentClient.from_url(redis_url) as client:
        session = client.start("demo", "/echo hello", "caretaker")
        with running(str(EXAMPLES / "cron_prompt.py"), AGENTRQ_REDIS_URL=redis_url, INTERVAL_S="1"):
            prompts = []
            for message in session.messages():
                if message.type == "prompt":
                    prompts.append(message.content.text)
                if len(prompts) == 3:
                    break
        assert prompts == ["/echo hello", "Look again.", "Look again."]
        session.stop()
        assert any(isinstance(event, StatusEvent) and event.status == "done" for event in session.events())


@pytest.mark.usefixtures("fake_claude")
def test_the_approver_example_answers_requests(redis_url: str, start_worker: Start) -> None:
    """It allows what the chat says yes to, denies the rest, and says how the session ended."""
    start_worker()
    with AgentClient.from_url(redis_url) as client:
        session = client.start("fake-claude", "ask rm -r build", permission_mode="default")
        program = str(EXAMPLES / "approver.py")
        with running(program, session.id, AGENTRQ_REDIS_URL=redis_url, PYTHONUNBUFFERED="1") as approver:
            assert approver.stdin
            assert approver.stdout
            texts = (message for message in session.messages() if message.type == "text")
            for prompt, reply, said in (("", "yes", "ran rm -r build"), ("ask ls", "no", "Not allowed by the team.")):
                if prompt:
                    session.prompt(prompt)
                approver.stdin.write(f"{reply}\n")
                approver.stdin.flush()
                assert next(texts).content.text == said
            session.stop()
            assert approver.wait(30) == 0
            shown = approver.stdout.read()
        resolved = [message.content for message in session.messages() if message.type == "approval_resolved"]
    assert "May the agent use Bash with {'command': 'rm -r build'}? (yes/no)" in shown
    assert "The session has ended: done (stopped)" in shown
    assert [(one.decision, one.by) for one in resolved] == [("allow", "chat"), ("deny", "chat")]


@contextmanager
def chat(posted: SimpleQueue[Any]) -> Iterator[str]:
    """A chat's webhook: what is posted to it comes out of the queue."""

    class Webhook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", free_port()), Webhook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook"
        finally:
            server.shutdown()
            thread.join()


def press(port: int, button: dict[str, Any], secret: str) -> tuple[int, Any]:
    """A press of a button as Slack reports it, signed with a secret."""
    payload = {"user": {"username": "alice"}, "actions": [button]}
    body, stamp = urllib.parse.urlencode({"payload": json.dumps(payload)}), str(int(time.time()))
    signed = hmac.new(secret.encode(), f"v0:{stamp}:{body}".encode(), hashlib.sha256).hexdigest()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={signed}"}
    connection.request("POST", "/slack", body, headers)
    response = connection.getresponse()
    try:
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.usefixtures("fake_claude")
def test_a_press_of_a_button_in_slack_answers_a_request(redis_url: str, start_worker: Start) -> None:
    start_worker()
    port, posted = free_port(), SimpleQueue[Any]()
    app = ("-m", "uvicorn", "--app-dir", str(EXAMPLES), "slack_approver:app", "--port", str(port))
    with AgentClient.from_url(redis_url) as client, chat(posted) as hook:
        session = client.start("fake-claude", "ask rm -r build", permission_mode="default")
        env = {"AGENTRQ_REDIS_URL": redis_url, "SLACK_WEBHOOK_URL": hook, "SLACK_SIGNING_SECRET": "s"}
        with running(*app, port=port, SESSION=session.id, **env):
            message = posted.get(timeout=30)
            allow, deny = message["blocks"][1]["elements"]
            assert press(port, deny, "another secret")[0] == 403
            assert press(port, allow, "s") == (200, {"text": "allow by alice"})
            assert "answered already: allow by alice" in press(port, deny, "s")[1]["text"]
            session.stop()
        resolved = contents(session.events(), "approval_resolved")
    assert "rm -r build" in message["text"]
    assert [(one.decision, one.by) for one in resolved] == [("allow", "alice")]
