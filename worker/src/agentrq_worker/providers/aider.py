"""What the built-in aider runner reports, as typed messages.

Owns the meaning of aider's printed lines (aider has no output for programs) and of its analytics log. Does not own how
aider is started: builtin_runners/aider.py does that and wraps each line: ``init``, ``line`` {``text``}, ``analytics``
{``event``, ``properties``}, ``exit`` {``code``, ``duration_ms``}.
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
from agentrq_worker.providers.streamed_text import LARGEST, Block

_TOKENS = re.compile(r"Tokens: (?P<sent>[\d.,]+[kM]?) sent,.*?(?P<received>[\d.,]+[kM]?) received\.")
_COST = re.compile(r"Cost: \$(?P<message>[\d.,]+) message")
_EDIT = re.compile(r"Applied edit to (?P<path>.+)")
_COMMIT = re.compile(r"Commit [0-9a-f]{7,} ")
_FAILURE = re.compile(r"litellm\.(?P<code>\w+)|(?P<other>(?:API|Authentication|RateLimit|Connection)Error)\b")
_BANNER = re.compile(
    r"Aider v\d|(Main|Weak|Editor|Architect)?\s?[Mm]odel: |Git (repo|working dir): |Repo-map: |Added .* to the chat|"
    r"Restored previous conversation|Creating empty file |Warning\b|Use /help |Retrying in |Note: |Cost estimates "
)
_UNITS = {"k": 1e3, "M": 1e6}


class _Line(msgspec.Struct, gc=False):
    """What all lines share."""


class InitLine(_Line, tag="init"):
    """The first line of a session."""

    session_id: Any = None
    model: Any = None
    cwd: Any = None


class PrintedLine(_Line, tag="line"):
    """What aider printed, a line of it."""

    text: str


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
    """Reads the aider runner."""

    _decoder = msgspec.json.Decoder(Line)
    _tags = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Line))

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        super().__init__(total, epoch)
        self._began = False
        self._block: Block | None = None
        self._count = 0  # blocks and edits: their ids
        self._printed = (0.0, 0, 0)  # cost, tokens in and out of the turn, rounded as aider prints them
        self._logged: tuple[float, int, int] | None = None  # the same from its log, exact
        self._failure = ""

    def _init(self, event: InitLine, line: bytes) -> list[DraftMessage]:
        if self._began:
            return []
        self._began = True
        session, model, cwd = (json_line.optional(found) for found in (event.session_id, event.model, event.cwd))
        return [DraftMessage("init", Init(provider_session_id=session, model=model, cwd=cwd))]

    def _line(self, event: PrintedLine, line: bytes) -> list[DraftMessage]:
        text = event.text.rstrip()
        if found := _TOKENS.match(text):
            cost = _COST.search(text)
            before = self._printed
            self._printed = (
                before[0] + (_number(cost["message"]) if cost else 0.0),
                before[1] + int(_number(found["sent"])),
                before[2] + int(_number(found["received"])),
            )
            return self._end_text()
        if found := _EDIT.match(text):
            drafts = self._end_text()
            self._count += 1
            call = f"edit_{self._count}"
            self._call(call, "edit", {"path": found["path"]}, None, drafts, line)
            self._result(call, "Applied", False, None, drafts, line)
            return drafts
        if found := _FAILURE.match(text):
            self._failure = text
            return [*self._end_text(), DraftMessage("error", Error(message=text, code=found["code"] or found["other"]))]
        if _COMMIT.match(text) or _BANNER.match(text):
            subtype = "commit" if _COMMIT.match(text) else "aider"
            return [*self._end_text(), DraftMessage("status", StatusReport(subtype=subtype, message=text))]
        if self._block is None and not text:
            return []
        return self._piece(f"{text}\n")

    def _piece(self, text: str) -> list[DraftMessage]:
        drafts: list[DraftMessage] = []
        if self._block is None or self._block.size > LARGEST:
            drafts += self._end_text()
            self._count += 1
            self._block = Block(f"{self._epoch}.{self._count}")
        return [*drafts, self._block.piece(text)]

    def _end_text(self) -> list[DraftMessage]:
        block, self._block = self._block, None
        return [block.whole()] if block is not None else []

    def _analytics(self, event: AnalyticsLine, line: bytes) -> list[DraftMessage]:
        if event.event != "message_send":
            return []
        found = json_line.mapping(event.properties)
        before = self._logged or (0.0, 0, 0)
        self._logged = (
            before[0] + json_line.amount(found.get("cost")),
            before[1] + json_line.whole(found.get("prompt_tokens")),
            before[2] + json_line.whole(found.get("completion_tokens")),
        )
        return []

    def _exit(self, event: ExitLine, line: bytes) -> list[DraftMessage]:
        drafts = self.close()
        error = self._failure
        if not error and event.code != 0:
            error = f"aider ended with exit code {json_line.whole(event.code)}"
        cost, tokens_in, tokens_out = self._logged or self._printed
        self._printed, self._logged, self._failure = (0.0, 0, 0), None, ""
        duration, errors = json_line.whole(event.duration_ms), [error] if error else UNSET
        return [*drafts, self._cost(cost, tokens_in, tokens_out, 1, bool(error), duration, errors=errors)]

    def close(self, reason: str = INTERRUPTED) -> list[DraftMessage]:
        """As `OutputParser.close`; an unfinished text is said as it stands."""
        return [*self._end_text(), *super().close(reason)]

    _readers: ClassVar[Mapping[type, Reader]] = {
        InitLine: _init,
        PrintedLine: _line,
        AnalyticsLine: _analytics,
        ExitLine: _exit,
    }


def _number(text: str) -> float:
    """A number as aider prints it: 2.1k, 1,234; 0 for what is none."""
    unit = _UNITS.get(text[-1:], 1.0)
    try:
        return float(text.rstrip("kM.").replace(",", "") or 0) * unit
    except ValueError:
        return 0.0
