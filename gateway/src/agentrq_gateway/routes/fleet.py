"""What concerns all sessions at once: the requests that wait for a person, and this gateway's own figures."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from agentrq import WaitingRequest
from agentrq.wire.messages import ApprovalRequest, Question
from agentrq_gateway.calls import Call, json_response
from agentrq_gateway.endpoints import Endpoint


async def list_approvals(call: Call) -> Response:
    """GET /approvals."""
    async with call.within_redis_timeout():
        waiting = await call.client.waiting()
    seen = [_shown(each) for each in waiting if call.grant.sees(each.state)]
    return json_response({"approvals": seen})


def _shown(waiting: WaitingRequest) -> dict[str, Any]:
    request, state, content = waiting.request, waiting.state, waiting.content
    told: dict[str, Any] = {
        "sessionId": waiting.session_id,
        "requestId": request.id,
        "type": "question" if request.kind == "question" else "approval_request",
        "name": request.name or None,
        "cursor": request.cursor or None,
        "askedAt": request.asked_at,
        "deadline": request.deadline,
        "cwd": state.cwd,
        "provider": state.provider,
        "metadata": state.metadata or None,
        "workerLost": state.worker_lost or None,
    }
    told = {name: value for name, value in told.items() if value is not None}
    if isinstance(content, ApprovalRequest):
        told["input"] = content.input
    elif isinstance(content, Question):
        told["questions"] = content.questions
    return told


_METRICS: Final = (
    ("agentrq_gateway_streams", "gauge", "Streams open now."),
    ("agentrq_gateway_followed_sessions", "gauge", "Sessions that this process follows for its streams."),
    ("agentrq_gateway_buffered_bytes", "gauge", "Bytes of events kept for streams."),
    ("agentrq_gateway_requests_total", "counter", "Requests served, streams among them."),
    ("agentrq_gateway_errors_total", "counter", "Requests answered by an error of the gateway or of Redis (5xx)."),
)


async def show_metrics(call: Call) -> Response:
    """GET /metrics."""
    streams, counts = call.services.streams, call.services.counts
    values = (streams.open, streams.fan_out.followed, streams.fan_out.buffered, counts.requests, counts.failures)
    lines = [
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {value}\n"
        for (name, kind, text), value in zip(_METRICS, values, strict=True)
    ]
    return Response("".join(lines), headers={"Cache-Control": "no-store"}, media_type="text/plain; version=0.0.4")


ENDPOINTS: Final = (
    Endpoint(
        "GET", "/approvals", list_approvals, "read", "All requests and questions that wait, the oldest first",
        {200: "`approvals`: each with what is asked, by whom and since when."},
    ),
    Endpoint(
        "GET", "/metrics", show_metrics, "admin", "This process's figures, for Prometheus", {200: "The figures."},
        media_type="text/plain",
    ),
)  # fmt: skip
