"""What an RQ job asks for: its function and arguments, read and checked. Pure; nothing is imported or run.

Functions are looked up by name in an allow-list. Does not own what is done with a request (job_handler.py).
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec
from rq.exceptions import DeserializationError

from agentrq.errors import AgentRQError, InvalidOption
from agentrq.wire.codec import encode
from agentrq.wire.commands import (
    FUNCTIONS,
    START,
    Command,
    CommandName,
    Options,
    check_text,
    make_command,
    make_options,
)
from agentrq.wire.ids import check_session_id
from agentrq_worker.rq.job import SessionJob

MOST_PARTS: Final = 1_000_000
"""Lists, objects and their members in the data of one job."""
_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_PICKLES: Final = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
"""How the data begins that Python's pickle writes, from its second protocol on."""


class ForeignFunction(AgentRQError):
    """A job in agentrq's queues names a function that is not agentrq's, or its data is not agentrq's JSON."""


class StartRequest(NamedTuple):
    """``agentrq.start``; its provider, prompt and options are checked by `start_arguments`, where they are needed."""

    session_id: str
    arguments: dict[str, Any]


class CommandRequest(NamedTuple):
    """Any other function: a command for a session that exists."""

    session_id: str
    command: Command


Request: TypeAlias = StartRequest | CommandRequest


def read_request(job: SessionJob, timestamp: int) -> Request:
    """What a job asks for; ``timestamp`` (ms) becomes a command's. Raises `AgentRQError` for what is not agentrq's."""
    name, arguments = read_call(job)
    session_id = arguments.get("session_id")
    if name == START:
        return StartRequest(check_session_id(job.id if session_id is None else session_id), arguments)
    command = Command(
        command_id=job.id,
        command=cast(CommandName, name.removeprefix("agentrq.")),
        timestamp=timestamp,
        text=arguments.get("prompt"),
        mode=arguments.get("mode") or "queue",
        request_id=arguments.get("request_id"),
        answer=arguments.get("answer"),
    )
    return CommandRequest(check_session_id(session_id), make_command(command))


def read_call(job: SessionJob) -> tuple[str, dict[str, Any]]:
    """A job's function and its arguments by name. Raises `ForeignFunction`, `InvalidOption`."""
    try:
        data = job.data
        if data.startswith(_PICKLES):
            raise ForeignFunction(
                'The job was pickled, and agentrq reads only JSON: enqueue it on Queue(…, serializer="json")'
            )
        if has_too_many_parts(data):
            raise ForeignFunction(f"The job's data has more than {MOST_PARTS} parts")
        name = str(job.func_name)
        args: Any = job.args
        kwargs: Any = job.kwargs
    except (DeserializationError, TypeError, ValueError) as error:
        raise ForeignFunction(f"The job's data cannot be read as JSON: {error.__cause__ or error}") from None
    parameters = ("session_id", "provider", "prompt", "options") if name == START else FUNCTIONS.get(name)
    if parameters is None:
        raise ForeignFunction(f"{name[:200]!r} is not run here: agentrq runs only {', '.join([START, *FUNCTIONS])}")
    takes = f"takes {', '.join(parameters)}"
    args, kwargs = () if args is None else args, {} if kwargs is None else kwargs
    if not isinstance(args, list | tuple) or len(args) > len(parameters) or not isinstance(kwargs, dict):
        raise InvalidOption(name, takes)
    arguments = dict(zip(parameters, args, strict=False))
    for key, value in kwargs.items():
        if key not in parameters or key in arguments:
            raise InvalidOption(f"{name}({key[:80]})", f"given twice; {name} {takes}" if key in arguments else takes)
        arguments[key] = value
    for key, value in arguments.items():
        try:
            arguments[key] = msgspec.json.decode(encode(value))  # lone surrogates are replaced
        except (UnicodeError, RecursionError, msgspec.MsgspecError, TypeError, OverflowError) as error:
            raise InvalidOption(key, f"cannot be written as JSON: {error}") from None
    return name, arguments


def start_arguments(request: StartRequest, job: SessionJob) -> tuple[str, str, Options]:
    """Provider, prompt and options of a start that came without a state; RQ's job timeout is its longest life.

    Raises `InvalidOption`.
    """
    arguments = request.arguments
    provider, prompt = (check_text(name, arguments.get(name)) for name in ("provider", "prompt"))
    given = arguments.get("options")
    if given is not None and not isinstance(given, dict):
        raise InvalidOption("options", "Expected an object")
    options = make_options(given or {})
    timeout: Any = job.timeout  # in seconds; -1 for ever, absent in a job that was written by hand
    if timeout is not None and timeout > 0:
        options = msgspec.structs.replace(options, timeout_s=min(timeout, options.timeout_s or timeout))
    return provider, prompt, options


def has_too_many_parts(data: bytes) -> bool:
    """Whether JSON of this size would take a hundred times as much memory. A text is one part, whatever it holds."""
    if _count_parts(data) <= MOST_PARTS:
        return False
    if data.count(b'"') - data.count(b'\\"') > 2 * MOST_PARTS:
        return True
    return _count_parts(_TEXT.sub(b"", data)) > MOST_PARTS


def _count_parts(data: bytes) -> int:
    return sum(map(data.count, (b"[", b"{", b",")))
