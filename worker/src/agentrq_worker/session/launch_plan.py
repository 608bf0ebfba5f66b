"""Prepares what is spawned for a claimed session: program, environment, confinement, protocol.

Owns which texts are secrets, and what may not be handed to a program. Does not spawn anything nor decide a status.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from agentrq.wire.call_targets import Directories
from agentrq.wire.commands import Options
from agentrq.wire.messages import SessionTotal
from agentrq.wire.status import Reason, Status
from agentrq_worker.process import marks
from agentrq_worker.process.environment import build_environment, is_public
from agentrq_worker.process.redact import Redactor
from agentrq_worker.providers.parser import UnknownParser
from agentrq_worker.providers.protocol import AgentProtocol
from agentrq_worker.providers.registry import RUNNER, make_protocol
from agentrq_worker.sandbox.plan import OWN_HOME, CannotConfine, ConfinedCommand, Home, complaint, confine
from agentrq_worker.session.program_lookup import Program, RunnerNotFound, resolve
from agentrq_worker.session_types import Outcome
from agentrq_worker.settings import Settings
from agentrq_worker.start_policy import LONGEST_ARGUMENT, NotAllowed, admit, bounded, entered

log = logging.getLogger(__name__)


class CannotLaunch(Exception):
    """A session's runner cannot be started; the text is the session's error."""

    def __init__(self, text: str, reason: Reason = Reason.FAILED) -> None:
        super().__init__(text)
        self.reason = reason


class Launch(NamedTuple):
    """A program ready to be spawned, and how to speak with it."""

    argv: list[str]
    environment: dict[str, str]
    cwd: str | None
    protocol: AgentProtocol
    redactor: Redactor
    confined: ConfinedCommand | None = None
    home: Home | None = None
    roots: list[str] | None = None
    held: list[str] = []  # noqa: RUF012 - never changed
    """Directories besides ``cwd`` that the start asked for."""

    @property
    def enforced(self) -> str:
        """What holds for the runner, for people; empty where nothing does."""
        if self.confined is not None:
            return self.confined.enforced
        return OWN_HOME if self.home is not None else ""

    def explain_exit(self, code: int | None, stderr_tail: str) -> Outcome | None:
        """What an exit means that came before the agent itself: its sandbox says so."""
        said = complaint(code, stderr_tail) if self.confined is not None and code else None
        if said is None:
            return None
        refused, error = said
        return Outcome(Status.ERROR, Reason.REFUSED if refused else Reason.FAILED, error)

    @property
    def directories(self) -> Directories:
        """What the paths of the agent's calls are read against; links are resolved on this machine."""
        return Directories(self.cwd or os.getcwd(), self.environment.get("HOME"), os.path.realpath)

    @contextlib.contextmanager
    def spawning(self) -> Iterator[dict[str, Any]]:
        """The arguments of `RunnerProcess.spawn`, good for one spawn. Raises `CannotLaunch`, OSError."""
        confined = self.confined
        with contextlib.ExitStack() as stack:
            try:
                cwd = stack.enter_context(entered(self.roots, self.cwd, self.held))
            except NotAllowed as error:
                raise CannotLaunch(str(error), Reason.REFUSED) from None
            if confined is None:
                yield {"argv": self.argv, "env": self.environment, "cwd": cwd}
                return
            plan = stack.enter_context(confined.plan)
            # An environment of its own: what a start may set must not reach the interpreter that confines.
            yield {"argv": confined.argv, "env": {}, "cwd": cwd, "pass_fds": [plan.fileno()]}


def with_defaults(provider: str, options: Options, settings: Settings) -> Options:
    """A start's options, those it left out taken from the provider's settings."""
    configured = settings.providers.get(provider)
    if configured is not None and configured.options:
        given = {name: value for name, value in msgspec.structs.asdict(options).items() if value is not None}
        options = msgspec.structs.replace(configured.defaults(), **given)
    return bounded(settings.start_policy, options)


