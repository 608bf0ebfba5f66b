"""Writes to stdout: unbuffered, and silent once its reader has closed the pipe. Owns no format."""

from __future__ import annotations

import sys
from typing import Any

from agentrq.cli.exit_codes import FAILED, CommandFailed, StdoutClosed, abandon
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
        abandon(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise StdoutClosed from None
        raise CommandFailed(FAILED, f"Cannot write to stdout: {error.strerror}") from None
