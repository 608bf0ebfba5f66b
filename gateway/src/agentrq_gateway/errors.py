"""What a caller is told when a request fails: one JSON object, whatever failed. Owns codes, statuses and texts.

Nothing of Redis's address, of a traceback or of somebody else's session is ever in it.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from starlette.responses import Response

from agentrq import (
    AgentRQError,
    CommandRejected,
    InvalidOption,
    InvalidSessionId,
    RedisOutOfMemory,
    RedisRefused,
    RedisUnavailable,
    SessionEnded,
    SessionExists,
    SessionNotFound,
    StreamTrimmed,
)
from agentrq.errors import InboxFull, TenantFull
from agentrq.wire.codec import encode

log = logging.getLogger("agentrq.gateway")

RETRY_AFTER_S: Final = 1
"""When a caller is asked to try again after Redis was away, in seconds."""
TOO_MANY: Final = 429
UNAVAILABLE: Final = 503


class ApiError(Exception):
    """A request that is answered by an error.

    ``code`` is for programs, ``message`` for people; ``field`` names the member or parameter at fault; ``extra`` are
    further members; ``headers`` go with the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.headers = headers or {}
        self.extra = extra


def not_found(session_id: str) -> ApiError:
    """The one answer for a session that is not there and for one that is somebody else's."""
    return ApiError(404, "session_not_found", f"No such session: {session_id}"[:200])


def unauthorized(message: str, code: str = "unauthorized") -> ApiError:
    """Nobody is known by this request, or what it brought does not count."""
    return ApiError(401, code, message, headers={"WWW-Authenticate": "Bearer"})


def forbidden(message: str, code: str = "forbidden", field: str | None = None) -> ApiError:
    """The caller is known and may not do this."""
    return ApiError(403, code, message, field=field)


def too_many(code: str, message: str, retry_after_s: float) -> ApiError:
    """A limit is reached."""
    return ApiError(TOO_MANY, code, message, headers={"Retry-After": str(max(1, round(retry_after_s)))})


def unavailable(code: str, message: str) -> ApiError:
    """Redis does not serve at present."""
    return ApiError(UNAVAILABLE, code, message, headers={"Retry-After": str(RETRY_AFTER_S)})


def from_exception(error: Exception) -> ApiError:
    """The answer for what a handler raised. What nobody expected is logged and answered as `internal`."""
    known = _of_the_client(error)
    if known is not None:
        return known
    log.error("a request failed unexpectedly", exc_info=error)
    return ApiError(500, "internal", "The gateway failed; its log says why")


def _of_the_client(error: Exception) -> ApiError | None:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InvalidSessionId):
        return ApiError(422, "invalid_session_id", str(error), field="sessionId")
    if isinstance(error, InvalidOption):
        return ApiError(422, "invalid", str(error), field=error.option)
    if isinstance(error, SessionExists):
        return ApiError(409, "session_exists", str(error))
    if isinstance(error, SessionNotFound):
        return not_found(error.session_id)
    if isinstance(error, SessionEnded):
        return ApiError(409, "session_ended", str(error))
    if isinstance(error, StreamTrimmed):
        return ApiError(410, "cursor_not_kept", str(error))
    if isinstance(error, CommandRejected):
        return ApiError(409, "command_rejected", str(error))
    if isinstance(error, InboxFull):
        return too_many("inbox_full", str(error), RETRY_AFTER_S)
    if isinstance(error, TenantFull):
        return too_many("tenant_full", str(error), RETRY_AFTER_S)
    return _of_redis(error)


def _of_redis(error: Exception) -> ApiError | None:
    if isinstance(error, RedisOutOfMemory):
        log.warning("%s", error)
        return unavailable("redis_out_of_memory", "Redis has no memory left")
    if isinstance(error, RedisRefused):
        log.warning("%s", error)
        return unavailable("redis_refused", "Redis refuses this; the gateway's log says why")
    if isinstance(error, RedisUnavailable | TimeoutError):
        log.warning("%s", str(error) or "Redis did not answer in time")
        return unavailable("redis_unavailable", "Redis is not reachable: try again")
    if isinstance(error, AgentRQError):
        log.warning("%s", error)
        return unavailable("not_served", "This cannot be served at present; the gateway's log says why")
    return None


def to_response(error: ApiError) -> Response:
    """The answer itself."""
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.field is not None:
        told["field"] = error.field
    body = encode({"error": told | error.extra})
    headers = {"Cache-Control": "no-store", **error.headers}
    return Response(body, error.status, headers, "application/json")
