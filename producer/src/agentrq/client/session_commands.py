"""The commands of a session as methods, for both clients: checked and made here, sent by the client's ``_send``.

Owns their signatures and defaults. How they are sent, and how one waits for a receipt, is each client's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Literal, TypeVar, overload

from agentrq.wire.commands import Command, CommandName, PromptMode, check_timeout
from agentrq.wire.ids import new_id
from agentrq.wire.script_calls import now_ms

Sent = TypeVar("Sent")
"""What a command's call answers: its id, at once or to be awaited."""
Got = TypeVar("Got")
"""What it answers with ``wait``: the receipt."""


class Commands(ABC, Generic[Sent, Got]):
    """What a session can be told. `Session` calls these directly, `AsyncSession` awaits them.

    All have three parameters in common:

    - ``wait`` (default False): wait for the command's receipt and return that `Receipt`; without it the command's id
      (str) is returned as soon as Redis has the command.
    - ``command_id`` (default: a new UUIDv7; 1 to 200 characters): an idempotency key. The same id sent again is the
      same command, which is carried out once.
    - ``timeout`` (default None: no bound): seconds to wait for the receipt. After it `TimeoutError` is raised; the
      command stays sent.

    All raise `SessionNotFound`, `SessionEnded`, `InboxFull`, `InvalidOption`, and with ``wait`` `CommandRejected`
    where the receipt says ``rejected`` or ``expired``; `RedisUnavailable` and `RedisRefused` where Redis fails.
    """

    @abstractmethod
    def _send(self, command: Command, wait: bool, timeout: float | None) -> Any:
        """Send the command; returns ``Sent``, with ``wait`` ``Got``."""

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
        """Send a prompt: ``text``, up to 8 MiB as JSON.

        ``mode``: ``"queue"`` (default) runs it after the prompts that wait; ``"steer"`` adds it to the turn under way;
        ``"interrupt"`` ends that turn and goes first. Where the provider cannot do that, the receipt says so. While no
        turn is under way all three are the same.
        """
        return self._make_and_send("prompt", wait, command_id, timeout, text=text, mode=mode)

    def answer(
        self,
        request_id: str,
        answer: Any,
        wait: bool = False,
        *,
        command_id: str | None = None,
        timeout: float | None = None,
    ) -> Sent | Got:
        """Answer an approval request or a question, by the ``request_id`` of its message.

        ``answer`` to an approval request: ``"allow"``, ``"deny"`` or
        ``{"decision": "allow" | "deny", "input": {…}, "message": str, "always": bool, "interrupt": bool, "by": str}``
        (all but ``decision`` optional); to a question ``{"answers": {ID: TEXT or [TEXT, …]}}``, or one text where one
        question is asked. See docs/reference/approvals.md.

        The first answer wins. An answer to a request that is not open raises `CommandRejected` with the reason even
        without ``wait``, if the session's worker says so within 5 s.
        """
        return self._make_and_send("answer", wait, command_id, timeout, request_id=request_id, answer=answer)

    def interrupt(
        self, wait: bool = False, *, command_id: str | None = None, timeout: float | None = None
    ) -> Sent | Got:
        """End the turn under way; the session stays. Rejected (``idle``) while no turn is under way."""
        return self._make_and_send("interrupt", wait, command_id, timeout)

    def set_model(
        self, model: str, wait: bool = False, *, command_id: str | None = None, timeout: float | None = None
    ) -> Sent | Got:
        """Use ``model``, by the provider's name for it, from the next turn on. Rejected where it cannot be changed."""
        return self._make_and_send("set_model", wait, command_id, timeout, text=model)

    def set_permission_mode(
        self, mode: str, wait: bool = False, *, command_id: str | None = None, timeout: float | None = None
    ) -> Sent | Got:
        """Use the permission mode ``mode``, by the provider's name for it, from now on. Rejected as a model is."""
        return self._make_and_send("set_permission_mode", wait, command_id, timeout, text=mode)

    def _make_and_send(
        self, name: CommandName, wait: bool, command_id: str | None, timeout: float | None, **members: Any
    ) -> Sent | Got:
        timeout = check_timeout(timeout)
        command = Command(command_id=command_id or new_id(), command=name, timestamp=now_ms(), **members)
        sent: Sent | Got = self._send(command, wait, timeout)
        return sent
