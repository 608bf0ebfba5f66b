"""The table of providers: one `ProviderSpec` for each kind of agent, built in or registered by another package.

Owns every fact about a kind of agent that more than one room needs: how its output is read, how it is spoken with,
which program it is, what it supports. Does not own the search for that program (session/program_lookup.py), nor what a
worker's settings say of a provider (settings.py).

A package registers an agent by an entry point of the group ``agentrq.providers`` whose object is a `ProviderSpec`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Final, NamedTuple

from agentrq.wire.commands import Options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.acp.parser import AcpParser
from agentrq_worker.providers.acp.protocol import AcpProtocol
from agentrq_worker.providers.aider import AiderParser
from agentrq_worker.providers.claude.parser import ClaudeParser
from agentrq_worker.providers.claude.protocol import ClaudeProtocol
from agentrq_worker.providers.codex.app_protocol import CodexAppProtocol
from agentrq_worker.providers.codex.auto import CodexAutoParser
from agentrq_worker.providers.gemini import GeminiParser
from agentrq_worker.providers.ollama import OllamaParser
from agentrq_worker.providers.opencode import OpencodeParser
from agentrq_worker.providers.parser import NO_TURNS, OutputParser, UnknownParser
from agentrq_worker.providers.protocol import AgentProtocol
from agentrq_worker.providers.refusals import PHRASES
from agentrq_worker.providers.runner_protocol import RunnerProtocol

GROUP: Final = "agentrq.providers"
"""The entry-point group of other packages' providers."""
RUNNER: Final = "runner"
"""The name of the runner protocol, in which any parser's events may be wrapped."""
DEFAULT_PARSER: Final = "claude"
"""What a runner prints when neither its name nor its settings say: the runner protocol grew up around Claude's."""
OPTIONS: Final = (
    "model",
    "system_prompt",
    "permission_mode",
    "config_dir",
    "additional_directories",
    "worktree_name",
    "max_budget_usd",
    "resume",
)
"""The start options that are the agent's matter; all others hold for every agent, as the worker sees to them."""
COMMANDS: Final = ("interrupt", "steer", "answer", "set_model", "set_permission_mode")
"""The commands that are the agent's matter."""
ALL: Final = frozenset(PHRASES)

MakeParser = Callable[[SessionTotal, int], OutputParser]
"""Makes a parser from the session's sums so far and the epoch of its owner."""
MakeProtocol = Callable[[Options, SessionTotal, int], AgentProtocol]
"""Makes the conversation with one process from the start's options, the sums so far and the epoch."""


@dataclass(frozen=True, kw_only=True)
class ProviderSpec:
    """One kind of agent.

    The program is ``program`` (its first word is looked for in ``places``, then on PATH) or the Python ``module``, run
    by the worker's own interpreter; neither, where only a worker's settings can say. An agent without ``drive`` is
    spoken with in the runner protocol.
    """

    name: str
    """What starts, and ``parser`` in settings, call it."""
    parser: MakeParser | None = None
    """Reads its output; None for a runner that prints the events of other agents."""
    drive: MakeProtocol | None = None
    protocol: str = RUNNER
    """What settings call the protocol of ``drive``."""
    program: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    """Paths where its installers put the program; ``~`` is the worker's home."""
    missing: str = ""
    """The session's error where the program is not installed."""
    module: str = ""
    supports: frozenset[str] = frozenset(OPTIONS)
    """Those of `OPTIONS` and `COMMANDS` that have an effect; a runner says itself which `COMMANDS` it accepts."""
    config_dir_variable: str = ""
    """The environment variable that the option ``config_dir`` becomes."""
    tested: str = ""
    """The version of the program that the tests run."""
    free: bool = False
    """Its model costs nobody anything: a turn without reported costs cost nothing."""
    own_home: bool = False
    """It looks for no login and no settings in its HOME, so that each session may have a HOME of its own."""

    def unsupported(self, options: Options) -> list[str]:
        """The options that a start gave and this agent does not support."""
        return [name for name in OPTIONS if name not in self.supports and getattr(options, name) is not None]


