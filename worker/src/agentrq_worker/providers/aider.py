"""The report of the built-in aider runner as typed messages. Pure.

Owns the meaning of aider's printed lines (aider has no output for programs) and of its analytics log. Only what aider
says itself is a notice, an edit or a failure; every other line is the model's, whatever it looks like. Does not own how
aider is started, nor which lines are its own: builtin_runners/aider.py reports ``init``, ``line`` {``text``, ``own``},
``analytics`` {``event``, ``properties``} and ``exit`` {``code``, ``duration_ms``}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias, get_args

import msgspec
from msgspec import UNSET

from agentrq.wire.messages import Error, Init, SessionTotal, StatusReport
from agentrq_worker.providers import json_line
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.parser import INTERRUPTED, NO_TURNS, OutputParser, Reader
from agentrq_worker.providers.streamed_text import CurrentText

_TOKENS = re.compile(r"Tokens: (?P<sent>[\d.,]+[kM]?) sent,.*?(?P<received>[\d.,]+[kM]?) received\.")
_COST = re.compile(r"Cost: \$(?P<message>[\d.,]+) message")
_EDIT = re.compile(r"Applied edit to (?P<path>.+)")
_COMMIT = re.compile(r"Commit [0-9a-f]{7,} ")
_FAILURE = re.compile(r"litellm\.(?P<code>\w+)|(?P<other>(?:API|Authentication|RateLimit|Connection)Error)\b")
_UNITS = {"k": 1e3, "M": 1e6}


class _Line(msgspec.Struct, gc=False):
    """What all lines share."""


class InitLine(_Line, tag="init"):
    """The first line of a session."""

    session_id: Any = None
    model: Any = None
    cwd: Any = None


class PrintedLine(_Line, tag="line"):
    """A line that aider printed; ``own`` where aider says it itself and not the model."""

    text: str
    own: Any = None


class AnalyticsLine(_Line, tag="analytics"):
    """A line of aider's analytics log."""

    event: Any = None
    properties: Any = None


class ExitLine(_Line, tag="exit"):
    """Aider has answered the prompt and ended."""

    code: Any = None
    duration_ms: Any = None


Line: TypeAlias = InitLine | PrintedLine | AnalyticsLine | ExitLine


class AiderParser(OutputParser):
    """Reads what the built-in aider runner reports."""

    ends_each_turn = True
    _decoder = msgspec.json.Decoder(Line)
    _turn_ends = frozenset({"exit"})
    _tags = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Line))

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        super().__init__(total, epoch)
        self._began = False
        self._text = CurrentText(epoch)
        self._edits = 0
        self._printed = (0.0, 0, 0)  # cost, tokens in and out of the turn, rounded as aider prints them
        self._logged: tuple[float, int, int] | None = None  # the same from its log, exact
        self._unanswered = 0  # messages to the model of this turn that have no answer yet
        self._failure = ""  # aider's words for the failure it met last

    def _init(self, event: InitLine, line: bytes) -> list[DraftMessage]:
        if self._began:
            return []
        self._began = True
        session, model, cwd = (json_line.optional(found) for found in (event.session_id, event.model, event.cwd))
        return [DraftMessage("init", Init(provider_session_id=session, model=model, cwd=cwd))]

    def _line(self, event: PrintedLine, line: bytes) -> list[DraftMessage]:
        text = event.text.rstrip()
        if event.own is not True:
            return self._text.add(f"{text}\n") if text or self._text.is_open else []
        drafts = self._text.end()
        if found := _TOKENS.match(text):
            cost = _COST.search(text)
            before = self._printed
            self._printed = (
                before[0] + (_number(cost["message"]) if cost else 0.0),
                before[1] + int(_number(found["sent"])),
                before[2] + int(_number(found["received"])),
            )
        elif found := _EDIT.match(text):
            self._edits += 1
            call = f"edit_{self._edits}"
            self._call(call, "edit", {"path": found["path"]}, None, drafts, None)
            self._result(call, "Applied", False, None, drafts, line)
        else:
            if _FAILURE.match(text):
                self._failure = text
            subtype = "commit" if _COMMIT.match(text) else "aider"
            drafts.append(DraftMessage("status", StatusReport(subtype=subtype, message=text)))
        return drafts

    def _analytics(self, event: AnalyticsLine, line: bytes) -> list[DraftMessage]:
        found = json_line.mapping(event.properties)
        if event.event == "message_send_starting":
            self._unanswered += 1
        elif event.event == "message_send_exception":
            self._failure = json_line.text(found.get("exception")) or self._failure
        elif event.event == "message_send":
            self._unanswered = max(self._unanswered - 1, 0)
            before = self._logged or (0.0, 0, 0)
            self._logged = (
                before[0] + json_line.amount(found.get("cost")),
                before[1] + json_line.whole(found.get("prompt_tokens")),
                before[2] + json_line.whole(found.get("completion_tokens")),
            )
        return []

    def _exit(self, event: ExitLine, line: bytes) -> list[DraftMessage]:
        drafts = self.close()
        error = self._error(event.code)
        if error and error == self._failure:
            code = _FAILURE.match(error)
            drafts.append(DraftMessage("error", Error(error, (code["code"] or code["other"]) if code else UNSET)))
        cost, tokens_in, tokens_out = self._logged or self._printed
        self._printed, self._logged, self._unanswered, self._failure = (0.0, 0, 0), None, 0, ""
        duration, errors = json_line.whole(event.duration_ms), [error] if error else UNSET
        return [*drafts, self._cost(cost, tokens_in, tokens_out, 1, bool(error), duration, errors=errors)]

    def _error(self, exit_code: Any) -> str:
        """Why the turn failed; empty if it did not: a failure that aider tried again after is none."""
        if exit_code != 0:
            return self._failure or f"aider ended with exit code {json_line.whole(exit_code)}"
        if self._failure and self._logged is None:
            return self._failure
        return (self._failure or "The model did not answer") if self._unanswered else ""

    def finish_texts(self) -> list[DraftMessage]:
        """Like `OutputParser.finish_texts`."""
        return self._text.end()

    def close(self, reason: str = INTERRUPTED) -> list[DraftMessage]:
        """Like `OutputParser.close`; an unfinished text is published as it stands."""
        return [*self._text.end(), *super().close(reason)]

    _readers: ClassVar[Mapping[type, Reader]] = {
        InitLine: _init,
        PrintedLine: _line,
        AnalyticsLine: _analytics,
        ExitLine: _exit,
    }


def _number(text: str) -> float:
    """A number as aider prints it: 2.1k, 1,234; 0 for anything else."""
    unit = _UNITS.get(text[-1:], 1.0)
    try:
        return float(text.rstrip("kM.").replace(",", "") or 0) * unit
    except ValueError:
        return 0.0