def prepare(
    session_id: str,
    provider: str,
    given: Options,
    options: Options,
    total: SessionTotal,
    epoch: int,
    settings: Settings,
    workspace: str | None = None,
) -> Launch:
    """Everything a spawn needs: ``given`` is what the start asked for, ``options`` that `with_defaults`.

    ``workspace``: the directory that was made for the session; the agent may write all of it. Raises `CannotLaunch`.
    """
    try:
        options = admit(settings.start_policy, provider, given, options)
    except NotAllowed as error:
        raise CannotLaunch(str(error), Reason.REFUSED) from None
    try:
        program = resolve(provider, settings)
        if program.protocol != RUNNER:  # protocols name the directory to the agent, which needs it in full
            options = msgspec.structs.replace(options, cwd=os.path.abspath(options.cwd or "."))
        if settings.approvals is not None:  # what a worker forbids has to be asked for
            options = msgspec.structs.replace(options, approvals=settings.approvals)
        protocol = make_protocol(
            program.protocol, session_id, options, program.parser, total, epoch, program.spec
        )  # fmt: skip
    except (RunnerNotFound, UnknownParser) as error:
        raise CannotLaunch(str(error)) from None
    if program.settings.parser is not None:  # who says what it prints, holds it to that
        protocol.tells_turn_end = True
    defaults = (options.extra_env or {}) if given.extra_env is None else {}  # of the settings: the operator's word
    environment = build_environment(
        os.environ,
        config_dir_variable=program.config_dir_variable,
        config_dir=options.config_dir,
        extra_env=given.extra_env or {},
        pass_env=program.settings.pass_env,
        settings_env=program.settings.env | defaults,
        policy=settings.start_policy,
    )
    if environment.refused:
        log.warning("session %s: extra_env refused: %s", session_id, ", ".join(environment.refused))
    argv = protocol.command(program.argv, options)
    _check_lengths(argv, environment.variables)
    launch = Launch(
        argv, environment.variables, options.cwd, protocol,
        Redactor(_secrets(program, settings)), roots=_roots(settings, workspace), held=_held(given, options),
    )  # fmt: skip
    try:
        return _sandboxed(launch, program, session_id, options, settings, workspace)
    except CannotConfine as error:
        raise CannotLaunch(str(error), Reason.REFUSED) from None
    except FileNotFoundError as error:
        raise CannotLaunch(why_not_spawned(launch, error)) from None


def _check_lengths(argv: list[str], variables: Mapping[str, str]) -> None:
    """Raises `CannotLaunch` for a text that the system cannot hand to a program."""
    texts = {f"variable {name[:80]!r}": f"{name}={value}" for name, value in variables.items()}
    texts |= {f"argument {place} of {argv[0][:80]!r}": text for place, text in enumerate(argv)}
    for what, text in texts.items():
        size = len(text.encode(errors="surrogatepass")) if len(text) > LONGEST_ARGUMENT // 4 else 0
        if size > LONGEST_ARGUMENT:
            error = f"The {what} has {size} bytes, over {LONGEST_ARGUMENT}: put it in a file of the workspace"
            raise CannotLaunch(error, Reason.REFUSED)


def _held(given: Options, options: Options) -> list[str]:
    """What the start itself asked for is held to the roots, the operator's defaults are not."""
    directories = options.additional_directories if given.additional_directories else None
    return [*(directories or ()), *([options.config_dir] if given.config_dir and options.config_dir else ())]


def _roots(settings: Settings, workspace: str | None) -> list[str] | None:
    """Where the agent's directory may be: what was made for its session is not the start's word."""
    roots = settings.start_policy.roots
    return roots if roots is None or workspace is None else [*roots, workspace]


def _sandboxed(
    launch: Launch, program: Program, session_id: str, options: Options, settings: Settings, workspace: str | None
) -> Launch:
    sandbox = program.settings.sandbox
    own = sandbox.own_home if sandbox is not None else None
    home = None
    if own or (own is None and program.spec is not None and program.spec.own_home):
        home = Home.make(settings.homes_path, session_id, sandbox.login if sandbox is not None else ())
    environment = launch.environment | (home.variables if home is not None else {})
    if sandbox is None:
        return launch._replace(environment=environment, home=home)
    named = (options.config_dir, workspace)
    extra = [*(options.additional_directories or ()), *(path for path in named if path is not None)]
    confined = confine(
        sandbox, launch.argv, environment, workspace=extra, roots=launch.roots, home=home,
        read=[settings.runners_dir] if settings.runners_dir else (), keep_variables=[marks.MARK_VARIABLE],
    )  # fmt: skip
    return launch._replace(environment=environment, confined=confined, home=home)


def _secrets(program: Program, settings: Settings) -> Iterator[str]:
    """The values that no runner's output may carry on: what settings name, and the way into Redis."""
    public = program.settings.public_env
    named = {name: os.environ[name] for name in program.settings.pass_env if name in os.environ} | program.settings.env
    for name, value in named.items():
        if not (is_public(name) or name in public or (os.path.isabs(value) and os.path.exists(value))):
            yield value
    password = urlsplit(settings.redis_url or "").password
    if password:
        yield unquote(password)


def why_not_spawned(launch: Launch, error: Exception) -> str:
    """What a failed spawn means to a user."""
    if launch.cwd is not None and not os.path.isdir(launch.cwd):
        return f"Working directory not found: {launch.cwd}"
    if isinstance(error, FileNotFoundError) and os.path.exists(launch.argv[0]):
        return f"Runner could not be started: {launch.argv[0]}: what its first line names as interpreter is not there"
    if isinstance(error, FileNotFoundError):
        return f"Runner not found: {launch.argv[0]}"
    return f"Runner could not be started: {launch.argv[0]}: {error}"
