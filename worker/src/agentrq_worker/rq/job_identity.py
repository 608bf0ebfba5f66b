"""Which session an RQ job starts: ids are given again, by agentrq after a removal, by RQ's users at any time. Pure."""

from __future__ import annotations

from agentrq.rq_commands import format_time
from agentrq_worker.ownership.ownership import SessionSnapshot
from agentrq_worker.rq.fenced_pipeline import SessionIdentity
from agentrq_worker.rq.job import SessionJob


def identity_of(session: SessionSnapshot) -> SessionIdentity:
    """Identifies a session by what was read of it."""
    return SessionIdentity(session.state.session_id, session.inner.nonce, session.state.status)


def is_own_job(job: SessionJob, session: SessionSnapshot) -> bool:
    """Whether this job is the session's own, or a copy of it; False: another start by an id that exists."""
    state, inner = session.state, session.inner
    if job.id != (inner.job_id or state.session_id):
        return False
    if inner.job_created_at:
        return format_time(job.created_at) == inner.job_created_at
    # A client before this version did not note it: what is left are times, by the clocks of two machines.
    created = job.created_at.timestamp() * 1000
    if state.ended_at is not None:
        return created <= state.ended_at
    return not session.owned or bool(job.worker_name) or state.started_at is None or created <= state.started_at
