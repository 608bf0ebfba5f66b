"""Reads `codex app-server` (codex 0.169) as typed messages.

Owns the meaning of its notifications, requests and results. Does not own what is written to it (app_protocol.py), nor
shapes (app_wire.py), tool items (app_items.py) and the wording of notices (app_notices.py).

What the protocol asks of a reader: usage is a thread's running sum, which a resumed thread goes on from; other
threads of the same process are sub-agents; an item may begin without ever being completed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from msgspec import UNSET

from agentrq.wire.messages import ApprovalRequest, Compaction, Error, Init, RateLimit, SessionTotal, StatusReport, Text
from agentrq_worker.providers import json_line
from agentrq_worker.providers.codex import app_approvals, app_items, app_notices
from agentrq_worker.providers.codex.app_texts import OpenTexts
from agentrq_worker.providers.codex.app_usage import Usage
from agentrq_worker.providers.codex.app_wire import Item, Params, Thread, decode_response, params_decoder
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.jsonrpc.parser import JsonRpcParser, MethodReader, RpcLine, is_given, read_error
from agentrq_worker.providers.parser import INTERRUPTED, NO_TURNS, Spent
from agentrq_worker.providers.streamed_text import Block

_UNANSWERED = "Interrupted: the turn ended before the tool answered"
_OVER: Final = {
    "idle": "codex is idle and did not say that its turn is over",
    "systemError": "codex reports a system error and did not say that its turn is over",
    "notLoaded": "codex unloaded the thread and did not say that its turn is over",
}
"""The statuses of a thread in which no turn is under way."""
_CLOSED: Final = "codex closed the thread and did not say that its turn is over"
_TURN_COMPLETED = re.compile(rb'"method"\s*:\s*"turn/completed"')


class CodexAppParser(JsonRpcParser):
    """Reads `codex app-server`."""

    _params = params_decoder

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1, resumed: bool = False) -> None:
        """``resumed``: the thread had turns before this process, so its running sums do not begin at 0."""
        super().__init__(total, epoch)
        self.resumed = resumed
        self.thread: str | None = None
        self.turn: str | None = None
        """The turn under way, of the session's own thread."""
        self._usage = Usage()
        self.turns_ended = 0
        self._ended_turn: str | None = None
        self._spawned: dict[str, str] = {}  # a sub-agent's thread → the call that made it
        self._working: dict[str, str] = {}  # the sub-agents' threads that work now, and what they are called
        self._texts = OpenTexts(epoch)
        self._whole: set[str] = set()  # items of the turn that have come whole
        self._whole_lines: set[int] = set()  # hashes of their lines
        self._changes: dict[str, Any] = {}  # the changes of patches that are under way
        self._last: tuple[str, str] = ("", "")  # plan and rate limits as last published

    @property
    def background(self) -> tuple[str, ...]:
        """The sub-agents that work now."""
        return tuple(self._working.values())

    # -- results

    def _response(self, event: RpcLine, line: bytes) -> list[DraftMessage]:
        if is_given(event.error):
            # Which request failed the protocol knows; a recording does not tell.
            return [] if self.driven else [DraftMessage("error", Error(message=read_error(event.error).text))]
        try:
            result = decode_response(event.result)
        except (ValueError, RecursionError) as error:
            return [DraftMessage(*json_line.malformed("response", str(error), line))]
        if result.thread is not None and isinstance(result.thread.id, str):
            return self._begin(result.thread, result.model, result.cwd)
        if result.turn is not None and isinstance(result.turn.id, str) and result.turn.status == "inProgress":
            self.turn = result.turn.id
        return []

    def _begin(self, thread: Thread, model: Any, cwd: Any) -> list[DraftMessage]:
        if self.thread is not None:
            return []
        self.thread = str(thread.id)
        init = Init(
            provider_session_id=self.thread,
            model=json_line.optional(model) or json_line.optional(thread.model) or UNSET,
            cwd=json_line.optional(cwd) or json_line.optional(thread.cwd) or UNSET,
        )
        return [DraftMessage("init", init)]

    def _thread_started(self, params: Params, line: bytes) -> list[DraftMessage]:
        if params.thread is None or not isinstance(params.thread.id, str):
            return [DraftMessage(*json_line.malformed("thread/started", "it has no thread id", line))]
        return self._begin(params.thread, None, None)

    # -- turns

    def _other(self, params: Params) -> bool:
        """Whether a line is about a sub-agent's thread, not the session's own."""
        return isinstance(params.thread_id, str) and self.thread is not None and params.thread_id != self.thread

    def _parent(self, params: Params) -> str | None:
        return self._spawned.get(params.thread_id) if self._other(params) else None

    def _turn_started(self, params: Params, line: bytes) -> list[DraftMessage]:
        if self._other(params):
            self._working[params.thread_id] = f"sub-agent {params.thread_id}"
        elif params.turn is not None and isinstance(params.turn.id, str):
            self.turn = params.turn.id
        return []

    def _turn_completed(self, params: Params, line: bytes) -> list[DraftMessage]:
        turn = params.turn
        if turn is None:
            unread = json_line.malformed("turn/completed", "it has no turn", line)
            return [DraftMessage(*unread), *([] if self._other(params) else self._after_unread(line, unread))]
        status = json_line.text(turn.status)
        if self._other(params):
            self._working.pop(params.thread_id, None)
            return [
                DraftMessage("status", StatusReport(subtype="sub_agent_turn", message=status), self._parent(params))
            ]
        if turn.id is not None and turn.id == self._ended_turn:  # the same line once more, or an end that came late
            return []
        self.turn = json_line.text(turn.id) or self.turn
        error = json_line.text(json_line.mapping(turn.error).get("message"))
        if not error and status in ("failed", "interrupted"):
            error = f"The turn was {status}" if status == "interrupted" else "The turn failed"
        return self._end_turn(error, json_line.whole(turn.duration_ms))

    def failed_turn(self, error: str) -> list[DraftMessage]:
        """The messages of a turn that could not begin."""
        return [DraftMessage("error", Error(message=error)), *self._end_turn(error, 0)]

    def seems_over(self, method: Any, params: Params) -> str | None:
        """Why a turn under way seems to be over, by what is said of its thread; None where it does not."""
        if self.turn is None or params.thread_id != self.thread:
            return None
        kind = json_line.text(json_line.mapping(params.status).get("type"))
        return _CLOSED if method == "thread/closed" else _OVER.get(kind)

    def end_turn(self, reason: str) -> list[DraftMessage]:
        """The end of the turn under way that codex did not tell: failed, unless its thread went idle as after any."""
        told = DraftMessage("status", StatusReport(subtype="turn_end_missing", message=reason))
        return [told, *self._end_turn("" if reason == _OVER["idle"] else reason, 0)]

    def _end_turn(self, error: str, duration_ms: int) -> list[DraftMessage]:
        self.turns_ended += 1
        self._ended_turn, self.turn = self.turn, None
        drafts = self._texts.end() + self._close_calls_of_turn(_UNANSWERED)
        self._whole.clear()
        self._whole_lines.clear()
        self._changes.clear()
        self._forget_requests()
        spent_in, spent_out = self._usage.take()
        errors = [error] if error else UNSET
        drafts.append(self._cost(0.0, spent_in, spent_out, 1, bool(error), duration_ms, errors=errors))
        return drafts

    def spent(self) -> Spent:
        """Like `OutputParser.spent`."""
        return Spent(0.0, *self._usage.spent)

    def _token_usage(self, params: Params, line: bytes) -> list[DraftMessage]:
        fresh = not self.resumed and not self._other(params)
        self._usage.add(params.thread_id, json_line.mapping(params.token_usage), fresh, self.turn is not None)
        return []

    def close(self, reason: str = INTERRUPTED) -> list[DraftMessage]:
        """Like `OutputParser.close`; unfinished texts are published as far as they came."""
        self._changes.clear()
        return self._texts.end() + super().close(reason)

    # -- items

    def _delta(self, params: Params, line: bytes, thought: bool, suffix: str = "") -> list[DraftMessage]:
        if params.item_id is None or params.delta is None:
            return [DraftMessage(*json_line.malformed("delta", "itemId or delta is missing", line))]
        key = params.item_id + suffix
        if not params.delta or key in self._whole:
            return []
        return [self._texts.piece(key, params.delta, thought, self._parent(params))]

    def _text_delta(self, params: Params, line: bytes) -> list[DraftMessage]:
        return self._delta(params, line, thought=False)

    def _summary_delta(self, params: Params, line: bytes) -> list[DraftMessage]:
        return self._delta(params, line, thought=True)

    def _summary_part(self, params: Params, line: bytes) -> list[DraftMessage]:
        key = params.item_id or ""
        follows = key in self._texts and json_line.whole(params.summary_index)
        return [self._texts.piece(key, "\n\n", True, self._parent(params))] if follows else []

    def _reasoning_delta(self, params: Params, line: bytes) -> list[DraftMessage]:
        return self._delta(params, line, thought=True, suffix=":content")

    def _item_started(self, params: Params, line: bytes) -> list[DraftMessage]:
        item = params.item
        if item is None:
            return [DraftMessage(*json_line.malformed("item/started", "it has no item", line))]
        if item.type in app_items.NAMES:
            return self._tool(item, params, line)
        self._whole -= {item.id or "", f"{item.id}:content"}  # another item by the id of an earlier one
        return [] if item.type in app_items.KNOWN else [DraftMessage(*json_line.unknown(line))]

    def _item_completed(self, params: Params, line: bytes) -> list[DraftMessage]:
        item = params.item
        if item is None:
            return [DraftMessage(*json_line.malformed("item/completed", "it has no item", line))]
        kind, parent = item.type, self._parent(params)
        if kind in app_items.NAMES:
            return self._tool(item, params, line, done=True)
        if kind not in app_items.KNOWN:
            return [DraftMessage(*json_line.unknown(line))]
        key = item.id or ""
        if hash(line) in self._whole_lines:  # the same line once more
            return []
        if key:
            self._whole.add(key)
            self._whole_lines.add(hash(line))
        if kind == "agentMessage":
            if not json_line.is_text(item.text):
                return [DraftMessage(*json_line.malformed("agentMessage item", "its text is missing", line))]
            return [DraftMessage("text", Text(json_line.passed(item.text), self._texts.take(key) or UNSET), parent)]
        if kind == "reasoning":
            return self._reasoning(item, key, parent)
        if kind == "contextCompaction":
            return [DraftMessage("compaction", Compaction(trigger="auto"), parent)]
        if kind in app_items.NOTED:
            words = (
                json_line.text(json_line.value(item.text)) or json_line.text(item.review) or json_line.text(item.kind)
            )
            return [DraftMessage("status", StatusReport(subtype=kind or "", message=words or UNSET), parent)]
        return []

    def _reasoning(self, item: Item, key: str, parent: str | None) -> list[DraftMessage]:
        drafts = []
        for parts, block_id in ((item.summary, key), (json_line.value(item.content), f"{key}:content")):
            public = self._texts.take(block_id)
            self._whole.add(block_id)
            words = [part for part in parts if isinstance(part, str)] if isinstance(parts, list) else []
            if any(words):
                drafts.append(Block(public, thought=True, parent=parent).whole("\n\n".join(words)))
        return drafts

    def _tool(self, item: Item, params: Params, line: bytes, done: bool = False) -> list[DraftMessage]:
        call, parent = item.id, self._parent(params)
        if call is None:
            return [DraftMessage(*json_line.malformed(f"{item.type} item", "it has no id", line))]
        drafts: list[DraftMessage] = []
        self._call(call, app_items.name(item), app_items.given(item), parent, drafts, line)
        if item.type == "fileChange" and not done:
            self._changes[call] = item.changes
        elif item.type == "collabAgentToolCall":
            receivers = json_line.value(item.receiver_thread_ids)
            for thread in receivers if isinstance(receivers, list) else []:
                if isinstance(thread, str):
                    self._spawned.setdefault(thread, self._call_id(call))
        if done:
            self._changes.pop(call, None)
            self._result(call, app_items.output(item), app_items.failed(item), parent, drafts, line)
        return drafts

    # -- the rest

    def _error(self, params: Params, line: bytes) -> list[DraftMessage]:
        error = json_line.mapping(params.error)
        message = json_line.text(error.get("message")) or "unknown"
        if params.will_retry is True:
            # Codex drops this half answer of the model and asks for it again.
            return [*self._texts.abandon(), DraftMessage("status", StatusReport(subtype="retry", message=message))]
        code = app_notices.error_code(error.get("codexErrorInfo"))
        drafts = [DraftMessage("error", Error(message=message, code=code or UNSET))]
        if code in app_notices.LIMITS:
            drafts.insert(0, DraftMessage("rate_limit", RateLimit(scope=code, message=message)))
        return drafts

    def _plan(self, params: Params, line: bytes) -> list[DraftMessage]:
        words = app_notices.plan(params.plan)
        if words == self._last[0]:
            return []
        self._last = (words, self._last[1])
        return [DraftMessage("status", StatusReport(subtype="plan", message=words), self._parent(params))]

    def _diff(self, params: Params, line: bytes) -> list[DraftMessage]:
        words = app_notices.diff(json_line.text(params.diff))
        return [DraftMessage("status", StatusReport(subtype="diff", message=words))]

    def _rate_limits(self, params: Params, line: bytes) -> list[DraftMessage]:
        limit = app_notices.rate_limits(params.rate_limits)
        if limit is None or limit.message == self._last[1]:
            return []
        self._last = (self._last[0], limit.message)
        return [DraftMessage("rate_limit", limit)]

    def _notice(self, params: Params, line: bytes) -> list[DraftMessage]:
        method = json_line.text(self.event.method) if self.event is not None else ""
        if method == "thread/closed" or json_line.mapping(params.status).get("type") in _OVER:
            self._working.pop(params.thread_id, None)
        if method.startswith("thread/") and self._other(params):
            return []
        subtype = app_notices.NOTICES[method]
        return [DraftMessage("status", StatusReport(subtype=subtype, message=app_notices.notice(params) or UNSET))]

    def _resolved(self, params: Params, line: bytes) -> list[DraftMessage]:
        return self._withdraw(params.request_id)

    def _ask(self, params: Params, line: bytes) -> list[DraftMessage]:
        assert self.event is not None
        method, request_id = str(self.event.method), self.request_id(self.event.id)
        draft = app_approvals.asked(method, request_id, params, self._changes.get(params.item_id or ""))
        if isinstance(draft.content, ApprovalRequest) and isinstance(draft.content.tool_use_id, str):
            draft.content.tool_use_id = self._call_id(draft.content.tool_use_id)
        return [DraftMessage(draft.type, draft.content, self._parent(params))]

    def _after_unread(self, line: bytes, found: json_line.Unread) -> list[DraftMessage]:
        """Like `OutputParser._after_unread`; there is only this method that ends a turn."""
        if found.type != "error" or self.turn is None or not _TURN_COMPLETED.search(line):
            return []
        return self._end_turn("The line that ends the turn could not be read", 0)

    def _silent(self, params: Params, line: bytes) -> list[DraftMessage]:
        return []

    _methods: ClassVar[Mapping[str, MethodReader]] = {
        **dict.fromkeys(app_notices.SILENT, _silent),
        **dict.fromkeys(app_notices.NOTICES, _notice),
        "thread/started": _thread_started,
        "thread/tokenUsage/updated": _token_usage,
        "thread/compacted": _silent,  # an item of type contextCompaction says it
        "turn/started": _turn_started,
        "turn/completed": _turn_completed,
        "turn/plan/updated": _plan,
        "turn/diff/updated": _diff,
        "item/started": _item_started,
        "item/completed": _item_completed,
        "item/agentMessage/delta": _text_delta,
        "item/reasoning/summaryTextDelta": _summary_delta,
        "item/reasoning/summaryPartAdded": _summary_part,
        "item/reasoning/textDelta": _reasoning_delta,
        "account/rateLimits/updated": _rate_limits,
        "serverRequest/resolved": _resolved,
        "error": _error,
    }
    _requests: ClassVar[Mapping[str, MethodReader]] = dict.fromkeys(app_approvals.METHODS, _ask)
