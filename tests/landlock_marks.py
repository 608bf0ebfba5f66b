"""Marks of the tests that a kernel with too old a Landlock cannot run."""

from __future__ import annotations

import pytest

from agentrq_worker.sandbox import landlock

needs_landlock = pytest.mark.skipif(
    landlock.version() < landlock.NEEDED, reason=f"this kernel's landlock is version {landlock.version()}"
)
needs_scopes = pytest.mark.skipif(
    landlock.version() < landlock.SCOPES_SINCE, reason=f"this kernel's landlock is version {landlock.version()}"
)
