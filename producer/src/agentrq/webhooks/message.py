"""What is posted: a body and its signature, as Standard Webhooks 1.0 has them (standardwebhooks.com). Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import NamedTuple

from msgspec import to_builtins

from agentrq.wire.codec import encode
from agentrq.wire.feed import FeedEntry, FeedGap


class WebhookMessage(NamedTuple):
    """One message: ``id`` is the same in each attempt, and after a restart."""

    id: str
    body: bytes


def make_message(entry: FeedEntry | FeedGap) -> WebhookMessage:
    """The message for an entry of the feed, or for what was missed of it."""
    if isinstance(entry, FeedGap):
        body = {"type": "feed.gap", "timestamp": _time(int(entry.through.partition("-")[0])), "data": entry._asdict()}
        return WebhookMessage(f"gap_{entry.through}", encode(body))
    data = to_builtins(entry)
    body = {"type": f"session.{entry.kind}", "timestamp": _time(entry.time), "data": data}
    return WebhookMessage(f"{entry.session_id}_{entry.cursor}_{entry.kind}", encode(body))


def sign(secret: bytes, message: WebhookMessage, now_s: int) -> dict[str, str]:
    """The headers of one attempt, made at ``now_s``."""
    signed = f"{message.id}.{now_s}.".encode() + message.body
    signature = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "User-Agent": "agentrq-deliver",
        "webhook-id": message.id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{signature}",
    }


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