_RUNNERS: Final = "agentrq_worker.builtin_runners"
_JSONRPC: Final = "jsonrpc"
_BUILT_IN: Final = (
    ProviderSpec(
        name="claude",
        parser=ClaudeParser,
        drive=ClaudeProtocol,
        protocol="claude",
        program=("claude",),
        places=("~/.local/bin/claude", "~/.claude/local/claude", "/usr/local/bin/claude", "/usr/bin/claude"),
        missing="Claude CLI not found. Install Claude Code first.",
        tested="2.1.330",
        supports=ALL,
        config_dir_variable="CLAUDE_CONFIG_DIR",
    ),
    ProviderSpec(
        name="acp",
        parser=AcpParser,
        drive=AcpProtocol,
        protocol=_JSONRPC,
        supports=ALL - {"system_prompt", "worktree_name", "max_budget_usd", "config_dir", "steer"},
    ),
    ProviderSpec(
        name="codex",
        parser=CodexAutoParser,
        drive=CodexAppProtocol,
        protocol=_JSONRPC,
        program=("codex", "app-server"),
        missing="Codex CLI not found. Install it first: npm install -g @openai/codex",
        tested="0.169.0",
        supports=ALL - {"worktree_name", "max_budget_usd"},
        config_dir_variable="CODEX_HOME",
    ),
    ProviderSpec(name="gemini", parser=GeminiParser),
    ProviderSpec(name="opencode", parser=OpencodeParser),
    ProviderSpec(
        name="ollama",
        parser=OllamaParser,
        module=f"{_RUNNERS}.ollama",
        supports=frozenset({"model", "system_prompt", "resume"}),
        free=True,
        own_home=True,
    ),
    ProviderSpec(
        name="aider",
        parser=AiderParser,
        module=f"{_RUNNERS}.aider",
        supports=frozenset({"model", "permission_mode", "resume"}),
    ),
    ProviderSpec(
        name="demo",
        module=f"{_RUNNERS}.demo",
        supports=frozenset({"model", "permission_mode", "resume", "answer", "interrupt"}),
        free=True,
        own_home=True,
    ),
    ProviderSpec(name="replay", module=f"{_RUNNERS}.replay", supports=frozenset(), free=True, own_home=True),
)


class Providers(NamedTuple):
    """All specs by name, and the registrations that failed: name and reason."""

    specs: Mapping[str, ProviderSpec]
    failed: Mapping[str, str]


@functools.cache
def providers() -> Providers:
    """The built-in providers and those that installed packages register; read once a process."""
    specs = {spec.name: spec for spec in _BUILT_IN}
    failed: dict[str, str] = {}
    for found in metadata.entry_points(group=GROUP):
        try:
            spec = found.load()
        except Exception as error:  # noqa: BLE001 - another package's code: it costs its own provider, and is told
            failed[found.name] = f"{found.value} cannot be loaded: {type(error).__name__}: {error}"
            continue
        if not isinstance(spec, ProviderSpec):
            failed[found.name] = f"{found.value} is not a ProviderSpec"
        elif spec.name != found.name:
            failed[found.name] = f"{found.value} calls itself {spec.name!r}"
        elif spec.name in specs:
            failed[found.name] = f"{found.value}: the name {spec.name!r} is taken"
        else:
            specs[spec.name] = spec
    return Providers(specs, failed)


def parser_names() -> list[str]:
    """The names that settings may give as ``parser``."""
    return [spec.name for spec in providers().specs.values() if spec.parser is not None]


def protocol_names() -> list[str]:
    """The names that settings may give as ``protocol``."""
    return sorted({RUNNER, *(spec.protocol for spec in providers().specs.values())})


def default_parser(provider: str, protocol: str | None = None) -> str:
    """Whose output a provider is expected to print where its settings do not say."""
    specs = providers().specs
    own = specs.get(provider)
    if protocol in (None, RUNNER):
        return provider if own is not None and own.parser is not None else DEFAULT_PARSER
    if own is not None and own.protocol == protocol:
        return provider
    driven = [spec.name for spec in specs.values() if spec.protocol == protocol]
    return driven[0] if driven else DEFAULT_PARSER


def make_parser(name: str, total: SessionTotal = NO_TURNS, epoch: int = 1) -> OutputParser:
    """A new parser for one owner of one session; raises `UnknownParser`."""
    spec = providers().specs.get(name)
    if spec is None or spec.parser is None:
        raise UnknownParser(name, parser_names())
    return spec.parser(total, epoch)


def make_protocol(
    protocol: str,
    session_id: str,
    options: Options,
    parser: str,
    total: SessionTotal,
    epoch: int,
    runner: ProviderSpec | None = None,
) -> AgentProtocol:
    """The conversation of one owner of one session with its agent; raises `UnknownParser`.

    ``runner`` is what is known of a program that speaks the runner protocol. ``options`` that the agent does not
    support are told in the session's stream.
    """
    if protocol == RUNNER:
        conversation: AgentProtocol = RunnerProtocol(
            session_id, options, parser, partial(make_parser, epoch=epoch), total
        )
        conversation.unsupported = [] if runner is None else runner.unsupported(options)
        return conversation
    specs = providers().specs
    spec = specs.get(parser)
    if spec is None or spec.drive is None or spec.protocol != protocol:
        raise UnknownParser(parser, _driven_by(protocol, specs.values()))
    conversation = spec.drive(options, total, epoch)
    conversation.unsupported = spec.unsupported(options)
    return conversation


def _driven_by(protocol: str, specs: Iterable[ProviderSpec]) -> list[str]:
    return [spec.name for spec in specs if spec.drive is not None and spec.protocol == protocol]
