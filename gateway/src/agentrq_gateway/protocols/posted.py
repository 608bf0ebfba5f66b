"""What a front end's request asks of a session: answers first, then a prompt.

Made by the protocols, sent by the routes. Owns the ids of commands: the same message or answer posted again is the
same command, and carried out once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, get_args

from agentrq.wire.codec import encode
from agentrq.wire.commands import PromptMode


class InvalidPost(Exception):
    """A request that cannot be understood: ``field`` is the member at fault, the text says what to do."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


@dataclass(frozen=True)
class Answer:
    """The answer to one request: an approval's, or a question's."""

    request_id: str
    answer: Any
    command_id: str


@dataclass(frozen=True)
class Posted:
    """What was posted. ``prompt`` is None where only answers were; ``provider`` and ``options`` are for a start.

    ``asked``: the requests that the client has answered last, also those that do not wait any more.
    """

    prompt: str | None = None
    command_id: str = ""
    answers: tuple[Answer, ...] = ()
    asked: frozenset[str] = frozenset()
    mode: PromptMode = "queue"
    provider: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def make_command_id(*parts: object) -> str:
    """The id of the command that these parts make: the same for the same parts."""
    return "fe-" + hashlib.sha256(b"\0".join(encode(part) for part in parts)).hexdigest()[:40]


def read_start(found: dict[str, Any]) -> dict[str, Any]:
    """The members ``provider``, ``options`` and ``mode`` beside a message. Raises `InvalidPost`."""
    provider, options, mode = found.get("provider"), found.get("options"), found.get("mode", "queue")
    if provider is not None and not (isinstance(provider, str) and provider):
        raise InvalidPost("provider", "Expected the name of a provider")
    if options is not None and not isinstance(options, dict):
        raise InvalidPost("options", "Expected an object of start options")
    if mode not in get_args(PromptMode):
        raise InvalidPost("mode", f"Expected one of {', '.join(get_args(PromptMode))}")
    return {"provider": provider, "options": options or {}, "mode": mode}
