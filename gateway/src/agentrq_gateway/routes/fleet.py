"""What concerns all sessions at once: requests that wait for a person, workers, queues, this gateway's own figures."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from agentrq import WaitingRequest
from agentrq.client.fleet import FleetWorker
from agentrq.wire.keys import control_queue
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


async def show_workers(call: Call) -> Response:
    """GET /workers."""
    async with call.within_redis_timeout():
        fleet = await call.client.fleet()
    return json_response({"workers": [_shown_worker(each) for each in fleet.workers]})


def _shown_worker(worker: FleetWorker) -> dict[str, Any]:
    known = worker.slots is not None and worker.free is not None and not worker.draining
    told: dict[str, Any] = {
        "name": worker.name,
        "alive": worker.alive,
        "leaseMs": worker.lease_ms,
        "host": worker.host,
        "pid": worker.pid,
        "slots": worker.slots,
        "free": worker.free,
        "used": (worker.slots or 0) - (worker.free or 0) if known else None,
        "draining": worker.draining,
        "version": worker.version,
    }
    return {name: value for name, value in told.items() if value is not None}


async def show_queues(call: Call) -> Response:
    """GET /queues."""
    async with call.within_redis_timeout():
        fleet = await call.client.fleet()
    starts: dict[str, Any] = {"name": fleet.queue, "length": fleet.queue_length, "suspended": fleet.suspended}
    if fleet.oldest_ms is not None:
        starts["oldestMs"] = max(0, fleet.now - fleet.oldest_ms)
    commands = {"name": control_queue(fleet.queue), "length": fleet.commands_length, "suspended": fleet.suspended}
    return json_response({"queues": [starts, commands]})


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
        "GET", "/workers", show_workers, "admin", "The workers that serve the queue of starts",
        {200: "`workers`: name, host, version, slots, used and free, `leaseMs` left, whether it drains."},
    ),
    Endpoint(
        "GET", "/queues", show_queues, "admin", "The queues that workers take from",
        {200: "`queues`: name, length, whether they are suspended, age of the oldest start (`oldestMs`)."},
    ),
    Endpoint(
        "GET", "/metrics", show_metrics, "admin", "This process's figures, for Prometheus", {200: "The figures."},
        media_type="text/plain",
    ),
)  # fmt: skip
