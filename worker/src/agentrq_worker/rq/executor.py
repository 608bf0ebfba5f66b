"""The one thread on which all synchronous RQ calls run, so that RQ's own state is never raced. Knows nothing of RQ."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from agentrq_worker.redis_retry import retry_outages

T = TypeVar("T")


class RqThread:
    """Calls in order, each again until Redis answers."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "rq")

    async def __call__(self, call: Callable[..., T], *args: Any, **named: Any) -> T:
        """Run ``call`` there; an outage is waited out, any other error is raised."""
        loop, bound = asyncio.get_running_loop(), functools.partial(call, *args, **named)
        return await retry_outages(lambda: loop.run_in_executor(self._executor, bound), timeout_s=None)

    def close(self) -> None:
        """Wait for the call that runs, take no other."""
        self._executor.shutdown(cancel_futures=True)
