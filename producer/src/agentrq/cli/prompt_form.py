"""A form for one request of an agent, filled in by keys. Pure: keys go in, an answer comes out.

An approval is decided by one key; a question by the number of an option or a line of text, its parts one after the
other. The forms of answers are those of docs/reference/approvals.md.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from agentrq.cli.terminal_renderer import cells
from agentrq.client.pending_requests import OpenRequest
from agentrq.wire.messages import ApprovalRequest

ENTER: Final = frozenset("\r\n")
ESCAPE: Final = "\x1b"
RUBOUT: Final = frozenset("\x7f\b")
KILL: Final = "\x15"
FORM: Final = "0"
"""The id of the question that an elicited form is."""


class Form:
    """``answer`` is set once the form is complete; ``left`` is true once the person leaves the request to others."""

    def __init__(self, request: OpenRequest, by: str) -> None:
        self.request = request
        self.answer: Any = None
        self.left = False
        self.asks_anew = False
        """The last key changed what is asked: show `hint` again."""
        self.typed = ""
        """The line typed so far."""
        self._by = by
        self._message = False  # a denial's message is being typed
        self._given: dict[str, Any] = {}
        self._at = 0
        parts = [] if isinstance(request, ApprovalRequest) else request.questions
        self._parts: list[dict[str, Any]] = [part if isinstance(part, dict) else {} for part in parts]
        self._fields = _fields(self._parts[0]) if len(self._parts) == 1 else []
        """An elicited form is one question whose answer is an object: each field is asked on its own."""
        self._parts = self._fields or self._parts

    @property
    def shown(self) -> str:
        """The typed line as it is shown: a secret as dots."""
        return "•" * len(self.typed) if self._part.get("isSecret") is True else self.typed

    @property
    def _part(self) -> dict[str, Any]:
        return self._parts[self._at] if self._at < len(self._parts) else {}

    @property
    def _options(self) -> list[str]:
        options = self._part.get("options")
        found = options if isinstance(options, list) else []
        return [str(option.get("label", option) if isinstance(option, dict) else option) for option in found]

    def hint(self) -> list[str]:
        """Lines that say what can be answered now, and with which keys."""
        if isinstance(self.request, ApprovalRequest):
            if self._message:
                return ["Why not? Enter sends it, Esc goes back."]
            always = "[A] always allow the like  " if self.request.suggestions else ""
            return [f"[a] allow  [d] deny  [m] deny and say why  {always}[Esc] leave it"]
        options, lines = self._options, list[str]()
        if len(self._parts) > 1:
            asked = self._part.get("question") or self._part.get("header") or ""
            lines.append(f"Question {self._at + 1} of {len(self._parts)}: {asked}")
        lines += [f"[{number}] {label}" for number, label in enumerate(options, 1)]
        several = "one or more numbers, or a text, and Enter" if self._by_line else "a number, or a text and Enter"
        skip = "Enter alone leaves it out; " if self._part.get("optional") is True else ""
        lines.append(f"Answer by {several if options else 'a text and Enter'}; {skip}[Esc] leave it")
        return lines

    @property
    def _by_line(self) -> bool:
        """Whether options are chosen by a line of numbers: several, or more than there are digits."""
        return self._part.get("multiSelect") is True or len(self._options) > 9

    def press(self, key: str) -> str:
        """Take one key; returns the text to echo."""
        self.asks_anew = False
        if isinstance(self.request, ApprovalRequest) and not self._message:
            self._decide(key, self.request)
            return ""
        if key == ESCAPE:
            self.typed = ""
            self.left, self.asks_anew = not self._message, self._message
            self._message = False
            return ""
        if key in ENTER:
            self._line()
            return ""
        if key in RUBOUT or key == KILL:
            count = len(self.typed) if key == KILL else 1
            gone, self.typed = self.shown[-count:], self.typed[:-count]
            return "\b \b" * cells(gone)
        if self._options and not self.typed and not self._message and not self._by_line and "1" <= key <= "9":
            if int(key) > len(self._options):
                return ""
            label = self._options[int(key) - 1]
            self._take(label)
            return label
        if not key.isprintable():
            return ""
        self.typed += key
        return self.shown[-1]

    def _decide(self, key: str, request: ApprovalRequest) -> None:
        if key == "a":
            self.answer = {"decision": "allow", "by": self._by}
        elif key == "A" and request.suggestions:
            self.answer = {"decision": "allow", "always": True, "by": self._by}
        elif key == "d":
            self.answer = {"decision": "deny", "by": self._by}
        elif key == "m":
            self._message = self.asks_anew = True
        elif key == ESCAPE:
            self.left = True

    def _line(self) -> None:
        text, self.typed = self.typed.strip(), ""
        if text and self._message:
            self.answer = {"decision": "deny", "message": text, "by": self._by}
        elif text:
            self._take(self._chosen(text) if self._by_line else text)
        elif self._part.get("optional") is True:
            self._next()

    def _chosen(self, text: str) -> Any:
        """The labels for a line of option numbers; any other text unchanged."""
        numbers = text.replace(",", " ").split()
        options = self._options
        if not all(number.isdecimal() and 1 <= int(number) <= len(options) for number in numbers):
            return text
        labels = [options[int(number) - 1] for number in numbers]
        return labels if self._part.get("multiSelect") is True else labels[0]

    def _take(self, said: Any) -> None:
        """Store the answer to the current part."""
        self._given[str(self._part.get("id", self._at))] = _typed(self._part.get("type"), said)
        self._next()

    def _next(self) -> None:
        self._at += 1
        if self._at >= len(self._parts):
            given = {FORM: self._given} if self._fields else self._given
            self.answer = {"answers": given, "by": self._by}
        else:
            self.asks_anew = True


def _fields(part: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of an elicited form as questions of their own; none for any other question."""
    schema = part.get("requestedSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or not isinstance(properties, dict):
        return []
    required = schema.get("required")
    return [
        {
            "id": name,
            "question": " - ".join(str(field[key]) for key in ("title", "description") if field.get(key)) or name,
            "options": field.get("enum") or ([True, False] if field.get("type") == "boolean" else None),
            "type": field.get("type"),
            "optional": isinstance(required, list) and name not in required,
        }
        for name, field in ((name, field if isinstance(field, dict) else {}) for name, field in properties.items())
    ]


def _typed(kind: Any, said: Any) -> Any:
    """The text as its field's type; unchanged if it does not fit: the agent says what is wrong with it."""
    if kind == "boolean" and str(said).lower() in ("true", "false"):
        return str(said).lower() == "true"
    for wanted, read in (("integer", int), ("number", float)):
        if kind == wanted:
            with contextlib.suppress(ValueError):
                return read(said)
    return said
