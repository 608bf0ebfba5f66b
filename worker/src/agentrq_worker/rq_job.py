"""An RQ job as agentrq's queues know it: data only.

Owns what is never done with a job here: its callbacks are not imported (nothing is, because Redis said so), and its
webhooks hold up nobody. Does not own a job's status (bookkeeping.py) nor what it asks for (jobs.py).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from rq.job import Job, JobStatus

_WEBHOOKS: Final = ThreadPoolExecutor(4, "webhook")


class SessionJob(Job):
    """A job whose callbacks do not exist and whose webhooks are sent by threads of their own."""

    @property
    def success_callback(self) -> None:
        """Never: RQ would import it."""

    @property
    def failure_callback(self) -> None:
        """Never: RQ would import it."""

    @property
    def stopped_callback(self) -> None:
        """Never: RQ would import it."""

    @property
    def callbacks(self) -> list[str]:
        """The names of the callbacks that will not be run."""
        names = (self._success_callback_name, self._failure_callback_name, self._stopped_callback_name)
        return [name for name in names if name]

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Send them in the background: an endpoint that does not answer costs 10 s, RQ's one thread must not wait."""
        if self.webhooks:
            _WEBHOOKS.submit(super().send_webhooks, status, exc_string=exc_string)
