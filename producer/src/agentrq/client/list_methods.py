"""The methods of both clients that list sessions. Owns their signatures and defaults; not how an operation is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from agentrq.client.fleet import read_fleet
from agentrq.client.redis_requests import Context, Operation
from agentrq.client.session_filter import DEFAULT_LIMIT, make_filter
from agentrq.client.session_list import list_sessions
from agentrq.client.waiting_list import list_waiting

Page = TypeVar("Page")
"""What a list of sessions is: a `SessionPage`, at once or to be awaited."""

FleetNow = TypeVar("FleetNow")
"""What is known of the workers and the queue: a `Fleet`, at once or to be awaited."""

Waiting = TypeVar("Waiting")
"""What the list of waiting requests is: a list of `WaitingRequest`, at once or to be awaited."""


class ListMethods(ABC, Generic[Page, Waiting, FleetNow]):
    """The lists that a client gives. `AgentClient` calls these directly, `AsyncAgentClient` awaits them."""

    context: Context

    @abstractmethod
    def run(self, operation: Operation[Any]) -> Any:
        """Run one operation: what it answers, at once or to be awaited."""

    def sessions(
        self,
        *,
        status: str | Iterable[str] | None = None,
        provider: str | None = None,
        worker: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tenant: str | None = None,
        user: str | None = None,
        project: str | None = None,
        text: str | None = None,
        limit: int = DEFAULT_LIMIT,
        before: str | None = None,
    ) -> Page:
        """A page of the sessions that Redis still has, the newest start first; iterating over it yields their states.

        A session is listed if all that is given holds: its ``status`` (one or several), its ``provider``, the
        ``worker`` that owns it or owned it last, every text of ``metadata``, ``tenant``, ``user`` and
        ``project`` (those of `metadata`), and ``text`` in its id, provider, cwd, model, error or metadata, whatever the
        case.

        ``limit``: sessions of a page, 1 to 1000. ``before``: the ``next`` of the page before. A page may have fewer
        sessions than ``limit``, even none, while its ``next`` is not None: one call looks at 10 000 states at most.
        A session whose state cannot be read is left out. Raises `InvalidOption`.
        """
        wanted = make_filter(status, provider, worker, metadata, tenant, text, user, project)
        page: Page = self.run(list_sessions(self.context, wanted, limit, before))
        return page

    def waiting(self) -> Waiting:
        """The requests and questions that wait for an answer, over all sessions, the oldest first.

        What it costs grows with how many wait, not with how many sessions there are. A request is answered by
        ``client.session(waiting.session_id).answer(waiting.request.id, …)``.
        """
        waiting: Waiting = self.run(list_waiting(self.context))
        return waiting

    def fleet(self) -> FleetNow:
        """The workers of this client's queue, each with its slots and its lease; the queue; Redis's memory."""
        fleet: FleetNow = self.run(read_fleet(self.context))
        return fleet
