"""The leases of sessions' owners, as one scanner sees them over time: a lease is lost at the second look.

A lease may be missing though its worker lives: Redis's clock was set forward, Redis came back without it, or refused to
renew it. So its worker is asked to renew it, and has CONFIRM_S to do so. A lease that was overdue before it ran out has
had its first look already. Owns what was seen when. Does not own sessions (recovery_scanner.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

import redis.asyncio

from agentrq.wire.keys import Keys

CONFIRM_S: Final = 1.0
"""Seconds between the first read that finds no lease and the read that declares it lost."""
RENEW_NOW: Final = "!renew"
"""On a worker's wake channel: renew your lease. (A session id has no such character.)"""
RELEASED_KEPT_S: Final = 60.0


class OwnerLeases:
    """The leases of session owners, as one recovery scanner has read them."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, lease_s: float) -> None:
        self._client = client
        self._keys = keys
        self._overdue_ms = lease_s * 500  # a live worker renews at least twice in a lease
        self._tokens: dict[bytes, bytes | None] = {}
        """Each owner's lease as it was read in this round, by the owner's name."""
        self._overdue: dict[bytes, float] = {}
        """Since when (monotonic) the lease with this token is overdue or missing."""
        self._seen: set[bytes] = set()
        self._asked: set[bytes] = set()
        self._released: dict[bytes, float] = {}
        self._expires_in: float | None = None

    def begin_round(self) -> None:
        """Read every lease anew from now on."""
        now = time.monotonic()
        self._tokens, self._asked, self._expires_in = {}, set(), None
        self._overdue = {token: since for token, since in self._overdue.items() if token in self._seen}
        self._released = {token: when for token, when in self._released.items() if when > now - RELEASED_KEPT_S}
        self._seen = set()

    def note_release(self, token: str) -> None:
        """The worker with this token has certainly ended: one look is enough."""
        self._released[token.encode()] = time.monotonic()

    def was_released(self, token: str) -> bool:
        """Whether the worker with this token was found to have ended, lately."""
        return token.encode() in self._released

    async def fetch(self, workers: Iterable[bytes]) -> None:
        """Read the leases of these workers, unless they were read in this round. Raises `redis.RedisError`."""
        names = list({name for name in workers if name not in self._tokens})
        async with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                key = self._keys.worker(name.decode("utf-8", "replace"))
                pipeline.get(key)
                pipeline.pttl(key)
            answers: list[Any] = await pipeline.execute(raise_on_error=False) if names else []
        for name, token, left_ms in zip(names, answers[::2], answers[1::2], strict=True):
            if isinstance(token, bytes) and isinstance(left_ms, int):
                self._tokens[name] = token
                self._note_remaining(token, left_ms)
            else:  # missing, or a key of another type, which is nobody's lease
                self._tokens[name] = None

    def is_live(self, worker: bytes | None, token: bytes | None) -> bool:
        """Whether the owner's lease was there in this round."""
        return bool(worker and token) and self._tokens.get(worker or b"") == token

    def is_lost(self, worker: bytes, token: bytes) -> bool:
        """Whether an owner whose lease is not live has had the time to renew it."""
        now = time.monotonic()
        self._seen.add(token)
        if token in self._released:
            return True
        if self._tokens.get(worker) is not None:  # its name has a later process
            self._released[token] = now
            return True
        if token not in self._overdue:
            self._overdue[token] = now
            self._asked.add(worker)
        return now - self._overdue[token] >= CONFIRM_S

    async def ask_to_renew(self) -> None:
        """Ask the owners whose leases were missed for the first time in this round."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for name in self._asked:
                pipeline.publish(self._keys.wake_channel(name.decode("utf-8", "replace")), RENEW_NOW)
            if self._asked:
                await pipeline.execute()

    def pause_s(self, beat_s: float) -> float:
        """Seconds until leases should be looked at again: sooner than a beat while one of them is overdue."""
        if not self._overdue:
            return beat_s
        return min(beat_s, CONFIRM_S if self._expires_in is None else max(self._expires_in, 0.05))

    def _note_remaining(self, token: bytes, left_ms: int) -> None:
        self._seen.add(token)
        if 0 <= left_ms < self._overdue_ms:
            self._overdue.setdefault(token, time.monotonic())
            left_s = left_ms / 1000 + 0.05
            self._expires_in = left_s if self._expires_in is None else min(left_s, self._expires_in)
        else:
            self._overdue.pop(token, None)
