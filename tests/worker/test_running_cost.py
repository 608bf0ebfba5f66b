"""What turns cost where the agent tells only a running sum."""

from __future__ import annotations

import pytest

from agentrq_worker.providers.running_cost import RunningCost


def test_each_turn_costs_what_the_sum_grew_by() -> None:
    cost = RunningCost()
    cost.update(0.5)
    cost.update(0.75)
    assert cost.take() == 0.75
    cost.update(1.0)
    assert (cost.take(), cost.take()) == (0.25, 0.0)


@pytest.mark.parametrize(
    ("counted", "amounts", "spent"),
    [
        (2.0, (2.5, 2.75), 0.75),  # the new process goes on from the session's sum
        (2.0, (0.25, 0.5), 0.5),  # it begins anew
        (0.0, (0.25,), 0.25),  # nothing was counted before
    ],
)
def test_a_resumed_session_counts_nothing_twice(counted: float, amounts: tuple[float, ...], spent: float) -> None:
    cost = RunningCost()
    cost.resume(counted)
    for amount in amounts:
        cost.update(amount)
    assert cost.take() == spent


def test_what_a_repeated_history_tells_was_counted_before() -> None:
    cost = RunningCost()
    cost.resume(3.0)
    cost.update(1.5, counted=True)
    cost.update(1.75)
    assert cost.take() == 0.25


def test_a_sum_that_begins_anew_in_mid_turn_loses_nothing() -> None:
    cost = RunningCost()
    for amount in (0.5, 0.25, 0.75):
        cost.update(amount)
    assert cost.take() == 1.25
