"""A session whose runner does not do with its pipes what runners do: a real runner, a real lane."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agentrq.wire.commands import make_options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.process import marks
from agentrq_worker.session import command_handler, shell, timers
from agentrq_worker.session.shell import SessionShell
from agentrq_worker.session_types import ClaimedSession, Outcome
from agentrq_worker.settings import Provider, Settings
from tests.faults.waiting import a_lane


async def end_of(redis_url: str, program: str, prompt: str, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> Outcome:
    """How a session ends whose runner is a shell's program."""
    for name, value in limits.items():
        for module in (shell, command_handler, timers):
            monkeypatch.setattr(module, name, value, raising=False)
    settings = Settings(providers={"x": Provider(command=["/bin/sh", "-c", program])}, stop_grace_s=0.1)
    now = int(time.time() * 1000)
    async with a_lane(redis_url) as (lane, _):
        claimed = ClaimedSession("s", "x", prompt, make_options({}), False, None, 0, SessionTotal(), now)
        return await SessionShell(claimed, lane, settings, marks.make_mark("s")).run()


@pytest.mark.parametrize(("code", "said"), [(0, None), (3, "Exit code: 3")])
async def test_an_exit_is_told_though_stdin_broke_before(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, code: int, said: str | None
) -> None:
    """It left its prompt unread, and a child of its own holds its stdout for longer than a mute runner may live."""
    program = f"head -c 10 > /dev/null; sleep 30 & exit {code}"
    outcome = await end_of(redis_url, program, "p" * 300_000, monkeypatch, MUTE_S=1.0, DRAIN_OUTPUT_S=3.0)
    assert (outcome.status, outcome.error) == ("error" if said else "done", said)


async def test_a_runner_for_which_too_much_waits_is_ended(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = await end_of(redis_url, "sleep 30", "p" * 300_000, monkeypatch, MOST_UNSENT=100_000)
    assert (outcome.status, outcome.error) == ("error", "The runner does not read its stdin")


async def test_a_runner_that_reads_late_is_not(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "sleep 0.2; head -c 150000 > /dev/null; exit 4"
    outcome = await end_of(redis_url, program, "p" * 150_000, monkeypatch, MOST_UNSENT=100_000)
    assert outcome.error == "Exit code: 4"
