"""When the pipes of many runners are looked at: real pipes, the real loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from agentrq_worker.process import output_poller
from agentrq_worker.process.output_poller import LONGEST_INTERVAL_S, OutputPoller


class Pipes:
    """Pipes that one poller watches; ``read`` says which were read, in order."""

    def __init__(self, count: int) -> None:
        self.poller = OutputPoller(asyncio.get_running_loop())
        self.read: list[int] = []
        self.seen = asyncio.Event()
        self.ends = [os.pipe() for _ in range(count)]
        for number, (end, _) in enumerate(self.ends):
            self.poller.add_reader(end, lambda number=number: self.take(number))  # type: ignore[misc]  # mypy/12908

    def take(self, number: int) -> bool:
        os.read(self.ends[number][0], 1)
        self.read.append(number)
        self.seen.set()
        return False

    def say(self, *numbers: int) -> None:
        for number in numbers:
            os.write(self.ends[number][1], b"x")

    async def until(self, read: list[int]) -> None:
        while sorted(self.read) != read:
            self.seen.clear()
            await self.seen.wait()

    def paced(self) -> bool:
        """Whether the pipes are looked at by the clock."""
        return self.poller._timer is not None


@contextlib.contextmanager
def pipes(count: int) -> Iterator[Pipes]:
    found = Pipes(count)
    try:
        yield found
    finally:
        found.poller.close()
        for pair in found.ends:
            for end in pair:
                os.close(end)


async def test_a_line_that_comes_alone_is_read_at_once() -> None:
    with pipes(3) as found:
        found.say(1)
        await found.until([1])
        assert not found.paced()
        found.say(0, 2)
        await found.until([0, 1, 2])


async def test_the_interval_grows_with_the_reads_a_second_and_is_bounded() -> None:
    with pipes(0) as found:
        at, intervals = 1000.0, []
        found.poller._looked = at
        for rate in (100, 1900, 2500, 2800, 3100, 6400, 20_000, 100_000):
            for _ in range(200):
                at += 0.01
                interval = found.poller._interval(at, rate // 100)
            intervals.append(interval)
        assert intervals[:2] == [0.0, 0.0]
        assert intervals[2:] == [pytest.approx(each) for each in (0.005, 0.008, 0.01, 0.005, 0.0016, 0.00032)]
        assert max(intervals) == LONGEST_INTERVAL_S


async def test_much_is_read_by_the_clock_until_little_comes() -> None:
    with pipes(5) as found:
        found.poller._rate = 1e4
        found.say(0)
        await found.until([0])
        assert found.paced()
        found.say(1, 2, 3, 4)
        await found.until([0, 1, 2, 3, 4])
        while found.paced():  # nothing comes: the rate falls
            found.poller._look()
        found.say(2)
        await found.until([0, 1, 2, 2, 3, 4])


async def test_a_pipe_that_holds_more_is_read_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipes(1) as found:
        found.poller._rate = 1e9
        monkeypatch.setattr(found, "take", lambda _, take=found.take: take(0) or True)
        found.say(0)
        await found.until([0])
        assert not found.paced()


async def test_a_full_turn_is_followed_by_the_next_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_poller, "MOST_AT_ONCE", 2)
    with pipes(5) as found:
        found.poller._rate = 1e9
        found.say(0, 1, 2, 3, 4)
        found.poller._look()
        assert len(found.read) == 2
        assert not found.paced()
        await found.until([0, 1, 2, 3, 4])


async def test_a_reader_that_fails_costs_no_other_its_turn() -> None:
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    with pipes(2) as found:
        found.poller.remove_reader(found.ends[0][0])
        found.poller.add_reader(found.ends[0][0], lambda: os.read(found.ends[0][0], 1) and 1 // 0)
        found.say(0, 1)
        await found.until([1])
    assert [type(context["exception"]) for context in failed] == [ZeroDivisionError]


async def test_a_reader_that_another_removes_is_not_called() -> None:
    with pipes(2) as found:
        ends = [end for end, _ in found.ends]

        def only_one(number: int) -> None:
            found.take(number)
            found.poller.remove_reader(ends[1 - number])

        for number, end in enumerate(ends):
            found.poller.remove_reader(end)
            found.poller.add_reader(end, lambda number=number: only_one(number))  # type: ignore[misc]  # mypy/12908
        found.say(0, 1)
        found.poller._look()
        assert len(found.read) == 1
