"""The built-in aider runner as a real process, with a stand-in for aider on its PATH."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes import fake_aider
from tests.worker.runner_processes import query, run_runner, talking_runner

AIDER = "agentrq_worker.builtin_runners.aider"


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """An environment with the stand-in and a place for state."""
    program = tmp_path / "bin" / "aider"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {fake_aider.__file__} "$@"\n')
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TMPDIR": str(tmp_path),
        "FAKE_AIDER_PIDS": str(tmp_path / "pids"),
    }


def run_aider(stdin: bytes, place: dict[str, str], *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    done = run_runner(AIDER, stdin, *arguments, **place)
    assert done.returncode == code, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def events(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line["event"] for line in found if line["type"] == "agent_event" and line["event"]["type"] == kind]


def printed(found: list[dict[str, Any]]) -> str:
    return "\n".join(event["text"] for event in events(found, "line"))


def test_aider_goes_on_with_its_conversation_over_turns_and_processes(place: dict[str, str], tmp_path: Path) -> None:
    asked = query("eins", model="gpt-5", permissionMode="plan", cwd=str(tmp_path)) + query("zwei “drei”")
    found = run_aider(asked, place, "--no-git")
    assert [line["type"] for line in found[:3]] == ["ready", "agent_started", "agent_event"]
    assert found[1]["parser"] == "aider"
    assert events(found, "init") == [{"type": "init", "session_id": "s1", "model": "gpt-5", "cwd": str(tmp_path)}]
    text = printed(found)
    assert f"You said 'eins' after 0 others in {tmp_path.name}" in text
    assert "You said 'zwei “drei”' after 1 others" in text
    assert "Main model: gpt-5" in text
    assert "--yes-always" in text
    assert text.count("--no-git\n") == 2
    assert [event["properties"]["cost"] for event in events(found, "analytics")] == [0.0123, 0.0123]
    assert [event["code"] for event in events(found, "exit")] == [0, 0]
    again = run_aider(query("vier", model="m", resume="s1", cwd=str(tmp_path)), place)
    assert "after 2 others" in printed(again)
    assert list(tmp_path.glob("agentrq-aider-*")) == [], "what was for one process is gone with it"


def test_the_models_words_are_told_from_aiders_own(place: dict[str, str]) -> None:
    found = events(run_aider(query("quote", model="m"), place), "line")
    assert [event["text"] for event in found if event["own"]] == [
        "Aider v0.90.1", "Main model: m with diff edit format", fake_aider.TOKENS, "Applied edit to hello.py",
    ]  # fmt: skip
    quoted = ["", *fake_aider.QUOTED.splitlines()]
    assert [event["text"] for event in found if not event["own"]] == quoted * 2


def test_a_failed_run_of_aider_fails_only_its_turn(place: dict[str, str]) -> None:
    found = run_aider(query("fail") + query("on"), place)
    assert [event["code"] for event in events(found, "exit")] == [3, 0]


def test_a_missing_aider_is_one_clear_error(tmp_path: Path) -> None:
    found = run_aider(query("hi"), {"PATH": str(tmp_path)}, code=1)
    assert found[-1]["type"] == "agent_error"
    assert found[-1]["message"].startswith("Aider not found. Install it first: ")


@pytest.mark.parametrize(
    ("end", "code"),
    [(lambda talk: talk.command("stop"), 0), (lambda talk: talk.process.terminate(), 143)],
    ids=["stop", "TERM"],
)
async def test_a_stop_in_mid_turn_ends_aider_and_its_children(
    place: dict[str, str], tmp_path: Path, end: Callable[[Any], None], code: int
) -> None:
    async with talking_runner(AIDER, **place) as talk:
        talk.write(query("sleep"))
        while True:
            line = await talk.read()
            assert isinstance(line, dict)
            if line.get("event", {}).get("text") == "I begin.":
                break
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert len(pids) == 2
        end(talk)
        await talk.rest()
        assert await talk.process.wait() == code
        processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        _gone, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive
    assert list(tmp_path.glob("agentrq-aider-*")) == []
