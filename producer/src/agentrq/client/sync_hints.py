"""Hints over Redis pub/sub for one thread: one connection for all the sessions that it follows.

Owns that connection, its reconnects and which session gets which hint; for asyncio this is pubsub_hub.py.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

import redis

from agentrq.client.pubsub_hub import BACKOFF_S, PING_S, HintSink
from agentrq.connection import is_outage
from agentrq.wire.keys import Keys

log = logging.getLogger("agentrq.client.sync_hints")

CHANNELS_AT_ONCE: Final = 1000
"""Channels that one command names."""
HINTS_AT_ONCE: Final = 1000
"""Hints that are taken before anything else is done."""


class SyncHints:
    """The subscription of one follower. It is made when it is first waited for, and again after it was lost."""

    def __init__(self, live: redis.Redis, keys: Keys) -> None:
        self._live = live
        self._keys = keys
        self._sinks: dict[bytes, tuple[bool, HintSink]] = {}
        self._pubsub: Any = None
        self._failures = 0
        self._due = 0.0
        """When (monotonic) the next connection may be made."""
        self._heard_at = 0.0
        self._pinged_at: float | None = None

    def attach(self, sinks: Mapping[str, HintSink]) -> None:
        """Have each session's hints go to its sink; nobody else's."""
        channels = [channel for session_id in sinks for channel in self._channels(session_id)]
        for session_id, sink in sinks.items():
            messages, status = self._channels(session_id)
            self._sinks[messages], self._sinks[status] = (False, sink), (True, sink)
        self._send("subscribe", channels)

    def detach(self, session_id: str) -> None:
        """No hints of this session any more."""
        channels = self._channels(session_id)
        for channel in channels:
            self._sinks.pop(channel, None)
        self._send("unsubscribe", channels)

    def hear(self, wait: float) -> None:
        """Hand out what has come; wait up to so many seconds for the first of it."""
        if not self._sinks:
            self.close()
        now = time.monotonic()
        if not self._sinks or (self._pubsub is None and now < self._due):
            time.sleep(wait)
            return
        try:
            if self._pubsub is None:
                self._pubsub = self._live.pubsub()
                self._heard_at, self._pinged_at = now, None
                self._send("subscribe", list(self._sinks))
            for _ in range(HINTS_AT_ONCE):
                message = self._pubsub.get_message(timeout=wait)
                if message is None:
                    break
                wait = 0.0
                self._heard_at, self._pinged_at, self._failures = time.monotonic(), None, 0
                self._dispatch(message)
            self._check_alive()
        except (redis.RedisError, OSError) as error:
            if not is_outage(error):
                log.warning("the Pub/Sub connection failed, streams are polled until it is back: %s", error)
            self.close()
            self._failures += 1
            self._due = time.monotonic() + BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]

    def close(self) -> None:
        """Close the connection; it is made again if somebody goes on waiting."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            pubsub.close()

    def _channels(self, session_id: str) -> list[bytes]:
        # The status channel last: when it is subscribed, both are.
        return [self._keys.messages_channel(session_id).encode(), self._keys.status_channel(session_id).encode()]

    def _send(self, verb: str, channels: list[bytes]) -> None:
        if self._pubsub is None:
            return  # when it is connected, it subscribes to all
        with contextlib.suppress(redis.RedisError, OSError):  # noticed when the next hint is waited for
            for at in range(0, len(channels), CHANNELS_AT_ONCE):
                getattr(self._pubsub, verb)(*channels[at : at + CHANNELS_AT_ONCE])

    def _check_alive(self) -> None:
        now = time.monotonic()
        if self._pinged_at is not None and now - self._pinged_at > PING_S:
            raise redis.ConnectionError("no answer to PING on the subscription")
        if self._pinged_at is None and now - self._heard_at > PING_S:
            self._pubsub.ping()
            self._pinged_at = now

    def _dispatch(self, message: dict[str, Any]) -> None:
        is_status, sink = self._sinks.get(message["channel"], (False, None))
        if sink is None:
            return
        if message["type"] == "message":
            sink.put(is_status, message["data"])
        elif message["type"] == "subscribe" and is_status:
            sink.on_subscribed()
