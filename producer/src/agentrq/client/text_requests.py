"""Asks a session's worker to publish its texts under way once more: docs/reference/events.md, "Joining". Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.errors import SessionNotFound
from agentrq.wire.ids import check_session_id
from agentrq.wire.keys import OPEN_TEXTS, Keys
from agentrq.wire.script_calls import text


def texts_command(keys: Keys, worker: str, session_id: str) -> tuple[str, str, str]:
    """The Redis command that asks the worker by this name."""
    return "PUBLISH", keys.wake_channel(worker), f"{OPEN_TEXTS} {session_id}"


class _Reader(Protocol):
    def ask_for_texts(self) -> list[tuple[str, str, str]]:
        """The command that asks for its texts, if there is one."""

    def on_refused_texts(self) -> None:
        """It may not ask."""


def ask_for_texts(readers: Iterable[_Reader]) -> Operation[None]:
    """Ask for the texts of readers. One of a user who may only read is refused, and reads on without."""
    asked = [(reader, command) for reader in readers for command in reader.ask_for_texts()]
    if asked:
        answers = yield Batch([command for _, command in asked], apart=True)
        for (reader, _), answer in zip(asked, answers, strict=True):
            if isinstance(answer, Exception):
                reader.on_refused_texts()


def repeat_open_texts(context: Context, session_id: str) -> Operation[None]:
    """Ask for the texts of a session, if a worker has it. Raises `SessionNotFound`."""
    key = context.keys.state(check_session_id(session_id))
    ((status, worker),) = yield Batch([("HMGET", key, "status", "worker")])
    if status is None:
        raise SessionNotFound(session_id)
    if worker:
        yield Batch([texts_command(context.keys, text(worker), session_id)])
