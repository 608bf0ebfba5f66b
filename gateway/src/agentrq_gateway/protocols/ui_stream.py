"""A run as Vercel AI SDK's UI message stream, version 1: events in, chunks out.

The chunks are those of the npm package `ai`, 6 and 7 (`ui-message-stream/ui-message-chunks.ts`); only what both
versions know is sent. Every chunk but those of live pieces depends on kept events only, so its index does not change
from one reading to the next. Owns the order of chunks and the steps of tool calls; does no IO.

The client's own `lastAssistantMessageIsCompleteWithApprovalResponses` looks at the last step alone, and sends nothing
while a call of that step has neither a result nor an answer. So a step shows at most one call that is not asked about;
calls made beside it are shown when it has its result, or when they are asked about. Calls that are asked about share
the last step.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import to_builtins

from agentrq import Event, Message
from agentrq.wire.codec import encode
from agentrq.wire.messages import (
    ApprovalRequest,
    ApprovalResolved,
    Compaction,
    Cost,
    Error,
    Init,
    Prompt,
    Question,
    RateLimit,
    StatusReport,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolResult,
)
from agentrq_gateway.protocols.run import Ending, Run
from agentrq_gateway.protocols.text_blocks import BlockStep, TextBlocks

Chunk = dict[str, Any]

QUESTION_TOOL: Final = "question"
"""The name of the tool that a question is shown as; its output is the answer."""
_FINISH_REASONS: Final = {"done": "stop", "failed": "error", "interrupted": "other", "waiting": "tool-calls"}


class UIMessageStream:
    """The chunks of one run. `see` takes every event of the session from the run's origin on, live pieces too."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._blocks = TextBlocks()
        self._started = False
        self._shown: set[str] = set()
        """Calls that have their part, over all of the turn."""
        self._step_open = False
        self._step_has_call = False
        self._running: str | None = None
        """The call of this step that has no result yet, and is not asked about."""
        self._asked: set[str] = set()
        """The calls of this step that wait for an answer."""
        self._deferred: dict[str, Chunk] = {}
        self._denied: set[str] = set()
        self._call_of: dict[str, str] = {}
        """Request → the call it is about."""

    def see(self, event: Event) -> list[Chunk]:
        """The chunks that an event adds. After the run's ending: none."""
        if self._run.is_over():
            return []
        if event.cursor is None:
            return self._see_piece(event) if self._started else []
        shown = self._run.see(event)
        chunks = self._start() if self._run.begun else []
        if isinstance(event, Message):
            made = self._see_message(event)  # before its beginning too: what is shown already matters later
            chunks += made if shown else []
        return chunks + self._finish()

    def settle(self, status: str) -> list[Chunk]:
        """The chunks of a run of which, with this status of the session, nothing more comes by itself."""
        if self._run.is_over():
            return []
        self._run.settle(status)
        return [] if not self._run.is_over() else self._start() + self._finish()

    def gone(self, message: str) -> list[Chunk]:
        """The chunks of a run whose events are not there any more."""
        if self._run.is_over():
            return []
        self._run.gone(message)
        return self._start() + self._finish()

    def _start(self) -> list[Chunk]:
        if self._started:
            return []
        self._started = True
        self._step_open = self._step_has_call = False
        return [{"type": "start", "messageId": f"turn-{self._run.key}"}]

    def _finish(self) -> list[Chunk]:
        ending = self._run.ending
        if ending is None:
            return []
        chunks = self._to_chunks(self._blocks.close_all(), {})
        if ending.kind == "failed":
            chunks.append({"type": "error", "errorText": ending.message or "failed"})
        elif ending.kind == "interrupted":
            chunks.append({"type": "abort", "reason": ending.message or "interrupted"})
        finish: Chunk = {"type": "finish", "finishReason": _FINISH_REASONS[ending.kind]}
        if ending.cost is not None:
            finish["messageMetadata"] = {"agentrq": _figures(ending)}
        return [*chunks, *self._end_step(), finish]

    # -- texts

    def _see_piece(self, message: Message) -> list[Chunk]:
        content = message.content
        if not isinstance(content, TextDelta | ThinkingDelta):
            return []
        kind = "text" if isinstance(content, TextDelta) else "reasoning"
        name = f"{kind} {content.block_id}"
        steps = self._blocks.piece(name, content.offset, content.text, content.abandoned)
        return self._to_chunks(steps, _about(message))

    def _whole(self, kind: str, content: Text | Thinking, message: Message) -> list[Chunk]:
        block = content.block_id if isinstance(content.block_id, str) else message.cursor
        return self._to_chunks(self._blocks.whole(f"{kind} {block}", content.text), _about(message))

    def _to_chunks(self, steps: list[BlockStep], about: Chunk) -> list[Chunk]:
        chunks: list[Chunk] = []
        for step in steps:
            kind, _, block = step.block.partition(" ")
            if step.kind == "open":
                chunks += self._begin_step() if not self._step_open else []
                chunks.append({"type": f"{kind}-start", "id": block, **about})
            elif step.kind == "text":
                chunks.append({"type": f"{kind}-delta", "id": block, "delta": step.text})
            else:
                given_up = {"providerMetadata": {"agentrq": {"abandoned": True}}} if step.abandoned else {}
                chunks.append({"type": f"{kind}-end", "id": block, **given_up})
        return chunks

    # -- everything else

    def _see_message(self, message: Message) -> list[Chunk]:
        content = message.content
        if isinstance(content, Text | Thinking):
            return self._whole("text" if isinstance(content, Text) else "reasoning", content, message)
        # A call within which others are made is not asked about any more.
        freed = [] if message.parent_id is None else self._free(message.parent_id)
        if isinstance(content, ToolCall):
            return freed + self._call(content, message)
        if isinstance(content, ToolResult):
            return freed + self._result(content)
        if isinstance(content, ApprovalRequest):
            return freed + self._request(content, message)
        if isinstance(content, Question):
            return freed + self._question(content, message)
        if isinstance(content, ApprovalResolved):
            return freed + self._resolved(content)
        return freed + self._other(message)

    def _other(self, message: Message) -> list[Chunk]:
        content = message.content
        if isinstance(content, Init):
            return [{"type": "message-metadata", "messageMetadata": {"agentrq": to_builtins(content)}}]
        if isinstance(content, Cost) or message.cursor == self._run.key:
            return []  # told by the finish; the prompt that this responds to
        kept = isinstance(content, Error | Prompt)
        known = isinstance(content, Compaction | RateLimit | StatusReport) or kept
        chunk = {"type": f"data-agentrq-{message.type if known else 'unknown'}", "data": to_builtins(content)}
        return [chunk | {"id": message.cursor}] if kept else [chunk | {"transient": True}]

    # -- steps

    def _begin_step(self) -> list[Chunk]:
        ended = self._end_step()
        self._step_open, self._step_has_call, self._running = True, False, None
        return [*ended, {"type": "start-step"}]

    def _end_step(self) -> list[Chunk]:
        # Version 6 forgets open texts at the end of a step.
        return [{"type": "finish-step"}] if self._step_open and not self._blocks.open else []

    def _present(self, chunk: Chunk, anew: bool) -> list[Chunk]:
        """Show a call, in a new step where it has to be ``anew``."""
        step = self._begin_step() if anew or not self._step_open else []
        self._step_has_call = True
        return [*step, chunk]

    def _free(self, call: str) -> list[Chunk]:
        """A call has what it waited for: show the next one, if any."""
        self._asked.discard(call)
        if self._running == call:
            self._running = None
        if self._asked or self._running is not None or not self._deferred:
            return []
        following = next(iter(self._deferred))
        shown = self._present(self._deferred.pop(following), anew=True)
        self._running = following
        return shown

    # -- tool calls

    def _call(self, content: ToolCall, message: Message) -> list[Chunk]:
        call = content.tool_use_id
        if call in self._shown:
            return []
        chunk = self._make_call(call, content.name, content.input, message, _EXECUTED)
        if self._asked or self._running is not None:
            self._deferred[call] = chunk
            return []
        shown = self._present(chunk, anew=self._step_has_call)
        self._running = call
        return shown

    def _make_call(self, call: str, name: str, given: Any, message: Message, executed: Chunk) -> Chunk:
        self._shown.add(call)
        about = {"dynamic": True, **executed, **_about(message)}
        return {
            "type": "tool-input-available",
            "toolCallId": call,
            "toolName": name,
            "input": to_builtins(given),
            **about,
        }

    def _result(self, content: ToolResult) -> list[Chunk]:
        call = content.tool_use_id
        chunks = [self._deferred.pop(call)] if call in self._deferred else []
        if call in self._shown and call not in self._denied:
            chunks.append(_output(call, to_builtins(content.output), content.is_error))
        return chunks + self._free(call)

    def _request(self, content: ApprovalRequest, message: Message) -> list[Chunk]:
        call = content.tool_use_id if isinstance(content.tool_use_id, str) else content.request_id
        self._call_of[content.request_id] = call
        chunks: list[Chunk] = []
        if call == self._running:
            self._running = None
        else:
            # Not shown yet, or in a step that is over: the last one has to have it.
            chunk = self._deferred.pop(call, None)
            chunk = chunk or self._make_call(call, content.name, content.input, message, _EXECUTED)
            chunks = self._present(chunk, anew=self._running is not None or (self._step_has_call and not self._asked))
        self._asked.add(call)
        return [*chunks, {"type": "tool-approval-request", "approvalId": content.request_id, "toolCallId": call}]

    def _question(self, content: Question, message: Message) -> list[Chunk]:
        asked = {"questions": content.questions}
        chunk = self._make_call(content.request_id, QUESTION_TOOL, asked, message, {})
        chunks = self._present(chunk, anew=self._running is not None or (self._step_has_call and not self._asked))
        self._asked.add(content.request_id)
        return chunks

    def _resolved(self, content: ApprovalResolved) -> list[Chunk]:
        request = content.request_id
        call = self._call_of.get(request, request)
        chunks: list[Chunk] = []
        if request not in self._call_of:  # a question; the client that answered it has its own output already
            if request in self._shown and content.by != "client":
                chunks = [{"type": "tool-output-available", "toolCallId": request, "output": content.decision}]
        elif content.decision == "deny":
            self._denied.add(call)
            chunks = [{"type": "tool-output-denied", "toolCallId": call}]
        elif call == request:  # no call of the agent's: nothing else will say what became of it
            chunks = [_output(call, content.decision, content.decision != "allow")]
        return chunks + self._free(call)


_EXECUTED: Final[Chunk] = {"providerExecuted": True}


def _output(call: str, output: Any, is_error: bool) -> Chunk:
    if not is_error:
        return {"type": "tool-output-available", "toolCallId": call, "output": output, **_EXECUTED}
    text = output if isinstance(output, str) else encode(output).decode()
    return {"type": "tool-output-error", "toolCallId": call, "errorText": text, **_EXECUTED}


def _about(message: Message) -> Chunk:
    return {} if message.parent_id is None else {"providerMetadata": {"agentrq": {"parentId": message.parent_id}}}


def _figures(ending: Ending) -> Chunk:
    figures: Chunk = to_builtins(ending.cost)
    return {name: value for name, value in figures.items() if name != "result"}
