"""The commands a session takes: start with its options, and what goes through the inbox.

Owns their shapes and the check of what a caller gave; how they travel is the client's and the worker's matter.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, Final, Literal, get_args

import msgspec

from agentrq.errors import InvalidOption
from agentrq.wire.approval_policy import InvalidPolicy, read_policy
from agentrq.wire.codec import encode, encoder
from agentrq.wire.workspace import Workspace

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
    """The agent's working directory, on the worker's machine. Default: the worker's own."""
    model: str | None = None
    """The model, by the provider's own name for it. Default: the agent's own."""
    system_prompt: str | None = None
    """A text that is added to the agent's system prompt, where the provider supports it. It may be long: it reaches the
    agent by its standard input and shows in no list of processes.
    """
    max_turns: int | None = None
    """The session ends (`done`, `max_turns`) when it has had this many turns. Default: no limit."""
    permission_mode: str | None = None
    """What the agent may do without asking. Default: `bypassPermissions`, everything, because nobody sits at a worker;
    the worker's policy may allow less.
    """
    config_dir: str | None = None
    """The agent's configuration directory: it becomes the provider's own variable (`CLAUDE_CONFIG_DIR`, `CODEX_HOME`).
    """
    extra_env: dict[str, str] | None = None
    """Further environment variables of the agent, each of at most 130 000 bytes. Not for secrets: options stand in
    Redis and are shown.
    """
    additional_directories: list[str] | None = None
    """Further directories that the agent may work in, where the provider supports it."""
    worktree_name: str | None = None
    """A git worktree that the agent makes and works in (Claude Code's `--worktree`); other agents report it as
    `unsupported_option`. Letters, digits and `. _ / -`, at most 200, without `..`.
    """
    workspace: Workspace | None = None
    """Files that the worker makes for the session, where the agent then works: `{"git": ADDRESS}` with `ref`, `depth`,
    `credentials` and `path`, or `{"copy": DIRECTORY}`. Not together with `cwd`. Default: none, the agent works in
    `cwd`.
    """
    on_end: Literal["none", "branch"] | None = None
    """What becomes of a workspace's changes when the session ends, however it ends: `none` (the default), the
    checkpoints are kept; `branch`, they are pushed to the repository as the branch `agentrq/SESSION`.
    """
    resume: str | None = None
    """A provider's session id (`providerSessionId`): the agent goes on with that conversation."""
    max_budget_usd: float | None = None
    """The most that the session may cost, in USD. Enforced by agents that know it (Claude Code)."""
    timeout_s: float | None = None
    """Seconds from the first `startedAt`, recoveries included, after which the session ends (`error`, `timeout`).
    Default: no limit.
    """
    turn_timeout_s: float | None = None
    """Seconds after which a turn is interrupted, where the provider supports it. If it does not, or if the turn still
    runs 10 s later, the session ends (`error`, `timeout`). The time goes on while the turn waits for an answer.
    Default: no limit.
    """
    idle_timeout_s: float | None = None
    """Seconds after which an idle session ends (`done`, `idle_timeout`; `error` where its last turn was cut). While
    background work of the agent runs, the session is not idle; work that reports nothing counts for an hour. Default:
    no limit.
    """
    on_interrupt: Literal["idle", "continue", "fail"] | None = None
    """What follows when the loss of a worker cut a turn: `idle` (the default) waits for a prompt, `continue` asks the
    agent to go on, `fail` ends the session.
    """
    max_recoveries: int | None = None
    """How many times in a row turns may be cut by the loss of a worker, with no whole turn in between. One more ends
    the session (`error`, `lost`). Default: 3.
    """
    approvals: dict[str, Any] | str | None = None
    """The session's own approval policy: who decides when the agent asks for permission. Default: `ask`, a person."""
    metadata: dict[str, str] | None = None
    """Texts by name, shown in the state. Not for secrets."""
    tenant: str | None = None
    """Who pays: the customer, 1 to 64 of `A-Z a-z 0-9 . _ @ : + / -`. In the state, the feed, the costs and lists; the
    state's `metadata` has it too.
    """
    user: str | None = None
    """Who pays: the person, as `tenant`."""
    project: str | None = None
    """Who pays: the project, as `tenant`."""


MAX_ARGUMENT_BYTES: Final = 130_000
"""A longer option that becomes an argument or a variable of the agent is refused: Linux takes less than 128 KiB."""
_ARGUMENTS: Final = frozenset(
    {"cwd", "model", "permission_mode", "config_dir", "extra_env", "additional_directories", "worktree_name", "resume"}
)
"""The options that become arguments or variables of the agent. A system prompt reaches it by its standard input."""

