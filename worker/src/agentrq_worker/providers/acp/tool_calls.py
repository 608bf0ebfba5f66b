"""The tool calls of an ACP agent: one call and one result out of many partial updates. Pure.

Owns what is known of the calls under way, and when a call's input is complete. A call may be announced before its
input is known, which then comes in updates: it is said once something else happens, or once it runs.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw

from agentrq_worker.providers import json_line
from agentrq_worker.providers.acp.wire import ToolCallUpdate

ENDED: Final = {"completed": False, "failed": True}
"""The statuses that end a call, and whether as an error."""
_PATHS: Final = ("file_path", "path", "notebook_path")


class Call:
    """What is known of one call."""

    def __init__(self, call_id: str, parent: str | None) -> None:
        self.id = call_id
        self.parent = parent
        self.said = False
        self._name = ""
        self._title = ""
        self._kind = ""
        self.forget()

    def forget(self) -> None:
        """It is over: let go of what may be megabytes, long before the turn is."""
        self._input = json_line.ABSENT
        self._output = json_line.ABSENT
        self._content = json_line.ABSENT
        self._locations = json_line.ABSENT

    def update(self, update: ToolCallUpdate) -> None:
        """Take in what has changed."""
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
        if path := self._path():
            found["path"] = path
        return found

    def asked(self) -> dict[str, Any]:
        """The input as plain values, with a path where one is known: policies look into it."""
        given = json_line.value(self._input)
        if not isinstance(given, dict) or not given:
            return self.shown()
        path = self._path()
        return given if not path or any(name in given for name in _PATHS) else given | {"path": path}

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

    def _path(self) -> str:
        found = json_line.value(self._locations)
        first = found[0] if isinstance(found, list) and found else None
        return json_line.text(json_line.mapping(first).get("path"))


def parent_of(meta: Any) -> str | None:
    """The call of the sub-agent that speaks, as claude-agent-acp tells it."""
    return json_line.text(json_line.mapping(json_line.mapping(meta).get("claudeCode")).get("parentToolUseId")) or None


def _tool_name(meta: Any) -> str:
    return json_line.text(json_line.mapping(json_line.mapping(meta).get("claudeCode")).get("toolName"))


def _newer(new: Raw, old: Raw) -> Raw:
    return new if json_line.passed_or(new, None) is not None else old
