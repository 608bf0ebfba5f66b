"""What a scripted agent does, step by step: the functions by which a test writes a turn.

Owns the steps' shapes. Who takes them is scripted_session.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import msgspec

from agentrq.wire.messages import (
    TYPE_OF,
    ApprovalRequest,
    Content,
    Cost,
    Error,
    Question,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolResult,
)
from agentrq.wire.status import Reason, Status


class Say(msgspec.Struct, frozen=True):
    """Messages, in order: type and content of each."""

    messages: tuple[tuple[str, Content | dict[str, Any]], ...]


class Ask(msgspec.Struct, frozen=True):
    """A request that waits for its answer. A generator gets the answer as the value of its ``yield``."""

    content: ApprovalRequest | Question


class EndTurn(msgspec.Struct, frozen=True):
    """The turn is over, with its figures."""

    cost: Cost


class Hold(msgspec.Struct, frozen=True):
    """Nothing happens until `ScriptedAgent.go_on`."""


class End(msgspec.Struct, frozen=True):
    """The session ends."""

    status: Status
    reason: Reason
    error: str | None = None


class Die(msgspec.Struct, frozen=True):
    """The worker is gone, with all its sessions, until `ScriptedAgent.recover`."""


Step: TypeAlias = Say | Ask | EndTurn | Hold | End | Die
Turn: TypeAlias = Callable[[str], Generator[Step, Any, None]]
"""A turn as a generator function: it gets the prompt, and yields steps."""

_blocks = iter(range(1, 1 << 62))


def text(words: str, *, pieces: int = 0) -> Say:
    """The agent says a text; with ``pieces`` it comes first in so many live deltas."""
    return _text(Text, TextDelta, words, pieces)


def thinking(words: str, *, pieces: int = 0) -> Say:
    """The agent thinks; ``pieces`` as of `text`."""
    return _text(Thinking, ThinkingDelta, words, pieces)


def _text(whole: type[Any], delta: type[Any], words: str, pieces: int) -> Say:
    if not pieces:
        return Say(((TYPE_OF[whole], whole(words)),))
    block, size = f"block-{next(_blocks)}", -(-len(words) // pieces) or 1
    deltas = [(TYPE_OF[delta], delta(words[at : at + size], block, at)) for at in range(0, len(words), size)]
    return Say((*deltas, (TYPE_OF[whole], whole(words, block))))


def tool(name: str, input: Any, output: Any = "", *, is_error: bool = False, tool_use_id: str = "") -> Say:
    """The agent calls a tool (``name``, ``input``), which answers ``output``."""
    tool_use_id = tool_use_id or f"call-{next(_blocks)}"
    return Say((
        ("tool_call", ToolCall(tool_use_id, name, input)),
        ("tool_result", ToolResult(tool_use_id, output, is_error)),
    ))  # fmt: skip


def approval(name: str, input: Any, *, request_id: str = "", suggestions: Any = msgspec.UNSET) -> Ask:
    """The agent asks whether it may call a tool, and waits for the answer."""
    return Ask(ApprovalRequest(request_id or f"request-{next(_blocks)}", name, input, suggestions=suggestions))


def question(*questions: dict[str, Any], request_id: str = "") -> Ask:
    """The agent asks its user, and waits. Each question has ``id``, ``header``, ``question`` and maybe ``options``."""
    return Ask(Question(request_id or f"request-{next(_blocks)}", list(questions)))


def message(type: str, **content: Any) -> Say:
    """A message of any type, its content as it stands on the wire: ``message("rate_limit", scope=…, message=…)``."""
    return Say(((type, content),))


def error(words: str, code: str | None = None) -> Say:
    """A fault that the session survives."""
    return Say((("error", Error(words) if code is None else Error(words, code)),))


def cost(
    usd: float = 0.0, *, input_tokens: int = 0, output_tokens: int = 0, duration_ms: int = 1, is_error: bool = False
) -> EndTurn:
    """The turn ends with these figures. One that does not end so ends with zeros."""
    return EndTurn(Cost(usd, duration_ms, input_tokens, output_tokens, 1, is_error))


def hold() -> Hold:
    """The agent waits, in the middle of its turn, until the test calls `ScriptedAgent.go_on`."""
    return Hold()


def done() -> End:
    """The session ends well."""
    return End(Status.DONE, Reason.COMPLETED)


def fail(words: str) -> End:
    """The session ends in error, as where the agent's program fails."""
    return End(Status.ERROR, Reason.FAILED, words)


def die() -> Die:
    """The worker dies in the middle of the turn, and nobody takes its sessions until `ScriptedAgent.recover`."""
    return Die()
