"""Makes texts of agents harmless for a terminal. Owns which characters are replaced, and by what."""

from __future__ import annotations

from typing import Final

_REPLACED: Final[dict[int, str]] = {
    **{code: f"^{chr(code + 64)}" for code in range(32) if chr(code) not in "\n\t"},
    127: "^?",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),  # C1: some terminals obey them like ESC sequences
    # These reorder what is read: a command to be approved must look like what it is (CVE-2021-42574).
    **dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}


def sanitize_text(text: str) -> str:
    """The text with every control character but newline and tab made visible; CRLF counts as a newline."""
    return text.replace("\r\n", "\n").translate(_REPLACED)


def one_line(text: str) -> str:
    """The sanitized text with its whitespace as single spaces."""
    return " ".join(sanitize_text(text).split())
