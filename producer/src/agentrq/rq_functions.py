"""References to agentrq's RQ functions, for RQ's own ``enqueue``, ``enqueue_at``, ``depends_on`` and cron.

``queue.enqueue(agentrq.start, None, "claude", "Tidy up", {"cwd": "/srv/work"})`` on an RQ queue with
``serializer="json"``. They run in agentrq's workers, by name; calling one here is a mistake and says so.
"""

from __future__ import annotations

from typing import Any, NoReturn

from agentrq.errors import AgentRQError


def _only_in_a_worker(name: str) -> NoReturn:
    raise AgentRQError(f"agentrq.{name} is run by agentrq's workers: enqueue it, or use AgentClient")


def start(session_id: str | None, provider: str, prompt: str, options: dict[str, Any] | None = None) -> NoReturn:
    """Start a session; a null session id becomes the job's id."""
    _only_in_a_worker("start")


def prompt(session_id: str, prompt: str, mode: str = "queue") -> NoReturn:
    """Send a prompt; the job's id is the command's."""
    _only_in_a_worker("prompt")


def answer(session_id: str, request_id: str, answer: Any) -> NoReturn:
    """Answer an approval request or a question."""
    _only_in_a_worker("answer")


def interrupt(session_id: str) -> NoReturn:
    """End the current turn."""
    _only_in_a_worker("interrupt")


def stop(session_id: str) -> NoReturn:
    """Stop a session."""
    _only_in_a_worker("stop")


for _function in (start, prompt, answer, interrupt, stop):
    _function.__module__ = "agentrq"  # RQ names a function by its module: these names are the contract's
