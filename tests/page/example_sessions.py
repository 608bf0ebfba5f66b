"""Sessions as real ones look, for screenshots and for what is asked of every view."""

from __future__ import annotations

import json
import time
from typing import Any

from agentrq import AgentClient
from tests.producer.session_writer import KEYS, WORKER, Writer

VIEWS = {
    "sessions": ("#/sessions", "fix-login-test"),
    "session": ("#/session/fix-login-test", "May it use"),
    "inbox": ("#/inbox", "waiting, the oldest first"),
    "start": ("#/start", "All other options"),
    "workers": ("#/workers", "Workers and queues"),
    "costs": ("#/costs", "of 5 sessions"),
}
"""View → its address, and a text that it shows when it is drawn."""

PLAN = """## The plan

The test fails because the **clock of the session** is read twice. I will:

1. read `session.py`,
2. make the time an argument,
3. run the tests again.

> Nothing outside of `auth/` is touched.

| file | lines |
|---|---|
| `auth/session.py` | 2 |
| `tests/test_login.py` | 4 |
"""
OUTPUT = """\x1b[1m===== test session starts =====\x1b[0m
collected 14 items

tests/test_login.py \x1b[32m.............\x1b[31mF\x1b[0m

\x1b[31mFAILED\x1b[0m tests/test_login.py::test_a_session_expires - assert 3599.99 == 3600
\x1b[31m1 failed\x1b[0m, \x1b[32m13 passed\x1b[0m in 0.84s
"""


def write_examples(url: str) -> Writer:
    """Five sessions: one that works and asks, one with a question, and some that are over; the one that asks."""
    ended(url, "summarise-changes", "codex", "gpt-5.4", 0.0421, "done", "completed", {"team": "docs"})
    ended(url, "upgrade-dependencies", "claude", "claude-opus-5-5", 1.284, "error", "failed", {"team": "platform"})
    ended(url, "triage-issue-1834", "claude", "claude-sonnet-5", 0.2173, "done", "stopped", {"team": "support"})
    asking(url)
    return working(url)


def begun(url: str, name: str, provider: str, model: str, prompt: str, metadata: dict[str, str]) -> Writer:
    with AgentClient.from_url(url) as client:
        client.start(provider, prompt, name, metadata=metadata, cwd="/srv/shop")
    writer = Writer(url, name)
    writer.clock = now
    writer.claim()
    writer.redis.set(KEYS.worker(WORKER), "token", ex=3600)  # its lease: nobody else takes the session over
    writer.statuses("running")
    writer.message("prompt", {"text": prompt, "commandId": "c"})
    writer.message("init", {"providerSessionId": "p", "model": model, "cwd": "/srv/shop", "tools": ["Bash", "Edit"]})
    set_state(writer, model=model, cwd="/srv/shop", startedAt=now(), updatedAt=now())
    return writer


def set_state(writer: Writer, **fields: Any) -> None:
    """What a worker would write with the messages."""
    state: Any = fields  # redis-py's own type of a mapping admits no other
    writer.redis.hset(f"agentrq:{{{writer.sid}}}:state", mapping=state)


def now() -> int:
    return int(time.time() * 1000)


def cost(usd: float) -> dict[str, Any]:
    figures = {"inputTokens": 18_240, "outputTokens": 2_310, "numTurns": 1}
    total = {"costUsd": usd} | figures
    return {"totalCostUsd": usd, "durationMs": 48_200, "isError": False, "sessionTotal": total} | figures


def ended(
    url: str, name: str, provider: str, model: str, usd: float, status: str, reason: str, metadata: dict[str, str]
) -> None:
    writer = begun(url, name, provider, model, name.replace("-", " ").capitalize(), metadata)
    writer.message("text", {"text": "Done."})
    writer.message("cost", cost(usd))
    set_state(writer, costUsd=usd, inputTokens=18_240, outputTokens=2_310, numTurns=1)
    failed = {"error": "Exit code: 3"} if status == "error" else {}
    writer.end(status, reason, **failed)


def asking(url: str) -> None:
    writer = begun(url, "plan-migration", "claude", "claude-opus-5-5", "Plan the migration", {"team": "platform"})
    options = [{"label": "PostgreSQL 18", "description": "what the other services use"}, {"label": "SQLite"}]
    question = {"id": "db", "header": "Database", "question": "Which one shall I plan for?", "options": options}
    writer.message("question", {"requestId": "q1", "questions": [question]})
    wait_for_answer(writer, "q1", "question", "")


def working(url: str) -> Writer:
    writer = begun(url, "fix-login-test", "claude", "claude-opus-5-5", "Fix the login test", {"team": "platform"})
    writer.message("thinking", {"text": "The assertion compares two readings of the clock.\nI will look at it first."})
    writer.message("text", {"text": PLAN})
    tool(
        writer, "t1", "Bash", {"command": "pytest -q tests/test_login.py", "description": "Run the tests"}, OUTPUT, True
    )
    edit = {
        "file_path": "/srv/shop/auth/session.py",
        "old_string": "def is_expired(self) -> bool:\n    return time.time() - self.start >= self.lifetime",
        "new_string": "def is_expired(self, now: float) -> bool:\n    return now - self.start >= self.lifetime",
    }
    tool(writer, "t2", "Edit", edit, "The file was changed.", False)
    writer.message("tool_call", {"toolUseId": "t3", "name": "Task", "input": {"description": "Look for other readers"}})
    writer.message("text", {"text": "I searched for `is_expired`: two callers, both in `auth/`."}, parentId="t3")
    writer.message("tool_result", {"toolUseId": "t3", "output": "Two callers, both in auth/.", "isError": False})
    writer.message("error", {"message": "A line of 70000000 bytes was left out", "code": "line_too_long"})
    asked = {"command": "git push origin fix-login-test", "description": "Publish the branch"}
    writer.message("tool_call", {"toolUseId": "t4", "name": "Bash", "input": asked})
    writer.message("approval_request", {"requestId": "r1", "toolUseId": "t4", "name": "Bash", "input": asked})
    wait_for_answer(writer, "r1", "approval", "Bash")
    return writer


def tool(writer: Writer, call: str, name: str, given: dict[str, Any], output: str, failed: bool) -> None:
    writer.message("tool_call", {"toolUseId": call, "name": name, "input": given})
    writer.message("tool_result", {"toolUseId": call, "output": output, "isError": failed})


def wait_for_answer(writer: Writer, request: str, kind: str, name: str) -> None:
    """The session's state as its worker keeps it while a request is open."""
    cursor = f"{writer.epoch}-{writer.seq}"
    open_request = {"id": request, "kind": kind, "name": name, "askedAt": now(), "cursor": cursor}
    status = {"cursor": f"{writer.epoch}-{writer.seq + 1}", "sessionId": writer.sid, "timestamp": now()}
    state = {"requests": json.dumps([open_request]), "openRequests": json.dumps([request]), "pendingApprovals": 1}
    writer.write(("s", status | {"status": "waiting"}), state=state)
