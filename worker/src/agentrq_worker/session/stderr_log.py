"""A runner's stderr in the worker's log. Owns how much of it: a flood fills neither the disk nor the log of others."""

from __future__ import annotations

import logging
import time
from typing import Final

from agentrq_worker.logs import event
from agentrq_worker.process.pipes import STDERR_LINE
from agentrq_worker.process.redact import Redactor

log = logging.getLogger(__name__)

STDERR_LINES: Final = 100
"""Lines of a runner's stderr that go into the log in a second; the rest is read, counted and left out."""


class StderrLog:
    """One session's part of the log."""

    def __init__(self, session_id: str) -> None:
        self._id = session_id
        self._second, self._lines = 0.0, 0

    def add(self, line: str, redactor: Redactor | None) -> None:
        """Log a line, without the secrets that ``redactor`` knows."""
        now = time.monotonic()
        if now - self._second >= 1:
            if self._lines > STDERR_LINES:
                left_out = self._lines - STDERR_LINES
                said = event("runner_stderr_omitted", lines=left_out)
                log.warning("session %s: %d lines of stderr left out", self._id, left_out, extra=said)
            self._second, self._lines = now, 0
        self._lines += 1
        if self._lines > STDERR_LINES:
            return
        if redactor is not None:
            line = redactor.text(line, STDERR_LINE)
        log.info("session %s: stderr: %s", self._id, line, extra=event("runner_stderr"))