_ANNOTATIONS = typing.get_type_hints(Options)
_AT_LEAST = {"max_turns": 1, "max_recoveries": 0}
_POSITIVE = ("max_budget_usd", "timeout_s", "turn_timeout_s", "idle_timeout_s")
WIRE_NAMES: Final = dict(zip(Options.__struct_fields__, Options.__struct_encode_fields__, strict=True))
PAYERS: Final = ("tenant", "user", "project")
"""The options that say who pays."""
_PAYER: Final = re.compile(r"[A-Za-z0-9._@:+/][A-Za-z0-9._@:+/-]{0,63}")
_SURROGATE: Final = "has a lone surrogate, which no UTF-8 can carry"
_FIELD_OF: Final = {wire: field for field, wire in WIRE_NAMES.items()}


def make_options(given: dict[str, Any]) -> Options:
    """Check options given by name, in snake_case or as on the wire (``None`` counts as absent).

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
    for name in PAYERS:
        if name in values and (values.get("metadata") or {}).get(name, values[name]) != values[name]:
            raise InvalidOption(name, "metadata names another one")
    if values.get("cwd") is not None and values.get("workspace") is not None:
        raise InvalidOption("workspace", "has a directory of its own: leave out cwd, name a directory below it by path")
    if values.get("on_end") == "branch" and (values.get("workspace") is None or values["workspace"].git is None):
        raise InvalidOption("on_end", "a branch needs a workspace of a git repository")
    return Options(**values)


def payers(options: Options) -> dict[str, str]:
    """Who pays for a session, by the options' names; what was not given is left out."""
    given = {name: getattr(options, name) for name in PAYERS}
    return {name: value for name, value in given.items() if value is not None}


def check_payer(name: str, value: object) -> str:
    """A tenant, user or project. Raises `InvalidOption` with ``name``."""
    if not isinstance(value, str) or not _PAYER.fullmatch(value):
        raise InvalidOption(name, f"Expected 1 to 64 of A-Z a-z 0-9 . _ @ : + / -, no dash first, got {value!r}"[:200])
    return value


def _convert(name: str, field: str, value: Any) -> Any:
    try:
        value = msgspec.convert(value, _ANNOTATIONS[field], strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidOption(name, str(error)) from None
    if field in _POSITIVE and not 0 < value < float("inf"):
        raise InvalidOption(name, f"Expected a number above 0, got {value}")
    if value is not None and field in _AT_LEAST and not _AT_LEAST[field] <= value < 2**53:
        raise InvalidOption(name, f"Expected a whole number from {_AT_LEAST[field]}, got {value}")
    if field != "approvals" and any("\0" in text for text in _texts_in(value)):
        raise InvalidOption(name, "has a NUL character")
    if field in _ARGUMENTS and (longest := _longest(value)) > MAX_ARGUMENT_BYTES:
        raise InvalidOption(name, f"has {longest} bytes, over {MAX_ARGUMENT_BYTES}: the system takes no longer one")
    if field in PAYERS:
        check_payer(name, value)
    if field == "approvals":
        try:
            read_policy(value)
        except InvalidPolicy as error:
            raise InvalidOption(name, str(error)) from None
    return value


def _texts_in(value: Any) -> Iterable[str]:
    """The texts of an option that is a text, a list of them or a map of them."""
    if isinstance(value, dict):
        return (text for item in value.items() for text in item if isinstance(text, str))
    return (value,) if isinstance(value, str) else value if isinstance(value, list) else ()


def _longest(value: Any) -> int:
    """Bytes of the longest text: of a text, a list of texts, or variables with their names."""
    texts = [name + text for name, text in value.items()] if isinstance(value, dict) else _texts_in(value)
    return max((len(text.encode("utf-8", "surrogatepass")) for text in texts), default=0)


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
        raise InvalidOption(name, f"{text[:80]!r} is not a JSON value ({error})") from None


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

MAX_TIMEOUT_S: Final = 1e9
"""A longer timeout counts as this one: some thirty years."""

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


def check_timeout(value: object) -> float | None:
    """A bound in seconds, None for none; raises `InvalidOption` for what is not a number (nan is not)."""
    if value is None:
        return None
    if (
        (isinstance(value, float) and math.isnan(value))
        or isinstance(value, bool)
        or not isinstance(value, int | float)
    ):
        raise InvalidOption("timeout", f"Expected seconds or None, got {value!r}"[:200])
    return float(max(-MAX_TIMEOUT_S, min(value, MAX_TIMEOUT_S)))


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
