"""Lines as Claude Code prints them, in the shapes of tests/transcripts: the input of every throughput figure.

In each line ``########`` stands where a number makes its ids its own (native/flood.c fills it in).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_WORDS: Final = "The parser keeps the tail of a chunk until its newline comes; größer — no byte is “copied” twice. "
_SESSION: Final = "1a1fc116-e9b8-456e-80ee-63d792462574"
_UUID: Final = "226ccc28-a8c4-4843-9389-e228ec874784"
MARK: Final = "########"


def _words(size: int) -> str:
    return (_WORDS * (size // len(_WORDS) + 1))[:size]


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _frame(number: int, block: dict[str, Any]) -> bytes:
    return _line(
        {
            "type": "assistant",
            "message": {
                "id": f"msg_{number:06d}{MARK}", "type": "message", "role": "assistant", "model": "claude-opus-5-5",
                "content": [block], "stop_reason": None, "stop_sequence": None,
                "usage": {"input_tokens": 100, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                          "output_tokens": 1},
                "context_management": None,
            },
            "parent_tool_use_id": None, "session_id": _SESSION, "uuid": _UUID,
            "timestamp": "2026-11-22T06:06:22.521Z", "request_id": "req_d1729499f2914cb0961787dc",
        }
    )  # fmt: skip


def text(number: int, size: int) -> bytes:
    """A whole text of ``size`` characters."""
    return _frame(number, {"type": "text", "text": _words(size)})


def delta(number: int) -> bytes:
    """A token-sized piece of a text."""
    inner = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "I will run i"}}
    return _line({"type": "stream_event", "event": inner, "session_id": _SESSION, "parent_tool_use_id": None,
                  "uuid": _UUID, "api_message_id": f"msg_{number // 100:06d}{MARK}"})  # fmt: skip


def tool_call(number: int) -> bytes:
    """A call of a tool with some input."""
    given = {"file_path": "/srv/work/parser.py", "old_string": _words(300), "new_string": _words(400)}
    return _frame(number, {"type": "tool_use", "id": f"toolu_{number:06d}{MARK}", "name": "Edit", "input": given})


def tool_result(number: int, size: int) -> bytes:
    """What a tool answered: ``size`` characters, lines of a program."""
    program = (
        f"{n:6d}\tdef step_{n}(self, chunk):  # {'größer' if n % 25 == 0 else 'larger'}\n" for n in range(size // 40)
    )
    output = "".join(program)[:size]
    block = {"tool_use_id": f"toolu_{number:06d}{MARK}", "type": "tool_result", "content": output, "is_error": False}
    return _line({"type": "user", "message": {"role": "user", "content": [block]}, "parent_tool_use_id": None,
                  "session_id": _SESSION, "uuid": _UUID, "timestamp": "2026-11-22T06:06:22.582Z"})  # fmt: skip


def _mixed(number: int) -> bytes:
    turn, step = divmod(number, 50)
    if step < 36:
        return delta(number)
    if step < 42:
        return text(number, 400 if step % 2 else 2000)
    call = turn * 50 + step // 2  # a call and its result share the number
    if step % 2 == 0:
        return tool_call(call)
    return tool_result(call, 100_000 if step == 49 and turn % 4 == 0 else 6_000)


CORPORA: Final[dict[str, list[bytes]]] = {
    "small": [text(number, 40) for number in range(1000)],
    "texts": [text(number, 2000) for number in range(400)],
    "deltas": [delta(number) for number in range(1000)],
    "mixed": [_mixed(number) for number in range(400)],
}


def write(directory: Path) -> dict[str, Path]:
    """Each corpus as a file."""
    paths = {name: directory / f"{name}.ndjson" for name in CORPORA}
    for name, path in paths.items():
        path.write_bytes(b"".join(CORPORA[name]))
    return paths
