"""Waiting in a synchronous test for what sends no news: it is asked again until it holds."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_S = 30.0


def wait_until(condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Return once the condition holds; fails after ``limit_s`` seconds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s:g} s in vain"
        time.sleep(0.02)
