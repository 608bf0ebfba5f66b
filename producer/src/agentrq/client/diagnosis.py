"""Says why a session is where it is: a pure function from evidence to findings, each with the command that helps.

Owns the causes, when a session counts as stuck, and the words. Reads nothing (evidence.py does).
"""

from __future__ import annotations

import shlex
from typing import Final, NamedTuple

from agentrq.client.evidence import Evidence
from agentrq.wire.events import Message
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Error, Question, ToolCall, ToolResult
from agentrq.wire.status import Status

SLOW_START_S: Final = 60.0
"""A start that takes longer is stuck: agents answer their handshake within seconds."""
SLOW_TAKEOVER_S: Final = 20.0
"""A lost worker's session that nobody owns after so long is stuck: another worker takes it within 20 s."""
UNREAD_COMMAND_S: Final = 20.0
"""A command that its owner has not taken after so long is stuck."""


class Finding(NamedTuple):
    """One cause. ``stuck``: it needs somebody to act; ``evidence``: facts; ``remedy``: a command, or empty."""

    cause: str
    stuck: bool
    says: str
    evidence: list[str]
    remedy: str = ""


def diagnose(found: Evidence) -> list[Finding]:
    """The causes that keep a session where it is, the most telling first; never empty."""
    status = found.state.status
    findings = _shared(found)
    if status is Status.QUEUED:
        findings += _queued(found)
    elif status is Status.ERROR:
        findings = [_failed(found)]
    elif status.ended:
        findings = [Finding("ended", False, f"The session has ended ({found.state.reason})", [])]
    elif status is Status.RECOVERING or found.lease == "lost":
        findings += _without_owner(found)
    elif status is Status.STARTING:
        findings.append(_starting(found))
    elif status is Status.WAITING:
        findings.append(_waiting(found))
    elif status is Status.RUNNING:
        findings.append(_running(found))
    else:
        sid = found.state.session_id
        findings.append(
            Finding("idle", False, f"Idle for {_since(found, found.state.updated_at)}: it waits for a prompt", [],
                    f"agentrq prompt {sid} TEXT")
        )  # fmt: skip
    return findings


def is_stuck(findings: list[Finding]) -> bool:
    """Whether somebody has to do something."""
    return any(finding.stuck for finding in findings)


def _shared(found: Evidence) -> list[Finding]:
    """What may hold up any session that has not ended."""
    findings: list[Finding] = []
    if found.memory_full:
        says = "Redis's memory is full: nothing can be written but ends and removals"
        findings.append(Finding("redis_full", True, says, ["used_memory has reached maxmemory"], "agentrq doctor"))
    waited = found.now - found.inbox_since if found.inbox_since is not None else 0
    if found.inbox_size and found.lease == "held" and waited > UNREAD_COMMAND_S * 1000:
        says = f"{found.inbox_size} commands wait for worker {found.state.worker}, the oldest for {duration(waited)}"
        findings.append(Finding("commands_unread", True, says, [f"inbox: {found.inbox_size} entries"]))
    return findings


def _queued(found: Evidence) -> list[Finding]:
    queue, sid = found.queue, found.state.session_id
    since = f"queued for {_since(found, found.state.created_at)}"
    job = [f"job: {found.job}", *([] if found.job_position is None else [f"jobs before it: {found.job_position}"])]
    if found.job in ("missing", "canceled", "failed", "stopped"):
        says = f"RQ's job of the start is {found.job}: no worker will begin it"
        return [Finding(f"job_{found.job}", True, says, [since], f"agentrq stop {sid}")]
    if found.job in ("deferred", "scheduled"):
        says = f"RQ's job of the start is {found.job}: it waits for its dependencies or its time"
        return [Finding(f"job_{found.job}", False, says, [since], f"rq info {queue}")]
    if found.suspended:
        return [Finding("rq_suspended", True, "RQ is suspended: no worker takes a job", [since], "rq resume")]
    if found.workers is None:
        return [Finding("queued", False, f"It waits in queue {queue}", [since, *job], "agentrq doctor")]
    alive = [worker for worker in found.workers if worker.alive]
    if not alive:
        lost = [f"lost: {worker.name}" for worker in found.workers]
        says = f"No live worker serves queue {queue}"
        return [Finding("no_worker", True, says, [since, *lost], f"AGENTRQ_QUEUE={queue} agentrq worker")]
    if all(worker.free == 0 for worker in alive):
        says = f"No worker of queue {queue} has a free slot: all are full or stopping"
        return [Finding("workers_full", False, says, [since, *job, *(f"{worker.name}: 0 free" for worker in alive)],
                        "agentrq worker --max-sessions N")]  # fmt: skip
    return [Finding("queued", False, f"A worker of queue {queue} takes it next", [since, *job])]


