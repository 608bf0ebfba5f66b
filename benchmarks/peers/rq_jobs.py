"""Jobs of a stock RQ worker: one says when it started, one stays."""

from __future__ import annotations

import time


def started() -> int:
    """The monotonic clock of the job's first statement, in ns."""
    return time.monotonic_ns()


def stay(seconds: float) -> None:
    """A session that is idle."""
    time.sleep(seconds)
