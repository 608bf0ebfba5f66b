"""One handling of a dequeued job by one worker. Data only: what identifies its steps is made once, with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import uuid4

from rq import Queue
from rq.executions import Execution

from agentrq_worker.rq.fenced_pipeline import SessionIdentity
from agentrq_worker.rq.job import SessionJob


@dataclass(slots=True, eq=False)
class JobRun:
    """One handling of a dequeued job by this worker; its id is the RQ execution's and names its steps."""

    job: SessionJob
    queue: Queue
    identity: SessionIdentity | None = None
    """The session that the job starts; None: it is not a session's."""
    claim: str = ""
    """This worker's claim on it."""
    id: str = field(default_factory=lambda: uuid4().hex)
    ready: dict[str, list[str]] = field(default_factory=dict)
    """Dependents, by queue, that may run once the job's end is written."""

    @property
    def owned_identity(self) -> SessionIdentity | None:
        """The session as long as this worker owns it."""
        return self.identity and self.identity._replace(claim=self.claim)

    def execution(self, worker_name: str) -> Execution:
        """RQ's record of this run."""
        return Execution(self.id, self.job.id, self.job.connection, worker_name)
