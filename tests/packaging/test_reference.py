"""The reference has every option, setting, field, error, metric, command and method, each with a text of its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from docs.reference_tables import GENERATED, REFERENCE, NoText, field_texts, generate, pages

import agentrq
from agentrq.client import AgentClient, AsyncAgentClient, AsyncSession, Session

API = (REFERENCE / "python-api.md").read_text()
UNTOLD = {"self", "kind", "error", "trace"}
INTERNAL = {"run", "read_events"}
"""Methods that only sessions call."""


@pytest.mark.parametrize("path", list(pages()), ids=lambda path: path.stem)
def test_a_page_is_what_the_code_says(path: Any) -> None:
    page = path.read_text()
    assert page == generate(page), "make reference"


def test_every_table_is_on_a_page() -> None:
    text = "".join(path.read_text() for path in pages())
    assert [name for name in GENERATED if text.count(f"<!-- generated: {name} -->") != 1] == []


class Untold(msgspec.Struct):
    """A struct whose second field nobody has described."""

    told: int
    """One."""
    untold: int


def test_a_field_without_a_text_is_refused() -> None:
    with pytest.raises(NoText, match=r"Untold\.untold"):
        field_texts(Untold)


def methods() -> Iterator[tuple[str, Any, str]]:
    """Public methods of the clients and sessions: name, function, what is said where it is defined."""
    for kind in (AgentClient, AsyncAgentClient, Session, AsyncSession):
        for name, method in inspect.getmembers(kind, inspect.isroutine):
            if not name.startswith("_") and name not in INTERNAL:
                owner = next(base for base in kind.__mro__ if name in vars(base))
                yield f"{kind.__name__}.{name}", method, f"{method.__doc__}\n{owner.__doc__}"


@pytest.mark.parametrize(("method", "said"), [each[1:] for each in methods()], ids=[each[0] for each in methods()])
def test_a_method_says_what_its_parameters_are(method: Any, said: str) -> None:
    assert method.__doc__
    sync = method.__doc__.partition("Like `Session.")[2] or method.__doc__.partition("Like `AgentClient.")[2]
    if sync:  # the asyncio client: what the other one says
        twin = AgentClient if "Like `AgentClient." in method.__doc__ else Session
        said += getattr(twin, sync.partition("`")[0]).__doc__
    parameters = [name for name in inspect.signature(method).parameters if name not in UNTOLD]
    assert [name for name in parameters if f"`{name}`" not in said] == []


def test_the_page_of_the_client_has_what_the_package_exports() -> None:
    errors = GENERATED["errors"]()
    functions = {"answer", "interrupt", "prompt", "start", "stop"}  # RQ functions: reference/commands.md
    events = {"Event", "Message", "Receipt", "StatusEvent"}  # by the module that they are in
    untold = [name for name in agentrq.__all__ if name not in functions | events and f".{name}\n" not in API]
    assert [name for name in untold if f"`{name}`" not in errors] == []
