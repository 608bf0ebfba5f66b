"""The pauses that synchronous readers make, noted and cut short."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from agentrq.client import sync_client


def noted_pauses(monkeypatch: pytest.MonkeyPatch, longest: float = 1.0) -> list[float]:
    """The pauses that synchronous readers will make, each cut to ``longest`` seconds."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(min(seconds, longest))

    monkeypatch.setattr(sync_client, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    return pauses