def _without_owner(found: Evidence) -> list[Finding]:
    worker, sid = found.state.worker, found.state.session_id
    handed_over = found.state.status is Status.RECOVERING and found.lease is None
    lost = "It was handed over" if handed_over else f"Its worker {worker} is lost"
    since = f"last event {_since(found, found.state.updated_at)} ago"
    alive = [other for other in found.workers or [] if other.alive]
    late = found.now - (found.state.updated_at or found.now) > SLOW_TAKEOVER_S * 1000
    if found.suspended:
        return [Finding("rq_suspended", True, f"{lost} and RQ is suspended: nobody takes it", [since], "rq resume")]
    if found.workers is not None and not alive:
        says = f"{lost} and no live worker serves queue {found.queue}"
        return [Finding("worker_lost", True, says, [since], f"AGENTRQ_QUEUE={found.queue} agentrq worker")]
    if alive and all(other.free == 0 for other in alive):
        says = f"{lost} and no worker of queue {found.queue} has a free slot: all are full or stopping"
        return [Finding("worker_lost", late, says, [since], "agentrq worker --max-sessions N")]
    says = f"{lost}; another worker takes it over within {SLOW_TAKEOVER_S:g} s"
    return [Finding("worker_lost", late, says, [since, f"job: {found.job}"], f"agentrq stop {sid}" if late else "")]


def _starting(found: Evidence) -> Finding:
    waited = found.now - (found.state.started_at or found.now)
    says = f"Worker {found.state.worker} starts the agent, for {duration(waited)} now"
    evidence = [f"pid {found.state.pid}"] if found.state.pid else ["no process yet"]
    return Finding("starting", waited > SLOW_START_S * 1000, says, evidence, f"agentrq stop {found.state.session_id}")


def _waiting(found: Evidence) -> Finding:
    """Which request waits, and since when."""
    sid = found.state.session_id
    for message, request in _open_requests(found):
        waited = _since(found, message.timestamp)
        if isinstance(request, ApprovalRequest):
            name = request.name
            # The agent chose the id: quoted it is one shell word, after "--" it is not an option.
            remedy = f"agentrq answer -- {sid} {shlex.quote(request.request_id)} allow    # or: deny"
        else:  # allow or deny would leave it unanswered; attach shows the question and takes the answer
            name, remedy = "a question", f"agentrq attach {sid}"
        return Finding("waiting", False, f"It waits for an answer: {name}, asked {waited} ago", [], remedy)
    pending = found.state.pending_approvals
    return Finding("waiting", False, f"It waits for {pending} answers", [], f"agentrq attach {sid}")


def _running(found: Evidence) -> Finding:
    silent = _since(found, found.state.updated_at)
    calls = {
        message.content.tool_use_id: (message.content.name, message.timestamp)
        for message in _messages(found)
        if isinstance(message.content, ToolCall)
    }
    for message in _messages(found):
        if isinstance(message.content, ToolResult):
            calls.pop(message.content.tool_use_id, None)
    evidence = [f"tool {name} runs for {_since(found, began)}" for name, began in calls.values()]
    says = f"It runs on worker {found.state.worker}, silent for {silent}"
    return Finding("running", False, says, evidence, f"agentrq attach {found.state.session_id}")


def _failed(found: Evidence) -> Finding:
    errors = [
        f"{message.content.code or 'error'}: {message.content.message}"
        for message in _messages(found)
        if isinstance(message.content, Error)
    ]
    evidence = [*errors[-3:], *([] if found.state.exit_code is None else [f"exit code {found.state.exit_code}"])]
    evidence += [f"stderr: {line}" for line in (found.state.stderr_tail or "").splitlines()]
    return Finding("failed", False, f"It ended in error ({found.state.reason}): {found.state.error}", evidence,
                   f"agentrq attach {found.state.session_id}")  # fmt: skip


def _open_requests(found: Evidence) -> list[tuple[Message, ApprovalRequest | Question]]:
    """The requests among the last events that are not resolved, the oldest first."""
    opened: dict[str, tuple[Message, ApprovalRequest | Question]] = {}
    for message in _messages(found):
        content = message.content
        if isinstance(content, ApprovalRequest | Question):
            opened[content.request_id] = (message, content)
        elif isinstance(content, ApprovalResolved):
            opened.pop(content.request_id, None)
    return list(opened.values())


def _messages(found: Evidence) -> list[Message]:
    return [event for event in found.events if isinstance(event, Message)]


def _since(found: Evidence, moment: int | None) -> str:
    return "an unknown time" if moment is None else duration(found.now - moment)


def duration(milliseconds: int) -> str:
    """A duration for people: ``7 s``, ``3 min``, ``2 h``, ``5 d``."""
    seconds = max(0, milliseconds) // 1000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
