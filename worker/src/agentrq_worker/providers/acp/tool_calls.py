"""The tool calls of an ACP agent: one call and one result out of many partial updates. Pure.

Owns what is known of the calls of a turn, and which call an update is about: an agent may use a call's id again once
the call has ended. Does not own public ids (span_ids.py), nor when a call is published (parser.py).
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw

from agentrq_worker.providers import json_line
from agentrq_worker.providers.acp.wire import ToolCallUpdate

ENDED: Final = {"completed": False, "failed": True}
"""The statuses that end a call, and whether as an error."""
_UNDER_WAY: Final = frozenset({"pending", "in_progress"})
_PATHS: Final = ("file_path", "path", "notebook_path")
_COMMANDS: Final = ("command", "commands", "cmd", "script", "argv")


class Call:
    """The known facts of one call; ``own_id`` is the agent's id for it, ``parent`` a sub-agent's call (public id)."""

    def __init__(self, own_id: str = "", parent: str | None = None) -> None:
        self.own_id = own_id
        self.parent = parent
        self.published = False
        self.ended = False
        self.was_cut = False
        """The turn ended before the call did; its result may still come."""
        self.made_again: ToolCallUpdate | None = None
        """The line that began this call, received again after its end: a repeat, or the beginning of another call."""
        self._name = ""
        self._title = ""
        self._kind = ""
        self.forget()

    def forget(self) -> None:
        """Drops input and output, which may be megabytes, once the call has ended."""
        self._input = json_line.ABSENT
        self._output = json_line.ABSENT
        self._content = json_line.ABSENT
        self._locations = json_line.ABSENT

    def update(self, update: ToolCallUpdate) -> None:
        """Applies the changes of an update."""
        self._name = json_line.text(update.name) or self._name or _tool_name(update.meta)
        self._title = json_line.text(update.title) or self._title
        self._kind = json_line.text(update.kind) or self._kind
        self._input = _newer(update.raw_input, self._input)
        self._output = _newer(update.raw_output, self._output)
        self._content = _newer(update.content, self._content)
        self._locations = _newer(update.locations, self._locations)

    @property
    def name(self) -> str:
        """The tool's name where the agent tells it, else the kind of tool, else the title."""
        kind = "" if self._kind == "other" else self._kind
        return self._name or kind or self._title or "tool"

    @property
    def input(self) -> Any:
        """The input as it came, else what the agent shows of the call in its place."""
        return json_line.passed(self._input) if len(self._input) > len(b"{}") else self.shown()

    def shown(self) -> dict[str, Any]:
        """What the agent shows of the call."""
        found: dict[str, Any] = {"title": self._title}
        if self._kind:
            found["kind"] = self._kind
        if self._kind == "execute":
            found["command"] = self._title
        first, further = self._paths()[:1], self._paths()[1:]
        return found | ({"path": first[0]} if first else {}) | ({"shownPaths": further} if further else {})

    def asked(self) -> dict[str, Any]:
        """The input as plain values, with what the agent shows of the call besides: policies are compared with it."""
        given = json_line.value(self._input)
        if not isinstance(given, dict):
            return self.shown() | ({"input": given} if given else {})
        if not given:
            return self.shown()
        found = dict(given)
        if self._kind == "execute" and not any(name in given for name in _COMMANDS):
            found["command"] = self._title
        shown = self._paths()
        if shown and not any(name in given for name in _PATHS):
            found["path"] = shown[0]
        own = [member for member in found.values() if isinstance(member, str)]
        further = [path for path in shown if path not in own]
        return found | ({"shownPaths": further} if further else {})

    def output(self) -> Any:
        """What the tool answered: its own output, else the text of what the agent shows of it."""
        found = json_line.passed_or(self._output, None)
        if found is not None:
            return found
        content = json_line.value(self._content)
        blocks = [json_line.mapping(block) for block in content] if isinstance(content, list) else []
        texts = [json_line.mapping(block.get("content")).get("text") for block in blocks]
        words = [text for text in texts if isinstance(text, str)]
        return "\n".join(words) if len(words) == len(blocks) else json_line.passed(self._content)

    def _paths(self) -> list[str]:
        """The files that the agent shows: where the call works, and of which it shows a change."""
        shown = [json_line.value(self._locations), json_line.value(self._content)]
        places = [json_line.mapping(place) for found in shown if isinstance(found, list) for place in found]
        return list(dict.fromkeys(path for place in places if (path := json_line.text(place.get("path")))))


class TurnCalls:
    """The calls of one turn by the agent's ids, and those that the turn before left open."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}

    def under_way(self, own_id: str, parent: str | None) -> Call:
        """The call that has not ended by this id; a new one where there is none."""
        call = self._calls.get(own_id)
        if call is None or call.ended:
            call = self._calls[own_id] = Call(own_id, parent)
        return call

    def of_update(self, update: ToolCallUpdate, announced: bool, repeated: bool, parent: str | None) -> Call | None:
        """The call that an update is about; None for what adds nothing to a call that has ended.

        ``announced``: the update is a ``tool_call``, which makes a call; ``repeated``: this very line was read before.
        """
        own_id = update.tool_call_id or ""
        call, status = self._calls.get(own_id), json_line.text(update.status)
        if call is None or not call.ended:
            return self.under_way(own_id, parent)
        if repeated:
            if announced:
                call.made_again = update
            return None
        if call.was_cut and not announced:
            return call if status in ENDED else None
        if not announced and call.made_again is None and status not in _UNDER_WAY:
            return None
        again = self.under_way(own_id, parent)
        if call.made_again is not None:
            again.update(call.made_again)
        return again

    def end_turn(self) -> None:
        """Keeps only the calls that have not ended: their results may come late."""
        self._calls = {own_id: call for own_id, call in self._calls.items() if not call.ended}
        for call in self._calls.values():
            call.ended = call.was_cut = True
            call.forget()


def parent_of(meta: Any) -> str | None:
    """The agent's id for the call of the sub-agent that speaks, as claude-agent-acp tells it."""
    return json_line.text(json_line.mapping(json_line.mapping(meta).get("claudeCode")).get("parentToolUseId")) or None


def _tool_name(meta: Any) -> str:
    return json_line.text(json_line.mapping(json_line.mapping(meta).get("claudeCode")).get("toolName"))


def _newer(new: Raw, old: Raw) -> Raw:
    return new if json_line.passed_or(new, None) is not None else old
