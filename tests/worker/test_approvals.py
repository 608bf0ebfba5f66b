"""Policies and answers: pure."""

from __future__ import annotations

import pytest

from agentrq_worker.approvals import ASK, InvalidPolicy, Reply, decide, read_policy, read_reply, same_call

RULES = read_policy(
    {
        "default": "ask",
        "rules": [
            {"tool": "Bash", "command": "rm *", "decision": "deny"},
            {"tool": "Bash", "command": "git *", "decision": "allow"},
            {"tool": "Write", "path": "/srv/repo/*", "decision": "allow"},
            {"tool": "mcp__*", "decision": "deny"},
        ],
    }
)


@pytest.mark.parametrize(
    ("name", "given", "decision"),
    [
        ("Bash", {"command": "rm -rf /"}, "deny"),
        ("Bash", {"command": "git status"}, "allow"),
        ("Bash", {"command": "ls"}, "ask"),
        ("Bash", {}, "ask"),
        ("Bash", None, "ask"),
        ("Write", {"file_path": "/srv/repo/a/b.py"}, "allow"),
        ("Write", {"file_path": "/srv/repo/../../etc/passwd"}, "ask"),
        ("Write", {"file_path": 7}, "ask"),
        ("mcp__github__push", {}, "deny"),
    ],
)
def test_rules(name: str, given: object, decision: str) -> None:
    assert RULES.decide(name, given) == decision


@pytest.mark.parametrize(
    ("worker", "session", "decision"),
    [("deny", "allow", "deny"), ("allow", "deny", "allow"), ("ask", "deny", "deny"), ("ask", None, "ask")],
)
def test_the_workers_word_comes_first(worker: str, session: str | None, decision: str) -> None:
    assert decide(read_policy(worker), read_policy(session), "Bash", {}) == decision


@pytest.mark.parametrize(
    "value",
    ["perhaps", 7, {"default": "no"}, {"rules": [{"tool": "x"}]}, {"deadlineS": -1}, {"deadlineS": 1, "typo": 1}],
)
def test_bad_policies_are_refused(value: object) -> None:
    with pytest.raises(InvalidPolicy):
        read_policy(value)


def test_nothing_said_asks() -> None:
    assert read_policy(None) is ASK
    assert ASK.decide("Bash", {"command": "ls"}) == "ask"


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("allow", Reply("allow", "client")),
        ({"decision": "deny", "message": "no", "by": "alice"}, Reply("deny", "alice")),
        ({"behavior": "allow", "updatedInput": {}}, Reply("allow", "client")),
        ({"answers": {"0": "yes"}}, Reply("answer", "client")),
        (None, Reply("answer", "client")),
        ({"decision": 3, "by": 4}, Reply("answer", "client")),
    ],
)
def test_replies(answer: object, reply: Reply) -> None:
    assert read_reply(answer) == reply


def test_same_call() -> None:
    assert same_call("Bash", {"a": 1, "b": 2}, "Bash", {"b": 2, "a": 1})
    assert not same_call("Bash", {"a": 1}, "Write", {"a": 1})
    assert not same_call("Bash", {"a": 1}, "Bash", {"a": 2})
