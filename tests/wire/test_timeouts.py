"""What a client takes for a timeout: seconds, or None."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq import AgentClient, AsyncAgentClient, InvalidOption
from agentrq.wire.commands import MAX_TIMEOUT_S, check_timeout

WRONG: list[Any] = [math.nan, -math.nan, "1", b"1", True, [1], object(), 1j]
NOWHERE = "redis://127.0.0.1:1/0"


@given(st.floats(allow_nan=False) | st.integers())
def test_a_number_is_a_timeout_of_so_many_seconds(value: float) -> None:
    found = check_timeout(value)
    assert found is not None
    assert abs(found) <= MAX_TIMEOUT_S
    if abs(value) <= MAX_TIMEOUT_S:
        assert found == float(value)


def test_none_is_no_timeout() -> None:
    assert check_timeout(None) is None


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_caller_with_a_wrong_timeout_is_told_before_anything_is_sent(wrong: Any) -> None:
    """There is no Redis at all here: what was sent would fail otherwise."""
    calls: list[Any] = [
        lambda session: session.wait(wrong),
        lambda session: session.remove(wrong),
        lambda session: session.prompt("more", wait=True, timeout=wrong),
        lambda session: session.prompt("more", timeout=wrong),
        lambda session: session.answer("request", "allow", wait=True, timeout=wrong),
        lambda session: session.interrupt(True, timeout=wrong),
        lambda session: session.set_model("large", True, timeout=wrong),
        lambda session: session.set_permission_mode("plan", True, timeout=wrong),
    ]
    for call in calls:
        with AgentClient.from_url(NOWHERE) as client, pytest.raises(InvalidOption, match="timeout"):
            call(client.session("s"))
        async with AsyncAgentClient.from_url(NOWHERE) as other:
            with pytest.raises(InvalidOption, match="timeout"):
                await call(other.session("s"))
