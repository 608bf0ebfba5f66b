"""The output of an Agent Client Protocol agent as typed messages (schema v1). Pure.

Owns the meaning of its updates, requests and results. Does not own what is written to it (acp/protocol.py), shapes
(acp/wire.py), which call an update is about (tool_calls.py), nor running costs (running_cost.py).

What the format asks of a reader: texts have no end of their own (the next thing ends them); a call's input may come
after the call; the response to the prompt ends the turn, but updates may still come after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from msgspec import UNSET, UnsetType

from agentrq.wire.messages import Compaction, Error, Init, SessionTotal, StatusReport
from agentrq_worker.providers import json_line
from agentrq_worker.providers.acp import approvals as acp_asks
from agentrq_worker.providers.acp.model_and_mode import current_model
from agentrq_worker.providers.acp.tool_calls import ENDED, Call, TurnCalls, parent_of
from agentrq_worker.providers.acp.wire import Params, Result, Update, decode_chunk, decode_result, params_decoder
from agentrq_worker.providers.codex.app_notices import plan
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.jsonrpc.parser import (
    JsonRpcParser,
    MethodReader,
    RpcError,
    RpcLine,
    error_code,
    is_given,
    read_error,
)
from agentrq_worker.providers.parser import INTERRUPTED, NO_TURNS, Spent
from agentrq_worker.providers.running_cost import RunningCost
from agentrq_worker.providers.span_ids import SeenLines
from agentrq_worker.providers.streamed_text import CurrentText

_UNANSWERED = "Interrupted: the turn ended before the tool answered"
_CHUNKS: Final = {"agent_message_chunk": False, "agent_thought_chunk": True}
_ASIDE: Final = frozenset(
    {"available_commands_update", "config_option_update", "session_info_update", "current_mode_update"}
)
"""Updates that may come in the middle of a text or of a call's input."""


