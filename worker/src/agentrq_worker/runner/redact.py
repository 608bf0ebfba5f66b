"""Known secrets in what a runner prints. Owns their forms and the replacing. Does NOT own which values are secrets.

Whole lines of bytes, before anything reads them. A secret is found as it is, as JSON writes it, and as JSON inside JSON
writes it; not in base64, not where a runner spells it in pieces (several messages, one of them a token).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

SHORTEST: Final = 8
"""Bytes; a shorter value is not redacted: it would be found in words and numbers that have nothing to do with it."""
MARK: Final = b"[redacted]"


class Redactor:
    """Replaces known values; ``count`` says how often. False when there is nothing to look for."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[bytes] = set()
        for secret in secrets:
            # A PEM key printed raw comes line by line.
            for part in (secret, *secret.splitlines()):
                if len(part.encode("utf-8", "surrogateescape")) >= SHORTEST:
                    forms |= _forms(part)
        self._forms = sorted(forms, key=len, reverse=True)  # a secret within another: the longer first
        self._longest = len(self._forms[0]) if self._forms else 0
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

    def text(self, text: str, limit: int | None = None) -> str:
        """As `line`, for a log; a text cut at ``limit`` bytes loses its end, where half a secret may be."""
        data = text.encode("utf-8", "surrogateescape")
        cut = limit is not None and len(data) >= limit - 3  # a character cut in two is longer or shorter than it was
        clean = self.line(data)
        if cut:
            clean = clean[: max(len(clean) - self._longest, 0)]
        return clean.decode("utf-8", "replace")


def _forms(secret: str) -> set[bytes]:
    forms = {secret}
    for _ in range(2):
        forms |= {json.dumps(form, ensure_ascii=ascii_only)[1:-1] for form in forms for ascii_only in (True, False)}
    forms |= {form.replace("/", "\\/") for form in forms}
    forms |= {_capital(form) for form in forms}
    return {form.encode("utf-8", "surrogateescape") for form in forms}


def _capital(form: str) -> str:
    r"""``\u00e9`` as other encoders write it: ``\u00E9``."""
    first, *others = form.split("\\u")
    return first + "".join("\\u" + part[:4].upper() + part[4:] for part in others)
