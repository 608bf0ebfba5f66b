"""Describes an event in words for a person. Pure. Owns what is shown and what is left out, not the layout."""

from __future__ import annotations

import shlex
import time
from typing import Any, Final, NamedTuple

import msgspec

from agentrq.wire.codec import encode
from agentrq.wire.events import Event, Message, Receipt, StatusEvent
from agentrq.wire.messages import (
    ApprovalRequest,
    ApprovalResolved,
    BranchPushed,
    Checkpoint,
    Compaction,
    Cost,
    Error,
    Init,
    Prompt,
    Question,
    RateLimit,
    StatusReport,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    WorkspaceRestored,
)

RESULT_LINES: Final = 5
LINE_CHARS: Final = 300
_DECISIONS: Final = {"allow": "allowed", "deny": "denied", "answer": "answered"}
_ESSENTIAL: Final = (
    "command",
    "file_path",
    "path",
    "notebook_path",
    "pattern",
    "query",
    "url",
    "description",
    "prompt",
)
"""Members of a tool's input; the first one present says what the call is about."""


class EventText(NamedTuple):
    """``kind``: the message's type, ``session`` for a status, or ``receipt``; ``body`` may have several lines.

    ``bad`` is true for failures. The text is not sanitized for a terminal yet.
    """

    kind: str
    body: str
    bad: bool = False


def describe(event: Event, *, by_key: bool = False) -> EventText:
    """Describe any event; with ``by_key`` without the command that answers a request."""
    if isinstance(event, StatusEvent):
        return _status(event)
    if isinstance(event, Receipt):
        reason = f": {event.reason}" if event.reason else ""
        body = f"{event.command} {event.outcome}{reason} ({event.command_id})"
        return EventText("receipt", body, event.outcome != "applied")
    if by_key and isinstance(event.content, ApprovalRequest | Question):
        return EventText(event.type, "\n".join(_asked(event.content, by_key=True)))
    return _message(event)


def clock(timestamp: int) -> str:
    """A time in ms since the epoch as local ``HH:MM:SS``."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(timestamp / 1000))
    except (OverflowError, ValueError, OSError):  # a figure out of range
        return "--:--:--"


def dollars(amount: float) -> str:
    """An amount in USD: in cents, or with four decimals below one dollar."""
    return f"${amount:.2f}" if amount >= 1 or amount == 0 else f"${amount:.4f}"


def _status(event: StatusEvent) -> EventText:
    body = event.status
    if event.status == "queued":
        body += f" as {event.session_id}"
    if event.reason:
        body += f" ({event.reason})"
    if event.error:
        body += f": {event.error}"
    if event.stderr_tail:
        body += "".join(f"\n  stderr: {line}" for line in event.stderr_tail.splitlines())
    return EventText("session", body, event.status == "error")


def _message(message: Message) -> EventText:
    match message.content:
        case Prompt(text=text) | Text(text=text) | Thinking(text=text):
            return EventText(message.type, text.strip("\n"))
        case Init() as init:
            return EventText(message.type, _init(init))
        case ToolCall(name=name, input=given):
            return EventText(message.type, f"{name}  {_essential(given)}".rstrip())
        case ToolResult(output=output, is_error=is_error):
            return EventText(
                message.type, ("failed: " if is_error else "") + (_shortened(_flat(output)) or "(no output)"), is_error
            )
        case StatusReport(subtype=subtype, message=words):
            named = words and subtype != message.type  # Claude Code's subtype "status" would say it twice
            return EventText(message.type, f"{subtype}: {words}" if named else words or subtype)
        case Compaction(trigger=trigger, pre_tokens=tokens):
            return EventText(message.type, f"{trigger}, {tokens} tokens before" if isinstance(tokens, int) else trigger)
        case Cost() as cost:
            return _cost(cost)
        case ApprovalRequest() as request:
            lines = [*_asked(request), _answer(message.session_id, request.request_id) + " allow    # or: deny"]
            return EventText(message.type, "\n".join(lines))
        case ApprovalResolved(request_id=request_id, decision=decision, by=by):
            return EventText(message.type, f"{_DECISIONS.get(decision, decision)} by {by} ({request_id})")
        case RateLimit(message=words, resets_at=resets_at, scope=scope):
            until = f", resets at {clock(resets_at)}" if isinstance(resets_at, int) else ""
            return EventText(message.type, (words if scope in words else f"{scope}: {words}") + until)
        case Checkpoint(turn=turn, commit=commit, files=files, left_out=left_out):
            missing = f", without {', '.join(left_out)}" if isinstance(left_out, list) else ""
            return EventText(message.type, f"turn {turn}: {commit[:12]}, {files} files changed{missing}")
        case WorkspaceRestored(turn=turn, commit=commit, lost=lost):
            since = "; what the turn that was cut changed is lost" if lost else ""
            return EventText(message.type, f"the files of turn {turn} ({commit[:12]}){since}")
        case BranchPushed(branch=branch, commit=commit):
            return EventText(message.type, f"{branch} ({commit[:12]})")
        case Question() as question:
            lines = [*_asked(question), _answer(message.session_id, question.request_id) + f" {_template(question)}"]
            return EventText(message.type, "\n".join(lines))
        case Error(message=words, code=code):
            return EventText(message.type, f"{code}: {words}" if code else words, bad=True)
        case content:
            return EventText(message.type, _cut(compact(content)))


def _init(init: Init) -> str:
    words = [init.model if isinstance(init.model, str) else "model unknown"]
    if init.cwd:
        words.append(f"in {init.cwd}")
    if isinstance(init.tools, list):
        words.append(f"with {len(init.tools)} tools")
    return " ".join(words)


def _cost(cost: Cost) -> EventText:
    words = _figures(cost.total_cost_usd, cost.input_tokens, cost.output_tokens, cost.num_turns)
    words.insert(1, f"{cost.duration_ms / 1000:.1f} s")
    total = cost.session_total
    if isinstance(total, msgspec.Struct) and total.num_turns > cost.num_turns:
        words.append(f"session {dollars(total.cost_usd)} in {total.num_turns} turns")
    errors = cost.errors if isinstance(cost.errors, list) else []
    if cost.is_error:
        return EventText("cost", "\n".join(["failed · " + " · ".join(words), *errors]), bad=True)
    return EventText("cost", " · ".join(words))


def _figures(usd: float, input_tokens: int, output_tokens: int, turns: int) -> list[str]:
    return [dollars(usd), f"{input_tokens} in", f"{output_tokens} out", f"{turns} turn{'' if turns == 1 else 's'}"]


def _asked(request: ApprovalRequest | Question, *, by_key: bool = False) -> list[str]:
    if isinstance(request, Question):
        return _question(request, by_key)
    # Never shortened: the person approves exactly what is shown.
    return [f"approval needed: {request.name}", *(f"  {line}" for line in _members(request.input))]


def _members(given: Any) -> list[str]:
    """A tool's input, one member a line; further lines of a text are indented."""
    if not isinstance(given, dict):
        return _text_of(given).split("\n")
    lines: list[str] = []
    for name, value in given.items():
        first, *more = _text_of(value).split("\n")
        lines += [f"{name}: {first}", *(f"  {line}" for line in more)]
    return lines


