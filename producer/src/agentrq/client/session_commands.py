"""The commands of a session as methods, for both clients: checked and made here, sent by the client's ``_send``.

Owns their signatures and defaults. How they are sent, and how one waits for a receipt, is each client's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Literal, TypeVar, overload

from agentrq.wire.commands import Command, CommandName, PromptMode
from agentrq.wire.ids import new_id
from agentrq.wire.script_calls import now_ms

Sent = TypeVar("Sent")
"""What a command's call answers: its id, at once or to be awaited."""
Got = TypeVar("Got")
"""What it answers with ``wait``: the receipt."""


class Commands(ABC, Generic[Sent, Got]):
    """What a session can be told. Raises `SessionNotFound`, `SessionEnded`, `InboxFull`, `InvalidOption`.

    A call answers the command's id, or with ``wait`` its receipt: then it raises `CommandRejected`, or `TimeoutError`
    after ``timeout`` seconds (the command stays sent). ``command_id`` is an idempotency key: the same id sent again is
    the same command.
    """

    @abstractmethod
    def _send(self, command: Command, wait: bool, timeout: float | None) -> Any:
        """Send it; answers ``Sent``, with ``wait`` ``Got``."""

    @overload
    def prompt(
        self, text: str, mode: PromptMode = ..., wait: Literal[False] = ..., *, command_id: str | None = ...
    ) -> Sent: ...
    @overload
    def prompt(
        self,
        text: str,
        mode: PromptMode = ...,
        *,
        wait: Literal[True],
        command_id: str | None = ...,
        timeout: float | None = ...,
    ) -> Got: ...
    def prompt(
        self,
        text: str,
        mode: PromptMode = "queue",
        wait: bool = False,
        *,
        command_id: str | None = None,
        timeout: float | None = None,
    ) -> Sent | Got:
        """Send the agent a prompt, ``text``.

        ``mode`` says what happens while a turn runs: ``queue`` waits for its end, ``steer`` joins it, ``interrupt``
        ends it and goes first; the last two where the provider supports them, else the command is rejected.
        """
        return self._tell("prompt", wait, command_id, timeout, text=text, mode=mode)

    def answer(
        self,
        request_id: str,
        answer: Any,
        wait: bool = False,
        *,
        command_id: str | None = None,
        timeout: float | None = None,
    ) -> Sent | Got:
        """Answer the open request or question ``request_id``.

        ``answer`` is ``"allow"``, ``"deny"`` or an object (docs/reference/approvals.md).
        """
        return self._tell("answer", wait, command_id, timeout, request_id=request_id, answer=answer)

    def interrupt(
        self, wait: bool = False, *, command_id: str | None = None, timeout: float | None = None
    ) -> Sent | Got:
        """End the running turn; the session goes on."""
        return self._tell("interrupt", wait, command_id, timeout)

    def set_model(
        self, model: str, wait: bool = False, *, command_id: str | None = None, timeout: float | None = None
    ) -> Sent | Got:
        """Use ``model`` from the next turn on, where the provider supports it."""
        return self._tell("set_model", wait, command_id, timeout, text=model)

    def set_permission_mode(
        self, mode: str, wait: bool = False, *, command_id: str | None = None, timeout: float | None = None
    ) -> Sent | Got:
        """Change the permission mode to ``mode`` from now on, where the provider supports it."""
        return self._tell("set_permission_mode", wait, command_id, timeout, text=mode)

    def _tell(
        self, name: CommandName, wait: bool, command_id: str | None, timeout: float | None, **members: Any
    ) -> Sent | Got:
        command = Command(command_id=command_id or new_id(), command=name, timestamp=now_ms(), **members)
        sent: Sent | Got = self._send(command, wait, timeout)
        return sent