class AcpParser(JsonRpcParser):
    """Reads the Agent Client Protocol (schema v1)."""

    _params = params_decoder

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        super().__init__(total, epoch)
        self._update_lines = SeenLines()  # of this turn
        self.replaying = False
        """The agent repeats the session's history: nothing of it is published."""
        self.history_seen = False
        """A piece of the history came since this was last cleared."""
        self.turn = 0
        """Number of the turn under way, or over: no text goes on from one turn into the next."""
        self.cwd: str | None = None
        self.model: str | None = None
        """The start's working directory and model, for the `init` message."""
        self.session: str | None = None
        """The agent's session id."""
        self.running_cost = RunningCost()
        self._began = False
        self._text = CurrentText(epoch)
        self._unpublished: list[Call] = []  # the calls whose input may still come
        self._turn_calls = TurnCalls()
        self._plan = ""
        self._compacted: set[str] = set()

    # -- results

    def _response(self, event: RpcLine, line: bytes) -> list[DraftMessage]:
        if is_given(event.error):
            # The protocol knows which request failed; in a recording it is the prompt, once there is a session.
            return [] if self.driven or self.session is None else self.fail_turn(read_error(event.error))
        try:
            result = decode_result(event.result)
        except (ValueError, RecursionError) as error:
            return [DraftMessage(*json_line.malformed("response", str(error), line))]
        if self.driven:
            return []
        if isinstance(result.stop_reason, str):
            return self.end_turn(result.stop_reason, result)
        if isinstance(result.session_id, str):
            return self.begin(result.session_id, result)
        return []

    def begin(self, session: str, result: Result) -> list[DraftMessage]:
        """The session has been created, or loaded: its `init`, once."""
        self.session = session
        if self._began:
            return []
        self._began = True
        init = Init(
            provider_session_id=session, model=self.model or current_model(result), cwd=json_line.optional(self.cwd)
        )
        return [DraftMessage("init", init)]

    def end_turn(self, reason: str, result: Result) -> list[DraftMessage]:
        """The prompt was answered: the turn has ended for this ``reason`` (the result's ``stopReason``)."""
        usage = json_line.mapping(result.usage)
        if not usage:  # gemini tells it there
            usage = json_line.mapping(json_line.mapping(json_line.mapping(result.meta).get("quota")).get("token_count"))
        drafts = self.close(_UNANSWERED)
        if reason in ("max_tokens", "max_turn_requests"):
            drafts.append(DraftMessage("status", StatusReport(subtype="stop_reason", message=reason)))
        failed = reason in ("refusal", "cancelled")
        drafts.append(self._figures(usage, [f"The turn ended: {reason}"] if failed else UNSET))
        return drafts

    def fail_turn(self, error: RpcError) -> list[DraftMessage]:
        """The prompt was answered with an error: the turn has failed."""
        message = DraftMessage("error", Error(message=error.text, code=error_code(error)))
        return [*self.close(_UNANSWERED), message, self._figures({}, [error.text])]

    def spent(self) -> Spent:
        """Like `OutputParser.spent`: the running cost; tokens are told at the end of a turn."""
        return Spent(self.running_cost.spent)

    def _figures(self, usage: dict[str, Any], errors: list[str] | UnsetType) -> DraftMessage:
        self._forget_requests()
        self._turn_calls.end_turn()
        self._compacted.clear()
        return self._cost(
            self.running_cost.take(),
            json_line.whole(usage.get("inputTokens", usage.get("input_tokens"))),
            json_line.whole(usage.get("outputTokens", usage.get("output_tokens"))),
            num_turns=1,
            is_error=errors is not UNSET,
            errors=errors,
        )

    def finish_texts(self) -> list[DraftMessage]:
        """Like `OutputParser.finish_texts`; calls whose input might still have come are published, too."""
        return [*self._text.end(), *self._publish_calls()]

    def close(self, reason: str = INTERRUPTED) -> list[DraftMessage]:
        """Like `OutputParser.close`; an unfinished text is published as it stands."""
        return [*self.finish_texts(), *super().close(reason)]

    # -- updates

    def _update(self, params: Params, line: bytes) -> list[DraftMessage]:
        update = params.update
        if update is None or not isinstance(update.session_update, str):
            return [DraftMessage(*json_line.malformed("session/update", "it has no update", line))]
        kind = update.session_update
        if kind == "usage_update":
            self._usage(update)
        if self.replaying:
            self.history_seen = self.history_seen or kind not in _ASIDE
            return []
        reader = self._updates.get(kind)
        if reader is None:
            return [*self._text.end(), *self._publish_calls(), DraftMessage(*json_line.unknown(line))]
        if kind in _CHUNKS:
            return [*self._publish_calls(), *reader(self, update, line)]
        if kind == "tool_call_update":
            drafts = reader(self, update, line)
            return [*self._text.end(), *drafts] if drafts else []
        if kind in _ASIDE:
            return reader(self, update, line)
        if kind == "usage_update":  # may come in the middle of a text
            return self._publish_calls()
        return [*self._text.end(), *self._publish_calls(), *reader(self, update, line)]

    def _chunk(self, update: Update, line: bytes) -> list[DraftMessage]:
        thought = _CHUNKS[str(update.session_update)]
        try:
            chunk = decode_chunk(update.content)
        except (ValueError, RecursionError) as error:
            return [DraftMessage(*json_line.malformed(str(update.session_update), str(error), line))]
        if chunk.type != "text":
            return [*self._text.end(), DraftMessage(*json_line.unknown(line))]
        if chunk.text is None:
            return [DraftMessage(*json_line.malformed(str(update.session_update), "its text is missing", line))]
        message = (self.turn, json_line.text(update.message_id))
        return self._text.add(chunk.text, thought, self._parent(update), message)

    def _end_span(self, reason: str, calls: set[str]) -> list[DraftMessage]:
        self._update_lines = SeenLines()
        return super()._end_span(reason, calls)

    def _tool(self, update: Update, line: bytes) -> list[DraftMessage]:
        own_id, kind = update.tool_call_id, str(update.session_update)
        if own_id is None:
            return [DraftMessage(*json_line.malformed(kind, "it has no toolCallId", line))]
        repeated = self._update_lines.see(own_id, line) is True
        call = self._turn_calls.of_update(update, kind == "tool_call", repeated, self._parent(update))
        if call is None:
            return []
        call.update(update)
        status = json_line.text(update.status)
        drafts: list[DraftMessage] = []
        if status in ENDED or status == "in_progress":
            drafts += self._publish_call(call)
        elif not call.published and call not in self._unpublished:
            self._unpublished.append(call)
        if status in ENDED:
            self._result(own_id, call.output(), ENDED[status], call.parent, drafts, line)
            call.ended, call.was_cut = True, False
            call.forget()
        return drafts

    def _parent(self, update: Update) -> str | None:
        own_id = parent_of(update.meta)
        return None if own_id is None else self._call_id(own_id)

    def _publish_call(self, call: Call) -> list[DraftMessage]:
        if call in self._unpublished:
            self._unpublished.remove(call)
        if call.published:
            return []
        call.published = True
        drafts: list[DraftMessage] = []
        self._call(call.own_id, call.name, call.input, call.parent, drafts, None)
        return drafts

    def _publish_calls(self) -> list[DraftMessage]:
        """Publishes the calls whose input is complete, now that something else happens."""
        return [draft for call in list(self._unpublished) for draft in self._publish_call(call)]

    def _usage(self, update: Update) -> None:
        cost = json_line.mapping(update.cost)
        if "amount" not in cost or cost.get("currency", "USD") != "USD":
            return
        self.running_cost.update(json_line.amount(cost.get("amount")), counted=self.replaying)

    def _plans(self, update: Update, line: bytes) -> list[DraftMessage]:
        said = plan(update.entries)
        if said == self._plan:
            return []
        self._plan = said
        return [DraftMessage("status", StatusReport(subtype="plan", message=said))]

    def _mode(self, update: Update, line: bytes) -> list[DraftMessage]:
        return [
            DraftMessage("status", StatusReport(subtype="mode", message=json_line.optional(update.current_mode_id)))
        ]

    def _info(self, update: Update, line: bytes) -> list[DraftMessage]:
        title = json_line.text(update.title)
        return [DraftMessage("status", StatusReport(subtype="session_info", message=title))] if title else []

    def _notice(self, update: Update, line: bytes) -> list[DraftMessage]:
        words = (json_line.text(update.severity), json_line.text(update.title), json_line.text(update.description))
        return [DraftMessage("status", StatusReport(subtype="notice", message=": ".join(filter(None, words))))]

    def _compaction(self, update: Update, line: bytes) -> list[DraftMessage]:
        key, status = json_line.text(update.compaction_id), json_line.text(update.status)
        if status == "completed" and key not in self._compacted:
            self._compacted.add(key)
            return [DraftMessage("compaction", Compaction(trigger="auto"))]
        error = json_line.text(update.error) or json_line.text(json_line.mapping(update.error).get("message"))
        said = ": ".join(filter(None, (status, error)))
        return [DraftMessage("status", StatusReport(subtype="compaction", message=said or UNSET))]

    def _silent(self, update: Update, line: bytes) -> list[DraftMessage]:
        return []

    # -- requests

    def _permission(self, params: Params, line: bytes) -> list[DraftMessage]:
        assert self.event is not None
        tool = params.tool_call
        if tool is None or tool.tool_call_id is None:
            return [DraftMessage(*json_line.malformed(acp_asks.PERMISSION, "it has no tool call", line))]
        call = self._turn_calls.under_way(tool.tool_call_id, None)
        call.update(tool)
        drafts = [*self._text.end(), *self._publish_calls(), *self._publish_call(call)]
        tool_use_id = self._call_id(tool.tool_call_id)
        return [*drafts, acp_asks.permission(self.request_id(self.event.id), call, tool_use_id, params)]

    def _elicitation(self, params: Params, line: bytes) -> list[DraftMessage]:
        assert self.event is not None
        return [*self._text.end(), acp_asks.elicitation(self.request_id(self.event.id), params)]

    def _cancelled(self, params: Params, line: bytes) -> list[DraftMessage]:
        return self._withdraw(params.request_id)

    _updates: ClassVar[Mapping[str, MethodReader]] = {
        "agent_message_chunk": _chunk,
        "agent_thought_chunk": _chunk,
        "user_message_chunk": _silent,
        "tool_call": _tool,
        "tool_call_update": _tool,
        "plan": _plans,
        "usage_update": _silent,
        "current_mode_update": _mode,
        "available_commands_update": _silent,
        "config_option_update": _silent,
        "session_info_update": _info,
        "notice": _notice,
        "compaction_update": _compaction,
        "compaction_summary_chunk": _silent,
    }
    _methods: ClassVar[Mapping[str, MethodReader]] = {"session/update": _update, "$/cancel_request": _cancelled}
    _requests: ClassVar[Mapping[str, MethodReader]] = {
        acp_asks.PERMISSION: _permission,
        acp_asks.ELICITATION: _elicitation,
    }
