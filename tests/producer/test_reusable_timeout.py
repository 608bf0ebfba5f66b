"""The one timer of many waits: late for none, and gone with the last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq.reusable_timeout import ReusableTimeout

Ts = TypeVarTuple("Ts")


class Loop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self.timers.append(asyncio.TimerHandle(when, callback, args, self, context))
        return self.timers[-1]

    def waiting(self) -> list[asyncio.TimerHandle]:
        return sorted((timer for timer in self.timers if not timer.cancelled()), key=lambda timer: timer.when())

    def go_to(self, moment: float) -> None:
        """Let the time pass, with what is due meanwhile."""
        while (due := self.waiting()) and due[0].when() <= moment:
            self.timers.remove(due[0])
            self.now = max(self.now, due[0].when())
            due[0]._run()
        self.now = moment


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30), st.booleans()), max_size=30))
def test_each_wait_has_its_own_bound(waits: list[tuple[int, int, bool]]) -> None:
    """Each: its bound, how long it takes if nobody ends it before, and whether the next begins at once."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        rang: list[float] = []

        async def wait() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, Loop)
            timeout = ReusableTimeout(lambda: rang.append(loop.now))
            expected: list[float] = []
            for bound, takes, at_once in waits:
                began = loop.now
                timeout.start(bound)
                loop.go_to(began + takes)
                timeout.stop()
                if takes >= bound:
                    expected.append(began + bound)
                assert rang == expected
                assert len(loop.waiting()) <= 1
                if not at_once:
                    loop.go_to(loop.now + 7)
            assert rang == expected
            timeout.close()
            assert not loop.waiting()

        runner.run(wait())


@pytest.mark.both_loops
async def test_a_timer_that_is_due_at_once() -> None:
    rang = asyncio.Event()
    timeout = ReusableTimeout(rang.set)
    for short in (0.0, 0.0003, 0.001):
        timeout.start(short)
        timeout.stop()
        timeout.start(5)
        timeout.stop()
        timeout.start(short)
        async with asyncio.timeout(5):
            await rang.wait()
        rang.clear()
    timeout.close()
