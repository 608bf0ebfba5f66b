"""What an endpoint is: `Endpoint`, one row of the route table, which routing and /openapi.json are both made from.

Owns the shape of the table, not the rows: each module of `routes` (and of `protocols`) has its own ``ENDPOINTS``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from starlette.responses import Response

from agentrq_gateway.calls import Call

Handler: TypeAlias = Callable[[Call], Awaitable[Response]]
Action: TypeAlias = Literal["read", "start", "prompt", "answer", "stop", "admin"]


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query, or (``place``) a header."""

    name: str
    meaning: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    place: Literal["query", "header"] = "query"


@dataclass(frozen=True)
class Endpoint:
    """One method of one path.

    ``path``: as Starlette writes it (``/sessions/{session_id}``). ``handler``: gets the `Call` and answers; it raises
    `ApiError` or what the client raises. ``action``: what the grant has to allow; None: any known caller. ``public``:
    no caller has to be known. ``body``: the struct that the body is read as. ``answers``: status → what it means.
    ``is_command``: counted against the caller's commands a minute. ``media_type``: of the 200 answer.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    action: Action | None
    summary: str
    answers: Mapping[int, str]
    parameters: tuple[Parameter, ...] = ()
    body: type | None = None
    public: bool = False
    is_command: bool = False
    media_type: str = "application/json"

    @property
    def operation_id(self) -> str:
        """A name that is unique in the table."""
        return self.handler.__name__
