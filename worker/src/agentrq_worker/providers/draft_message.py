"""A message without its place in the session: parsers make it, the event log numbers and publishes it."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from agentrq.wire.messages import Content


class DraftMessage(msgspec.Struct, frozen=True, gc=False):
    """A message of ``type``.

    ``content`` is a struct of `agentrq.wire.messages`, whose fields may hold a `msgspec.Raw`; for the type
    ``unknown`` it is the provider's object as it came. (A struct: a NamedTuple costs five times as much to make.)
    """

    type: str
    content: Content | Raw
    parent_id: str | None = None
