"""The two clients have the same methods, with the same parameters and defaults."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from agentrq import AgentClient, AsyncAgentClient
from agentrq.client import AsyncSession, Session


def public(kind: type[Any]) -> dict[str, list[inspect.Parameter]]:
    found = {}
    for name, member in inspect.getmembers(kind, callable):
        if not name.startswith("_"):
            parameters = inspect.signature(member).parameters.values()
            found[name] = [each.replace(annotation=inspect.Parameter.empty) for each in parameters]
    return found


@pytest.mark.parametrize(("sync", "asynchronous"), [(Session, AsyncSession), (AgentClient, AsyncAgentClient)])
def test_both_clients_have_the_same_methods(sync: type[Any], asynchronous: type[Any]) -> None:
    one, other = public(sync), public(asynchronous)
    if sync is AgentClient:
        one["aclose"] = one.pop("close")
    inner = {"run", "read_events"}  # how they work, not what they offer
    assert {name: one[name] for name in one.keys() - inner} == {name: other[name] for name in other.keys() - inner}
