"""Starts a session for a caller: the rules of what may be started, and what the gateway writes into its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentrq import InvalidOption
from agentrq.wire.commands import Options, make_options
from agentrq_gateway.auth.grant import EVERYTHING, TENANT, Grant
from agentrq_gateway.calls import Call
from agentrq_gateway.errors import ApiError, forbidden

KEY_MARK: Final = "idempotencyKey"
"""The name in a session's metadata that says by which request it was started."""


async def start_for_caller(
    call: Call, provider: str, prompt: str, session_id: str, given: Mapping[str, Any], mark: str | None = None
) -> None:
    """Start a session as this caller; ``given`` are start options as on the wire, ``mark`` names the request.

    Raises `ApiError` 403, 422, and what the client's `start` raises: `SessionExists`.
    """
    grant, options = call.grant, dict(given)
    metadata = dict(_check(options, provider, grant).metadata or {})
    if grant.tenant is not None:
        metadata[TENANT] = options[TENANT] = grant.tenant
    if mark is not None:
        metadata[KEY_MARK] = mark
    if not grant.names(session_id):
        raise forbidden("This grant names the sessions that it is for; start one of these ids", field="sessionId")
    options["metadata"] = metadata or None
    async with call.within_redis_timeout():
        await call.client.start(provider, prompt, session_id, **options)


def _check(given: dict[str, Any], provider: str, grant: Grant) -> Options:
    """The options, if this caller may start with them. Raises `InvalidOption`, `ApiError` 403, 422."""
    try:
        options = make_options(given)
    except InvalidOption as error:
        raise ApiError(422, "invalid", str(error), field=f"options.{error.option}") from None
    for name in (TENANT, KEY_MARK) if grant is not EVERYTHING else (KEY_MARK,):
        if name in (options.metadata or {}):
            raise ApiError(
                422, "reserved", f"metadata.{name} is written by the gateway", field=f"options.metadata.{name}"
            )
    if grant is not EVERYTHING and options.tenant is not None:
        raise ApiError(422, "reserved", "tenant is the grant's", field="options.tenant")
    if grant.providers is not None and provider not in grant.providers:
        raise forbidden(f"You may not start {provider[:80]}", field="provider")
    if (outside := grant.directory_refused(options)) is not None:
        raise forbidden(f"{outside} has to lie below {grant.cwd_prefix}", field=f"options.{outside}")
    return options
