"""Whether a session's owner still holds its lease, as a client sees it. Pure."""

from __future__ import annotations

from typing import Any

from agentrq.wire.script_calls import text


def is_lost(lease: Any, token: str) -> bool:
    """Whether the lease does not belong to the owner with this token. One that may not be read does."""
    return not isinstance(lease, Exception) and (lease is None or text(lease) != token)
