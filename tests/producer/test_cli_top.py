"""``agentrq top``: what it shows, and its keys on a real terminal with real sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest

from agentrq import AsyncAgentClient
from agentrq.cli.top_command import _keys
from agentrq.cli.top_screen import Act, TopScreen
from agentrq.client.fleet import Fleet, FleetWorker
from agentrq.client.waiting_list import WaitingRequest
from agentrq.wire.messages import ApprovalRequest, Question
from agentrq.wire.state import State, StateRequest
from agentrq.wire.status import Status
from tests.producer.command_line import COMMAND, following, only_line, run_cli
from tests.sessions import asked, until
from tests.workers import Worker

WORKER = FleetWorker("w1", 9000, "host", 1, 10, 7, False, "0.1.0")
FLEET = Fleet(1_000_000, "agentrq", 2, 0, None, [WORKER, WORKER._replace(name="gone", lease_ms=None)], False, 1, 0)


def state(sid: str, status: Status = Status.RUNNING, **fields: object) -> State:
    return State(session_id=sid, provider="demo", status=status, epoch=1, cursor="1-1", updated_at=990_000,
                 created_at=900_000, **fields)  # type: ignore[arg-type]  # fmt: skip


def request(sid: str, *, question: bool = False) -> WaitingRequest:
    kind: Literal["approval", "question"] = "question" if question else "approval"
    content = Question("r1", []) if question else ApprovalRequest("r1", "Bash", {})
    named = StateRequest(id="r1", kind=kind, name="" if question else "Bash", asked_at=1, cursor="1-2")
    return WaitingRequest(state=state(sid), request=named, content=content)


@pytest.fixture
def screen() -> TopScreen:
    screen = TopScreen()
    states = [
        state("idle", Status.IDLE), state("busy", cost_usd=2.5), state("asks", Status.WAITING),
        state("lost", worker_lost=True, worker="gone"), state("odd\x1b[31m", Status.QUEUED),
    ]  # fmt: skip
    screen.update(states, [request("asks")], FLEET)
    return screen


def shown(screen: TopScreen) -> list[str]:
    return [each.session_id for each in screen.rows]


def test_what_needs_somebody_comes_first(screen: TopScreen) -> None:
    assert shown(screen) == ["lost", "asks", "odd\x1b[31m", "busy", "idle"]
    lines = screen.lines(120, 12)
    assert lines[0].startswith("5 of 5 sessions by urgency  workers 1  free slots 7  queued 2  waiting 1")
    assert lines[2].startswith("> lost")
    assert "running (worker lost)" in lines[2]
    assert lines[3].rstrip().endswith("Bash")
    assert len(lines) == 12
    assert not any("\x1b" in line for line in lines)
    assert all(len(line) <= 40 for line in screen.lines(40, 12))


def test_the_selection_stays_with_its_session(screen: TopScreen) -> None:
    for key in ("down", "j", "j"):
        screen.press(key)
    assert screen.selected == "busy"
    screen.press("o")
    assert screen.selected == "busy"
    screen.update([state("busy"), state("new")], [], FLEET)
    assert screen.selected == "busy"
    screen.update([state("new")], [], FLEET)
    assert screen.selected == "new"
    screen.update([], [], FLEET)
    assert screen.selected == ""
    assert screen.press("a") is None


def test_many_rows_scroll_with_the_selection(screen: TopScreen) -> None:
    screen.update([state(f"s{number:03}") for number in range(100)], [], FLEET)
    while screen.lines(80, 10)[0].find("by name") < 0:
        screen.press("o")
    for _ in range(99):
        screen.press("down")
    assert any(line.startswith("> s099") for line in screen.lines(80, 10))


def test_a_filter_is_typed(screen: TopScreen) -> None:
    for key in "/BUSX\x7fY":
        assert screen.press(key) is None
    assert shown(screen) == ["busy"]
    screen.press("\r")
    assert screen.press("i") == Act("interrupt", "busy")
    screen.press("/")
    screen.press("escape")
    assert len(shown(screen)) == 5


def test_a_stop_is_asked_for_twice(screen: TopScreen) -> None:
    assert screen.press("s") is None
    assert "stop lost?" in screen.message
    assert screen.press("n") is None
    assert screen.press("s") is None
    screen.press("down")
    assert screen.press("s") is None
    assert screen.press("y") == Act("stop", "lost")


def test_only_what_is_asked_is_answered(screen: TopScreen) -> None:
    assert screen.press("y") is None
    assert "waits for no answer" in screen.message
    screen.press("down")
    assert screen.press("n") == Act("deny", "asks", "r1")
    screen.update([state("asks", Status.WAITING)], [request("asks", question=True)], FLEET)
    assert screen.press("y") is None
    assert "attach" in screen.message


def test_an_arrow_is_one_key() -> None:
    assert list(_keys("j\x1b[A\x1b[Bq\x1b")) == ["j", "up", "down", "q", "escape"]


def test_without_a_terminal_it_is_one_line(redis_url: str) -> None:
    done = run_cli("top", url=redis_url)
    assert done.returncode == 2
    assert "needs a terminal" in only_line(done.stderr)


async def test_keys_act_on_real_sessions(
    client: AsyncAgentClient, start_worker: Callable[..., Worker], redis_url: str
) -> None:
    start_worker()
    asking = await client.start("demo", "What is here?", cwd="/tmp", session_id="asking", approvals="ask")
    waiting = await asked(asking)
    busy = await client.start("demo", "/sleep 60", session_id="busy")
    running = await until(busy, "running")
    with following(*COMMAND, "top", "--every", "0.2", url=redis_url, terminal=True, keyboard=True) as top:
        top.read_until("> asking")
        assert not top.echoes()
        top.type("y")
        top.read_until("allow sent to asking")
        await until(asking, "idle", waiting.cursor)
        top.type("/busy\r")
        top.read_until("> busy")
        top.type("i")
        top.read_until("interrupt sent to busy")
        idle = await until(busy, "idle", running)
        top.type("a")
        top.read_until("/sleep 60")
        top.interrupt()
        top.read_until("\x1b[?1049h", times=2)
        top.type("s")
        top.read_until("stop busy?")
        top.type("y")
        await until(busy, "done", idle)
        top.read_until("0 of 1 sessions")
        top.type("q")
        code, _, said = top.finish()
        assert code == 0, said
    assert "Traceback" not in said