def _question(question: Question, by_key: bool) -> list[str]:
    lines: list[str] = []
    for asked in question.questions:
        if not isinstance(asked, dict):
            lines.append(_text_of(asked))
            continue
        header = f"{asked['header']}: " if asked.get("header") else ""
        name = "" if by_key else f"[{asked.get('id', '')}] "  # for people who answer in JSON
        lines.append(f"{name}{header}{asked.get('question', '')}")
        options = asked.get("options")
        for option in options if isinstance(options, list) else []:
            label = option.get("label", compact(option)) if isinstance(option, dict) else _text_of(option)
            about = option.get("description") if isinstance(option, dict) else None
            lines.append(f"    - {label}" + (f": {about}" if about else ""))
    return lines


def _template(question: Question) -> str:
    """A JSON answer with an ellipsis for each value."""
    ids = [str(asked.get("id", place)) if isinstance(asked, dict) else str(place)
           for place, asked in enumerate(question.questions)]  # fmt: skip
    return shlex.quote(compact({"answers": dict.fromkeys(ids, "…")}))


def _answer(session_id: str, request_id: str) -> str:
    # The agent chose the id: quoted it is one shell word, after "--" it is not an option.
    dashes = "-- " if session_id.startswith("-") or request_id.startswith("-") else ""
    return f"agentrq answer {dashes}{session_id} {shlex.quote(request_id)}"


def _essential(given: Any) -> str:
    if isinstance(given, dict):
        for name in _ESSENTIAL:
            if isinstance(given.get(name), str) and given[name].strip():
                return _cut(" ".join(given[name].split()))
    return _cut(compact(given)) if given not in ({}, None) else ""


def _flat(output: Any) -> str:
    """A tool's output as text: the texts of content blocks, else JSON."""
    if isinstance(output, dict) and isinstance(output.get("content"), list):
        output = output["content"]
    if isinstance(output, list) and output and all(isinstance(block, dict) for block in output):
        return "\n".join(
            block["text"] if isinstance(block.get("text"), str) else f"[{block.get('type', 'data')}]"
            for block in output
        )
    return _text_of(output)


def _shortened(text: str) -> str:
    """The first lines of a text, and how many more there are."""
    lines = text.strip("\n").split("\n")
    kept = [_cut(line.rstrip()) for line in lines[:RESULT_LINES]]
    left = len(lines) - len(kept)
    return "\n".join([*kept, f"… {left} more line{'' if left == 1 else 's'}"] if left else kept)


def _cut(line: str) -> str:
    return line if len(line) <= LINE_CHARS else f"{line[:LINE_CHARS]}… ({len(line)} characters)"


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else compact(value)


def compact(value: Any) -> str:
    """Any value as JSON on one line."""
    return encode(value).decode()
