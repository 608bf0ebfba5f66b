"""Tells systemd that the worker is ready, ends, and still runs (sd_notify(3), sd_watchdog_enabled(3)).

Owns the socket and the protocol. Does not own what the worker's state is (worker.py). Without a service manager all of
it does nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class ServiceManager:
    """The service manager that started this process, if one did and wants to hear of it."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        interval = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_s = int(interval) / 1e6 if ours and interval.isdecimal() else 0.0

    def notify(self, *states: str) -> None:
        """Tell states such as ``READY=1``."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto("\n".join(states).encode(), self._address)
        except OSError as error:  # it may be restarting; a watchdog that misses one gets the next
            log.warning("the service manager cannot be told %s: %s", " ".join(states), error)

    async def keep_alive(self) -> None:
        """Tell the watchdog, if there is one, that the event loop runs, until cancelled."""
        while self._watchdog_s > 0:
            self.notify("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 3)
