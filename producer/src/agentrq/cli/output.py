"""Writing to stdout: bytes at once, and quiet when its reader has gone. Owns no format."""

from __future__ import annotations

import os
import sys
from typing import Any

from agentrq.cli.exits import FAILED, CommandFailed, StdoutClosed
from agentrq.wire.codec import encode


def put(text: str) -> None:
    """Write text and flush it: whoever follows a session through a pipe waits for it."""
    put_bytes(text.encode(sys.stdout.encoding or "utf-8", "replace"))


def put_json(value: Any) -> None:
    """Write one JSON object as a line, encoded as on the wire."""
    put_bytes(encode(value) + b"\n")


def put_bytes(data: bytes) -> None:
    """Write bytes and flush. Raises `StdoutClosed`, and `CommandFailed` if they cannot be written."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        _abandon()
        if isinstance(error, BrokenPipeError):
            raise StdoutClosed from None
        raise CommandFailed(FAILED, f"Cannot write to stdout: {error.strerror}") from None


def _abandon() -> None:
    """Send what is buffered nowhere: the interpreter's own flush at its end would fail once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
