"""Reads Claude Code's `--output-format stream-json` (CLI 2.1) as typed messages.

Owns the mapping of its output lines; their shapes are those of `@anthropic-ai/claude-agent-sdk` 0.3.330 and of the
recordings in tests/transcripts. Does not own what is written to its stdin, nor the wording of notices
(claude/notices.py).

What the format asks of a reader: one `assistant` frame a content block, all with the message's id; `is_error` tells
how a turn ended, not `subtype`; `total_cost_usd` is a running sum, `usage` is one turn's; `init` comes with each turn;
a background task brings turns of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from msgspec import UNSET

from agentrq.wire.messages import (
    ApprovalRequest,
    ApprovalResolved,
    Compaction,
    Error,
    Init,
    Question,
    SessionTotal,
    StatusReport,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
)
from agentrq_worker.providers import json_line
from agentrq_worker.providers.claude import background_tasks, notices
from agentrq_worker.providers.claude.approvals import request_message
from agentrq_worker.providers.claude.background_tasks import BackgroundTasks
from agentrq_worker.providers.claude.stream_blocks import StreamBlocks
from agentrq_worker.providers.claude.turn_costs import TurnCosts
from agentrq_worker.providers.claude.wire import (
    AssistantLine,
    Block,
    ControlCancelLine,
    ControlRequestLine,
    Notice,
    RateLimitLine,
    ResultLine,
    Silent,
    Speech,
    StreamEventLine,
    SystemLine,
    UserLine,
    block_as_it_came,
    decoder,
    tags,
)
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.parser import INTERRUPTED, NO_TURNS, OutputParser, Reader, Spent
from agentrq_worker.providers.span_ids import SpanIds

_UNANSWERED = "Not known: the turn ended without a readable result of this call"
_KNOWN_BLOCKS = frozenset({"text", "thinking", "tool_use", "server_tool_use", "tool_result"})


class ClaudeParser(OutputParser):
    """Reads Claude Code's `stream-json`."""

    _decoder = decoder
    _tags = tags
    _turn_ends = frozenset({"result"})

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        super().__init__(total, epoch)
        self._speakers: dict[str | None, StreamBlocks] = {}
        self._requests = SpanIds(epoch)
        self.open_requests: dict[str, ControlRequestLine] = {}
        """The CLI's requests that wait for an answer, by the id that clients see."""
        self._tasks = BackgroundTasks()
        self.turns_begun = 0
        """How often the CLI said that a turn begins."""
        self._session: str | None = None
        self._setting: tuple[Any, Any] = (None, None)  # model and permission mode
        self._costs = TurnCosts()
        self._spoken: str | None = None  # the API message whose usage was counted last
        self._usage = (0, 0)  # tokens in and out of the turn's messages so far
        self._last_result: Any = None  # its uuid, until the next turn shows

    @property
    def background(self) -> tuple[str, ...]:
        """The background tasks that run now, by label."""
        return self._tasks.labels

    def close(self, reason: str = INTERRUPTED) -> list[DraftMessage]:
        """Like `OutputParser.close`; the blocks whose whole has not come are abandoned."""
        return [
            draft for parent, speaker in self._speakers.items() for draft in speaker.abandon(parent)
        ] + super().close(reason)

    def _new_speaker(self, parent: str | None) -> StreamBlocks:
        speaker = self._speakers[parent] = StreamBlocks()
        return speaker

    def _assistant(self, event: AssistantLine, line: bytes) -> list[DraftMessage]:
        self._last_result = None
        parent, speech = event.parent_tool_use_id, event.message
        if speech.id != self._spoken:
            self._count(speech)
        if parent is not None:
            parent = self._call_id(parent)
        blocks = speech.content
        drafts: list[DraftMessage] = []
        if isinstance(blocks, list):
            speaker = self._speakers.get(parent) or self._new_speaker(parent)
            for position, block in enumerate(blocks):
                kind = block.type
                if kind == "text" and json_line.is_text(block.text):
                    block_id = speaker.whole(speech.id, kind, block.text, position, len(blocks))
                    if block_id is not None:
                        drafts.append(DraftMessage(kind, Text(block.text, block_id), parent))  # type: ignore[arg-type]  # passed through
                elif kind == "thinking" and json_line.is_text(block.thinking):
                    block_id = speaker.whole(speech.id, kind, block.thinking, position, len(blocks))
                    if block_id is not None:
                        drafts.append(DraftMessage(kind, Thinking(block.thinking, block_id), parent))  # type: ignore[arg-type]
                elif kind.endswith("tool_use") and block.id is not None and block.name is not None:
                    self._call(block.id, block.name, json_line.passed_or(block.input, {}), parent, drafts, line)
                elif kind.endswith("tool_result") and block.tool_use_id is not None:  # of a tool that ran at the API
                    self._result(
                        block.tool_use_id,
                        json_line.passed_or(block.content, ""),
                        block.is_error is True,
                        parent,
                        drafts,
                        line,
                    )
                else:
                    drafts.append(_other(block, position, parent, line))
        elif blocks is not None:
            drafts.append(DraftMessage("text", Text(blocks), parent))
        if event.error is not None and isinstance(event.error, str):
            # The API's failure, in the agent's place; its words are the frame's text.
            said = next((draft.content.text for draft in drafts if isinstance(draft.content, Text)), event.error)
            drafts.append(DraftMessage("error", Error(message=said, code=event.error), parent))
        return drafts

    def _count(self, speech: Speech) -> None:
        """Count the tokens of a message whose first line this is; its other lines repeat them."""
        self._spoken = speech.id
        usage = json_line.members(speech.usage)
        tokens = json_line.whole(usage.get("input_tokens")), json_line.whole(usage.get("output_tokens"))
        self._usage = (self._usage[0] + tokens[0], self._usage[1] + tokens[1])

    def spent(self) -> Spent:
        """Like `OutputParser.spent`: the tokens of the turn's messages; a message tells few of those out."""
        return Spent(0.0, *self._usage)

    def _user(self, event: UserLine, line: bytes) -> list[DraftMessage]:
        if event.isReplay is True:  # the prompt itself, which the session has published
            return []
        parent = event.parent_tool_use_id
        if parent is not None:
            parent = self._call_id(parent)
        content = event.message.content
        if isinstance(content, str):
            return [DraftMessage("status", StatusReport(subtype="user", message=content), parent)]
        drafts: list[DraftMessage] = []
        for position, block in enumerate(content or ()):
            if block.type == "tool_result" and block.tool_use_id is not None:
                self._result(
                    block.tool_use_id,
                    json_line.passed_or(block.content, ""),
                    block.is_error is True,
                    parent,
                    drafts,
                    line,
                )
            elif block.type == "text" and json_line.is_text(block.text):
                drafts.append(
                    DraftMessage("status", StatusReport(subtype="user", message=json_line.passed(block.text)), parent)
                )
            else:
                drafts.append(_other(block, position, parent, line))
        return drafts

    def _stream_event(self, event: StreamEventLine, line: bytes) -> list[DraftMessage]:
        inner, message, parent = event.event, event.api_message_id, event.parent_tool_use_id
        if parent is not None:
            parent = self._call_id(parent)
        speaker = self._speakers.get(parent) or self._new_speaker(parent)
        delta = inner.delta
        begun = inner.message.id if delta is None and inner.message is not None else None
        if begun is not None and inner.type == "message_start":
            return speaker.begin(begun, parent)
        drafts: list[DraftMessage] = []
        if message is not None and message != speaker.streamed:  # the message's beginning was lost
            drafts += speaker.begin(message, parent)
        if delta is None:
            if inner.type == "content_block_start":
                speaker.begin_block(inner.index)
        elif delta.type == "text_delta" and delta.text is not None:
            offset = speaker.piece(inner.index, delta.text, False)
            if offset is not None:
                drafts.append(DraftMessage("text_delta", TextDelta(delta.text, speaker.block_id, offset), parent))
        elif delta.type == "thinking_delta" and delta.thinking is not None:
            offset = speaker.piece(inner.index, delta.thinking, True)
            if offset is not None:
                content = ThinkingDelta(delta.thinking, speaker.block_id, offset)
                drafts.append(DraftMessage("thinking_delta", content, parent))
        return drafts

    def _system(self, event: SystemLine, line: bytes) -> list[DraftMessage]:
        self._last_result = None
        if event.subtype == "init":
            return self._init(event)
        if event.subtype == "compact_boundary":
            metadata = json_line.mapping(event.compact_metadata)
            tokens = metadata.get("pre_tokens")
            content = Compaction(
                trigger=json_line.text(metadata.get("trigger")) or "auto",
                pre_tokens=UNSET if tokens is None else json_line.whole(tokens),
            )
            return [DraftMessage("compaction", content)]
        subtype = json_line.text(event.subtype) or "system"
        found = json_line.members(line)
        if subtype in background_tasks.SUBTYPES:
            self._tasks.read(subtype, found)
        message = notices.notice(subtype, found)
        return [DraftMessage("status", StatusReport(subtype=subtype, message=message))]

    def _init(self, event: SystemLine) -> list[DraftMessage]:
        """Publishes the first `init` of a conversation; a later one only if model or permission mode changed."""
        self.turns_begun += 1
        session = json_line.text(event.session_id)
        setting = (event.model, event.permissionMode)
        before, self._setting = self._setting, setting
        if self._session is None or (session and session != self._session):
            self._session = session
            content = Init(
                provider_session_id=session or UNSET,
                model=json_line.optional(event.model),
                cwd=json_line.optional(event.cwd),
                tools=json_line.list_or_unset(event.tools),
            )
            return [DraftMessage("init", content)]
        if setting == before:
            return []
        message = f"model {event.model}, permission mode {event.permissionMode}"
        return [DraftMessage("status", StatusReport(subtype="init", message=message))]

    def _notice(self, event: Notice, line: bytes) -> list[DraftMessage]:
        subtype = str(type(event).__struct_config__.tag)
        message = notices.notice(subtype, json_line.members(line))
        return [DraftMessage("status", StatusReport(subtype=subtype, message=message))]

    def _result_line(self, event: ResultLine, line: bytes) -> list[DraftMessage]:
        if event.uuid is not None and event.uuid == self._last_result:  # the same line once more
            return []
        self._last_result = event.uuid
        self._spoken, self._usage = None, (0, 0)
        drafts = [*self._end_texts_of_turn(), *self._close_calls_of_turn(_UNANSWERED)]
        usage = json_line.mapping(event.usage)
        failed = event.is_error if isinstance(event.is_error, bool) else event.subtype != "success"
        errors = [str(error) for error in event.errors] if isinstance(event.errors, list) else []
        result = json_line.text_or_unset(event.result)
        if failed and not errors and result is UNSET:
            errors = [json_line.text(event.subtype) or "error"]
        cost = self._cost(
            cost_usd=self._costs.take(event, self.total.cost_usd),
            input_tokens=json_line.whole(usage.get("input_tokens")),
            output_tokens=json_line.whole(usage.get("output_tokens")),
            num_turns=json_line.whole(event.num_turns),
            is_error=failed,
            duration_ms=json_line.whole(event.duration_ms),
            result=result,
            errors=errors or UNSET,
        )
        return [*drafts, cost]

    def _end_texts_of_turn(self) -> list[DraftMessage]:
        """The half texts of the turn are abandoned; sub-agents that work in the background go on with theirs."""
        drafts: list[DraftMessage] = []
        for parent, speaker in list(self._speakers.items()):
            if parent is None or parent in self._parents:  # a background sub-agent's own call was answered
                drafts += speaker.end_turn(parent)
            if not speaker.is_unfinished:
                del self._speakers[parent]
        return drafts

    def _control_request(self, event: ControlRequestLine, line: bytes) -> list[DraftMessage]:
        earlier = self.open_requests.get(self._requests.public(event.request_id) or "")
        if earlier is not None and earlier.request == event.request:  # the same line once more
            return []
        draft = request_message(event)
        if draft is None:
            return [DraftMessage(*json_line.unknown(line))]
        # The CLI waits for one answer by this id: the newer request's.
        drafts = [] if earlier is None else self._withdraw(event.request_id)
        public = self._requests.open(event.request_id, event.request_id)
        self.open_requests[public] = event
        content = draft.content
        if isinstance(content, ApprovalRequest | Question):
            content.request_id = public
        parent = None
        if isinstance(content, ApprovalRequest) and isinstance(content.tool_use_id, str):
            content.tool_use_id = self._call_id(content.tool_use_id)
            parent = self._parents.get(content.tool_use_id)
        return [*drafts, DraftMessage(draft.type, content, parent)]

    def close_request(self, public: str) -> None:
        """A request was answered, or will not be: the CLI may use its id again."""
        self.open_requests.pop(public, None)
        self._requests.close_public(public)

    def take_request(self, request_id: str) -> str | None:
        """Like `OutputParser.take_request`."""
        request = self.open_requests.get(request_id)
        self.close_request(request_id)
        return None if request is None else request.request_id

    def _control_cancel(self, event: ControlCancelLine, line: bytes) -> list[DraftMessage]:
        return self._withdraw(event.request_id)

    def _withdraw(self, own_id: str) -> list[DraftMessage]:
        """The CLI wants no answer to a request any more; nothing if it is not open."""
        public = self._requests.public(own_id)
        if public is None:
            return []
        self.close_request(public)
        content = ApprovalResolved(request_id=public, decision="withdrawn", by="agent")
        return [DraftMessage("approval_resolved", content)]

    def _rate_limit(self, event: RateLimitLine, line: bytes) -> list[DraftMessage]:
        return [DraftMessage("rate_limit", notices.rate_limit(event.rate_limit_info))]

    def _silent(self, event: Silent, line: bytes) -> list[DraftMessage]:
        return []

    _readers: ClassVar[Mapping[type, Reader]] = {
        AssistantLine: _assistant,
        UserLine: _user,
        StreamEventLine: _stream_event,
        SystemLine: _system,
        ResultLine: _result_line,
        ControlRequestLine: _control_request,
        ControlCancelLine: _control_cancel,
        RateLimitLine: _rate_limit,
        **dict.fromkeys(get_args(Notice), _notice),
        **dict.fromkeys(get_args(Silent), _silent),
    }


def _other(block: Block, position: int, parent: str | None, line: bytes) -> DraftMessage:
    """A block of an unknown type as it came, or the error of a block that lacks a member of its type."""
    if block.type in _KNOWN_BLOCKS:
        return DraftMessage(*json_line.malformed(f"{block.type} block", "a member is missing", line), parent)
    return DraftMessage("unknown", block_as_it_came(line, position), parent)
