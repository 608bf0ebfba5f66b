"""Finds known secrets in what a runner prints, and replaces them.

Owns the forms of a secret: as it is, as JSON writes it, as JSON inside JSON writes it, and within base64 (Basic
authentication, `base64`), in no other coding. Does not own which values are secrets (session/launch_plan.py), nor when
pieces of a text are put together (stream/message_redactor.py).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

SHORTEST: Final = 8
"""Bytes; a shorter value is not redacted: it would be found in words and numbers that have nothing to do with it."""
MARK: Final = b"[redacted]"


class Redactor:
    """Replaces known values; ``count`` says how often. False when there are no secrets."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[bytes] = set()
        for secret in secrets:
            # A PEM key printed raw comes line by line.
            for part in (secret, *secret.splitlines()):
                if len(part.encode("utf-8", "surrogateescape")) >= SHORTEST:
                    forms |= _forms(part)
                    forms.update(_in_base64(part.encode("utf-8", "surrogateescape")))
        self._forms = sorted(forms, key=len, reverse=True)  # a secret within another: the longer first
        self._longest = len(self._forms[0]) if self._forms else 0
        self._by_first_byte: dict[int, list[bytes]] = {}
        for form in self._forms:
            self._by_first_byte.setdefault(form[0], []).append(form)
        self.count = 0

    def __bool__(self) -> bool:
        return bool(self._forms)

    def line(self, line: bytes) -> bytes:
        """The line without them; the same object where there are none."""
        for form in self._forms:
            if form in line:
                self.count += line.count(form)
                line = line.replace(form, MARK)
        return line

    def json(self, line: bytes) -> bytes:
        """Like `line`, but what is JSON stays JSON: where a secret is a number, only texts are searched for it."""
        clean = self.line(line)
        if clean is line or _is_json(clean):
            return clean
        try:
            return json.dumps(self._in_texts(json.loads(line))).encode()
        except (ValueError, RecursionError):  # it was not JSON before
            return clean

    def _in_texts(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._in_texts(item) for item in value]
        if isinstance(value, dict):
            return {self.text(name): self._in_texts(item) for name, item in value.items()}
        return value

    def settled(self, data: bytes) -> int:
        """How many bytes of a text that still grows end before every secret that is not whole yet."""
        cut = len(data)
        for at in range(max(0, cut - self._longest + 1), cut):
            forms = self._by_first_byte.get(data[at], ())
            if any(len(form) > cut - at and form.startswith(data[at:]) for form in forms):
                cut = at
                break
        while cut < len(data):  # a whole secret that stands across the cut waits as well
            start = min(self._start_across(form, data, cut) for form in self._forms)
            if start == cut:
                break
            cut = start
        return cut

    def _start_across(self, form: bytes, data: bytes, cut: int) -> int:
        """Where a whole secret begins that stands across the cut; the cut itself where there is none."""
        start = data.find(form, max(0, cut - len(form) + 1), cut + len(form) - 1)
        return cut if start < 0 else min(start, cut)

    def text(self, text: str, limit: int | None = None) -> str:
        """Like `line`, for a log; a text cut at ``limit`` bytes also loses its end, which may be half a secret."""
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half a character, as JSON can write it
            data = text.encode("utf-8", "replace")
        cut = limit is not None and len(data) >= limit - 3  # a character cut in two is longer or shorter than it was
        clean = self.line(data)
        if cut:
            clean = clean[: max(len(clean) - self._longest, 0)]
        return clean.decode("utf-8", "replace")


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _forms(secret: str) -> set[bytes]:
    forms = {secret}
    for _ in range(2):
        forms |= {json.dumps(form, ensure_ascii=ascii_only)[1:-1] for form in forms for ascii_only in (True, False)}
    forms |= {form.replace("/", "\\/") for form in forms}
    forms |= {_capital(form) for form in forms}
    return {form.encode("utf-8", "surrogateescape") for form in forms}


def _in_base64(secret: bytes) -> Iterator[bytes]:
    """What base64 makes of it wherever it stands in what is coded: the characters that it alone decides."""
    for before in range(3):
        coded = base64.b64encode(bytes(before) + secret)
        end = len(coded) if (before + len(secret)) % 3 == 0 else -4  # what follows shares the last group
        own = coded[4 if before else 0 : end]
        if len(own) >= SHORTEST:
            yield from (own, own.replace(b"+", b"-").replace(b"/", b"_"), own.replace(b"/", b"\\/"))


def _capital(form: str) -> str:
    r"""``\u00e9`` as other encoders write it: ``\u00E9``."""
    first, *others = form.split("\\u")
    return first + "".join("\\u" + part[:4].upper() + part[4:] for part in others)
