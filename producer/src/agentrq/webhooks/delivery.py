"""Delivers the feed to one endpoint: page after page, each session's entries in order, at least once.

Owns attempts, back-off and what is given up on. A page's sessions are served at the same time; the endpoint's place
moves when the page is done, so that a process that dies has its successor repeat at most that page.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final

from agentrq.client import AgentClient
from agentrq.client.feed_reader import FeedReader
from agentrq.client.redis_requests import Operation, T
from agentrq.errors import RedisUnavailable
from agentrq.webhooks import places
from agentrq.webhooks.message import WebhookMessage, make_message
from agentrq.webhooks.sender import Failure, post
from agentrq.webhooks.settings import Endpoint
from agentrq.wire.feed import FeedEntry, FeedGap

log = logging.getLogger(__name__)

BACKOFF_S: Final = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
REFUSED_ATTEMPTS: Final = 3
"""An endpoint that refuses a message (HTTP 4xx, or a redirect) is asked so often; others wait behind it as little."""
RENEW_S: Final = places.LEASE_S / 3
STANDBY_S: Final = 2.0
WATCH_S: Final = 0.5


class LeaseLost(Exception):
    """Another process serves the endpoint now."""


class Delivery:
    """One endpoint, served by this process while it has the lease. ``stop`` ends it soon."""

    def __init__(
        self, client: AgentClient, name: str, endpoint: Endpoint, secret: bytes, stop: threading.Event
    ) -> None:
        self._client = client
        self._name = name
        self._endpoint = endpoint
        self._secret = secret
        self._stop = stop
        self._token = secrets.token_hex(8)
        self._renewed = 0.0
        self._leave = threading.Event()
        """This process is to stop, or has lost the lease."""

    def run(self, *, once: bool) -> None:
        """Deliver until stopped; ``once``: until there is nothing more now, or another process serves the endpoint.

        Goes on through an outage of Redis, unless ``once``: then raises `RedisUnavailable`.
        """
        while not self._stop.is_set():
            try:
                if self._call(places.take_lease(self._client.context, self._name, self._token)):
                    self._serve(once)
                if once:
                    return
            except LeaseLost:
                log.warning("endpoint %s: another process serves it now", self._name)
            except RedisUnavailable as error:
                if once:
                    raise
                log.warning("endpoint %s: %s", self._name, error)
            self._stop.wait(STANDBY_S)

    def resend(self) -> int:
        """Try each dead letter once more, the oldest first; returns how many were delivered."""
        context, delivered = self._client.context, 0
        for letter in self._call(places.read_dead_letters(context, self._name, places.MOST_DEAD)):
            failure = post(self._endpoint, self._secret, letter.message)
            if failure is None:
                self._call(places.drop_dead_letter(context, self._name, letter.entry_id))
                delivered += 1
            else:
                log.warning("endpoint %s: %s: %s", self._name, letter.message.id, failure.reason)
        return delivered

    def _call(self, operation: Operation[T]) -> T:
        return self._client.run(operation)

    def _serve(self, once: bool) -> None:
        context = self._client.context
        self._leave, self._renewed = threading.Event(), time.monotonic()
        try:
            place = self._call(places.read_place(context, self._name))
            begin = place if place is not None else "$" if self._endpoint.begin == "now" else None
            reader = FeedReader(context, None, begin, None, 1.0)
            with ThreadPoolExecutor(self._endpoint.parallel, f"webhook {self._name}") as pool:
                while not self._stop.is_set():
                    page = self._call(reader.read())
                    self._deliver(pool, page)
                    if self._leave.is_set():
                        return
                    if reader.place != place:
                        place = reader.place
                        if not self._call(places.move_place(context, self._name, self._token, place)):
                            raise LeaseLost
                    if not page:
                        if once:
                            return
                        self._renew()
                        self._call(reader.wait())
        finally:
            with contextlib.suppress(RedisUnavailable):  # then it runs out
                self._call(places.give_lease_back(context, self._name, self._token))

    def _deliver(self, pool: ThreadPoolExecutor, page: Iterable[FeedEntry | FeedGap]) -> None:
        """Deliver a page; returns once each entry is delivered, given up on, or this process leaves."""
        by_session: dict[str, list[tuple[FeedEntry | FeedGap, WebhookMessage]]] = {}
        for entry in page:
            if isinstance(entry, FeedGap):
                by_session.setdefault("", []).append((entry, make_message(entry)))
            elif self._endpoint.admits(entry) and self._has_metadata(entry):
                by_session.setdefault(entry.session_id, []).append((entry, make_message(entry)))
        left = {pool.submit(self._deliver_in_order, entries) for entries in by_session.values()}
        try:
            while left:
                done, left = wait(left, timeout=WATCH_S)
                for each in done:
                    each.result()
                if self._stop.is_set():
                    self._leave.set()
                self._renew()
        except BaseException:
            self._leave.set()  # its threads end soon
            raise

    def _has_metadata(self, entry: FeedEntry) -> bool:
        wanted = self._endpoint.metadata
        return not wanted or self._call(places.has_metadata(self._client.context, entry.session_id, wanted))

    def _renew(self) -> None:
        if time.monotonic() - self._renewed < RENEW_S:
            return
        if not self._call(places.take_lease(self._client.context, self._name, self._token)):
            raise LeaseLost
        self._renewed = time.monotonic()

    def _deliver_in_order(self, entries: list[tuple[FeedEntry | FeedGap, WebhookMessage]]) -> None:
        for entry, message in entries:
            if self._leave.is_set():
                return
            failure = self._deliver_one(entry, message)
            if failure is not None:
                log.error("endpoint %s: %s given up: %s", self._name, message.id, failure.reason)
                self._call(places.add_dead_letter(self._client.context, self._name, message, failure.reason))

    def _deliver_one(self, entry: FeedEntry | FeedGap, message: WebhookMessage) -> Failure | None:
        """Attempt until it is delivered (None), or is to be given up; None as well where this process stops."""
        born_ms = entry.time if isinstance(entry, FeedEntry) else int(entry.through.partition("-")[0])
        attempt = refused = 0
        while not self._leave.is_set():
            failure = post(self._endpoint, self._secret, message)
            if failure is None:
                return None
            refused += failure.refused
            if refused >= REFUSED_ATTEMPTS or time.time() - born_ms / 1000 > self._endpoint.give_up_s:
                return failure
            pause = BACKOFF_S[0] if failure.refused else BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
            attempt += 1
            log.warning("endpoint %s: %s: %s, again in %g s", self._name, message.id, failure.reason, pause)
            self._leave.wait(pause)
        return None
