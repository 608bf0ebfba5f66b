"""The commands a session takes: start with its options, and what goes through the inbox.

Owns their shapes and the check of what a caller gave; how they travel is the client's and the worker's matter.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from typing import Any, Final, Literal, get_args

import msgspec

from agentrq.errors import InvalidOption
from agentrq.wire.approval_policy import InvalidPolicy, read_policy
from agentrq.wire.codec import encode, encoder

START: Final = "agentrq.start"
FUNCTIONS: Final = {
    "agentrq.prompt": ("session_id", "prompt", "mode"),
    "agentrq.answer": ("session_id", "request_id", "answer"),
    "agentrq.interrupt": ("session_id",),
    "agentrq.stop": ("session_id",),
}
"""RQ function names that append to an inbox, and their parameters in order. With `START`: the allow-list."""

PromptMode = Literal["queue", "steer", "interrupt"]
CommandName = Literal["prompt", "answer", "interrupt", "stop", "set_model", "set_permission_mode"]


class Options(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """The options of a start, all optional. Seconds are floats > 0; ``metadata`` is echoed in the state."""

    cwd: str | None = None
    model: str | None = None
    system_prompt: str | None = None
    max_turns: int | None = None
    permission_mode: str | None = None
    config_dir: str | None = None
    extra_env: dict[str, str] | None = None
    additional_directories: list[str] | None = None
    worktree_name: str | None = None
    resume: str | None = None
    max_budget_usd: float | None = None
    timeout_s: float | None = None
    turn_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    on_interrupt: Literal["idle", "continue", "fail"] | None = None
    max_recoveries: int | None = None
    approvals: dict[str, Any] | str | None = None
    metadata: dict[str, str] | None = None


_ANNOTATIONS = typing.get_type_hints(Options)
_AT_LEAST = {"max_turns": 1, "max_recoveries": 0}
_POSITIVE = ("max_budget_usd", "timeout_s", "turn_timeout_s", "idle_timeout_s")
WIRE_NAMES: Final = dict(zip(Options.__struct_fields__, Options.__struct_encode_fields__, strict=True))
_SURROGATE: Final = "has a lone surrogate, which no UTF-8 can carry"
_FIELD_OF: Final = {wire: field for field, wire in WIRE_NAMES.items()}


def make_options(given: dict[str, Any]) -> Options:
    """Check options given by name, in snake_case or as on the wire (a ``None`` is as good as absent).

    Raises `InvalidOption` naming the field.
    """
    values: dict[str, Any] = {}
    size = 0
    for name, value in given.items():
        field = _FIELD_OF.get(name, name)
        if field not in _ANNOTATIONS:
            raise InvalidOption(name, "unknown; options are " + ", ".join(Options.__struct_fields__))
        if value is not None:
            values[field] = _convert(name, field, value)
            try:
                size += len(encoder.encode(values[field]))
            except UnicodeEncodeError:
                raise InvalidOption(name, _SURROGATE) from None
    if size > MAX_PROMPT_BYTES:
        raise InvalidOption(
            "options", f"have {size} bytes, over {MAX_PROMPT_BYTES}: put them in a file of the workspace"
        )
    return Options(**values)


def _convert(name: str, field: str, value: Any) -> Any:
    try:
        value = msgspec.convert(value, _ANNOTATIONS[field], strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidOption(name, str(error)) from None
    if field in _POSITIVE and not 0 < value < float("inf"):
        raise InvalidOption(name, f"Expected a number above 0, got {value}")
    if value is not None and field in _AT_LEAST and not _AT_LEAST[field] <= value < 2**53:
        raise InvalidOption(name, f"Expected a whole number from {_AT_LEAST[field]}, got {value}")
    if isinstance(value, str) and "\0" in value:
        raise InvalidOption(name, "has a NUL character")
    if field == "approvals":
        try:
            read_policy(value)
        except InvalidPolicy as error:
            raise InvalidOption(name, str(error)) from None
    return value


def parse_option(name: str, text: str) -> Any:
    """The value of ``NAME=VALUE`` as a command line gives it: text where the option takes text, else JSON.

    An option that takes both, as ``approvals`` does, takes an object by its brace.
    """
    field = _FIELD_OF.get(name, name)
    if field not in _ANNOTATIONS:
        raise InvalidOption(name, "unknown; options are " + ", ".join(Options.__struct_fields__))
    kinds = {kind for kind in get_args(_ANNOTATIONS[field]) if kind is not types.NoneType}
    either = any(typing.get_origin(kind) is dict for kind in kinds) and text.lstrip().startswith("{")
    if (str in kinds and not either) or any(typing.get_origin(kind) is Literal for kind in kinds):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidOption(name, f"{text[:80]!r} is no JSON value ({error})") from None


class Command(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """One entry of an inbox (its only field is ``command``); which members count depends on ``command``.

    ``text`` is the prompt, the model or the permission mode.
    ``timestamp`` is when the client sent it, in ms since the epoch.
    """

    command_id: str
    command: CommandName
    timestamp: int = 0
    text: str | None = None
    mode: PromptMode = "queue"
    request_id: str | None = None
    answer: Any = None


MAX_PROMPT_BYTES: Final = 8 * 1024 * 1024
"""A longer prompt or answer is refused by the client: it has to fit a runner's line and the inbox."""

MAX_DEPTH: Final = 500
"""Levels of lists and objects that an answer may have: any reader of JSON takes so many (cjson in Redis 1000)."""

MAX_INBOX: Final = 1000
"""Commands that may wait for a session's owner; the next is refused, nothing is lost."""


def check_text(name: str, value: object) -> str:
    """A provider's name or a prompt: a text that is neither empty nor too long; raises `InvalidOption`."""
    if not isinstance(value, str) or not value:
        raise InvalidOption(name, "Expected a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidOption(name, _SURROGATE) from None
    if len(value) > MAX_PROMPT_BYTES or len(encode(value)) > MAX_PROMPT_BYTES:
        raise InvalidOption(name, f"is over {MAX_PROMPT_BYTES} bytes: put it in a file of the workspace")
    return value


def check_command_id(value: object) -> str:
    """A command's id, of 1 to 200 characters; raises `InvalidOption`."""
    found = check_text("command_id", value)
    if len(found) > 200:
        raise InvalidOption("command_id", "Expected 1 to 200 characters")
    return found


def make_command(command: Command) -> Command:
    """Check a command before it is sent; raises `InvalidOption` naming the member."""
    check_command_id(command.command_id)
    if command.command == "prompt":
        check_text("prompt", command.text)
        if command.mode not in get_args(PromptMode):
            raise InvalidOption("mode", f"Expected one of {', '.join(get_args(PromptMode))}, got {command.mode!r}")
    if command.command in ("set_model", "set_permission_mode"):
        check_text(command.command.removeprefix("set_"), command.text)
    if command.command == "answer":
        check_text("request_id", command.request_id)
        _check_answer(command.answer)
    return command


def _check_answer(answer: Any) -> None:
    try:
        size = len(encode(answer))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidOption("answer", f"cannot be written as JSON: {error}") from None
    if size > MAX_PROMPT_BYTES:
        raise InvalidOption("answer", f"is over {MAX_PROMPT_BYTES} bytes")
    level = [answer]
    for _ in range(MAX_DEPTH + 1):
        level = [item for value in level for item in _items(value)]
        if not level:
            return
    raise InvalidOption("answer", f"is nested too deeply: over {MAX_DEPTH} levels")


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()
