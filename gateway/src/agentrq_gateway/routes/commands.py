"""Commands over HTTP: prompts, answers, interrupts, stops, changes of model and permission mode.

Owns what a caller gets for a command: its id at once, or with ``?wait=`` its receipt. What a command does is agentrq's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.responses import Response

from agentrq import AsyncSession, CommandRejected, RedisUnavailable
from agentrq.client.operations import ANSWER_CHECK_S
from agentrq.wire.commands import PromptMode
from agentrq.wire.ids import new_id
from agentrq_gateway.calls import Call, json_response
from agentrq_gateway.endpoints import Action, Endpoint, Handler, Parameter
from agentrq_gateway.routes.sessions import IDEMPOTENCY_KEY, idempotency_key

Send = Callable[..., Awaitable[Any]]
"""A command of a session that takes ``wait``, ``timeout`` and ``command_id``."""


class Prompt(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The body of a prompt."""

    text: str
    mode: PromptMode = "queue"


class Model(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The body of a change of the model."""

    model: str


class PermissionMode(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The body of a change of the permission mode."""

    permission_mode: str


class Nothing(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The body of a command without arguments: absent, or ``{}``."""


async def prompt_session(call: Call) -> Response:
    """POST /sessions/{session_id}/prompts."""
    body = await call.body(Prompt)
    session = await call.session()
    return await _send(call, session, lambda **how: session.prompt(body.text, body.mode, **how))


async def answer_request(call: Call) -> Response:
    """POST /sessions/{session_id}/answers/{request_id}."""
    answer = call.grant.sign(await call.body(Any))
    session = await call.session()
    request_id = call.request.path_params["request_id"]
    return await _send(call, session, lambda **how: session.answer(request_id, answer, **how), ANSWER_CHECK_S)


async def interrupt_session(call: Call) -> Response:
    """POST /sessions/{session_id}/interrupt."""
    session = await _session_without_body(call)
    return await _send(call, session, session.interrupt)


async def stop_session(call: Call) -> Response:
    """POST /sessions/{session_id}/stop."""
    session = await _session_without_body(call)
    async with call.within_redis_timeout():
        return json_response({"commandId": await session.stop()}, 202)


async def set_model(call: Call) -> Response:
    """POST /sessions/{session_id}/model."""
    body = await call.body(Model)
    session = await call.session()
    return await _send(call, session, lambda **how: session.set_model(body.model, **how))


async def set_permission_mode(call: Call) -> Response:
    """POST /sessions/{session_id}/permission-mode."""
    body = await call.body(PermissionMode)
    session = await call.session()
    return await _send(call, session, lambda **how: session.set_permission_mode(body.permission_mode, **how))


async def _session_without_body(call: Call) -> AsyncSession:
    await call.body(Nothing, required=False)
    return await call.session()


async def _send(call: Call, session: AsyncSession, send: Send, patience_s: float = 0) -> Response:
    """Send a command. Without ``?wait=``, and where its receipt does not come in time, its id is the answer."""
    wait_s = call.number("wait", 0, 0, call.services.settings.max_wait_s)
    command_id = idempotency_key(call) or new_id()
    try:
        async with call.within_redis_timeout(patience_s):
            await send(command_id=command_id)
        if not wait_s:
            return json_response({"commandId": command_id}, 202)
        try:
            # Sent again by the same id it is the same command: only its receipt is waited for.
            return json_response(await send(command_id=command_id, wait=True, timeout=wait_s))
        except (TimeoutError, RedisUnavailable):
            return json_response({"commandId": command_id}, 202)
    except CommandRejected:
        if not wait_s:
            raise
        return json_response(await session.receipt(command_id))


_WAIT: Final = Parameter("wait", "Seconds to wait for the receipt.", {"type": "number"})
_ANSWERS: Final = {
    200: "The receipt, with `wait`.",
    202: "`commandId`: it is sent.",
    409: "The session has ended, or its owner has rejected the answer.",
}
_COMMANDS: Final[tuple[tuple[str, Handler, Action, str, type], ...]] = (
    ("prompts", prompt_session, "prompt", "Send a prompt", Prompt),
    ("interrupt", interrupt_session, "prompt", "End the current turn; the session goes on", Nothing),
    ("model", set_model, "prompt", "Use another model from the next turn on", Model),
    ("permission-mode", set_permission_mode, "answer", "Use another permission mode", PermissionMode),
    ("answers/{request_id}", answer_request, "answer", "Answer an approval request or a question", object),
)
ENDPOINTS: Final = (
    *(
        Endpoint(
            "POST", f"/sessions/{{session_id}}/{path}", handler, action, summary, _ANSWERS,
            parameters=(_WAIT, IDEMPOTENCY_KEY), body=body, is_command=True,
        )
        for path, handler, action, summary, body in _COMMANDS
    ),
    Endpoint(
        "POST", "/sessions/{session_id}/stop", stop_session, "stop", "Stop a session, whichever worker owns it",
        {202: "`commandId`: it is sent."}, body=Nothing, is_command=True,
    ),
)  # fmt: skip
