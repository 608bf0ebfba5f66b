"""The table of providers: what it says agrees with the code, and packages register agents of their own in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from agentrq.wire.commands import Options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers import registry
from agentrq_worker.providers.acp.protocol import AcpProtocol
from agentrq_worker.providers.gemini import GeminiParser
from agentrq_worker.providers.parser import UnknownParser
from agentrq_worker.providers.protocol import AgentProtocol, CommandRefused
from agentrq_worker.providers.refusals import PHRASES, unsupported
from agentrq_worker.providers.registry import COMMANDS, OPTIONS, ProviderSpec, make_protocol
from agentrq_worker.session.program_lookup import RunnerNotFound, check_settings, resolve
from agentrq_worker.settings import InvalidSetting, Provider, Settings

SPECS = sorted(registry.providers().specs)
MINE = ProviderSpec(name="mine", parser=GeminiParser, program=("true",))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """What an installed package's entry point of a name loads; an exception is raised instead."""
    found: dict[str, object] = {}

    class Registration(EntryPoint):
        def load(self) -> object:
            if isinstance(loaded := found[self.name], Exception):
                raise loaded
            return loaded

    monkeypatch.setattr(
        "importlib.metadata.entry_points",
        lambda group: [Registration(name, f"package:{name}", group) for name in found],
    )
    registry.providers.cache_clear()
    yield found
    registry.providers.cache_clear()


@pytest.mark.parametrize("name", [name for name in SPECS if name in ("claude", "codex", "acp")])  # runners tell it
def test_a_command_is_supported_where_the_protocol_implements_it(name: str) -> None:
    spec = registry.providers().specs[name]
    parser = name if spec.parser is not None else "claude"
    protocol = make_protocol(spec.protocol, "s", Options(cwd="/"), parser, SessionTotal(), 1)
    for command in COMMANDS:
        implemented = getattr(type(protocol), command) is not getattr(AgentProtocol, command)
        assert (command in spec.supports) == implemented, command


def test_every_option_and_command_has_its_words() -> None:
    assert set(PHRASES) == {*OPTIONS, *COMMANDS}
    assert set(OPTIONS) < set(Options.__struct_fields__)


def test_a_runner_that_cannot_be_steered_says_so_in_words() -> None:
    runner = make_protocol("runner", "s", Options(), "claude", SessionTotal(), 1)
    with pytest.raises(CommandRefused, match=r"^this agent does not support adding a prompt to the running turn$"):
        runner.steer("more")


def test_an_option_without_effect_is_told_once_when_the_runner_has_begun() -> None:
    ollama = registry.providers().specs["ollama"]
    options = Options(model="m", worktree_name="w")
    runner = make_protocol("runner", "s", options, "ollama", SessionTotal(), 1, ollama)
    told = [getattr(said, "content", None) for said in runner.receive(b'{"type":"agent_started"}')]
    assert [content.message for content in told if content] == [f"worktree_name: {unsupported('worktree_name')}"]
    assert [getattr(said, "content", None) for said in runner.receive(b'{"type":"agent_started"}')] == [None]


def test_a_package_registers_a_provider(registered: dict[str, object]) -> None:
    registered["mine"] = MINE
    program = resolve("mine", Settings())
    assert program.argv[0].endswith("/true")
    assert (program.protocol, program.parser, program.spec) == ("runner", "mine", MINE)
    check_settings(Settings(providers={"x": Provider(parser="mine")}))


def test_a_package_brings_a_protocol_of_its_own(registered: dict[str, object]) -> None:
    registered["mine"] = dataclasses.replace(
        MINE, drive=AcpProtocol, protocol="mine-wire", supports=frozenset({"model"})
    )
    program = resolve("mine", Settings())
    assert (program.protocol, program.parser) == ("mine-wire", "mine")
    own = Settings(providers={"other-name": Provider(protocol="mine-wire", command=["x"])})
    check_settings(own)
    assert resolve("other-name", own).parser == "mine"
    protocol = make_protocol("mine-wire", "s", Options(resume="r", cwd="/"), "mine", SessionTotal(), 1)
    assert list(protocol.unsupported) == ["resume"]
    with pytest.raises(UnknownParser, match=r"Unknown parser 'claude'; parsers are mine$"):
        make_protocol("mine-wire", "s", Options(), "claude", SessionTotal(), 1)


@pytest.mark.parametrize(
    ("loaded", "reason"),
    [
        (ImportError("no such module"), "package:mine cannot be loaded: ImportError: no such module"),
        ({"name": "mine"}, "package:mine is not a ProviderSpec"),
        (ProviderSpec(name="other"), "package:mine calls itself 'other'"),
    ],
)
def test_a_registration_that_fails_costs_its_own_provider_only(
    registered: dict[str, object], loaded: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    registered["mine"] = loaded
    with pytest.raises(RunnerNotFound, match=reason):
        resolve("mine", Settings())
    assert resolve("demo", Settings()).protocol == "runner"
    check_settings(Settings())
    assert reason in caplog.text


def test_a_registration_cannot_replace_a_built_in_provider(registered: dict[str, object]) -> None:
    registered["claude"] = ProviderSpec(name="claude", program=("evil",))
    assert registry.providers().specs["claude"].program == ("claude",)
    assert "taken" in registry.providers().failed["claude"]


def test_settings_that_name_an_unknown_protocol_or_parser_are_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"^providers\.x\.protocol: unknown protocol 'y'; use one of claude, json"):
        check_settings(Settings(providers={"x": Provider(protocol="y")}))
    with pytest.raises(InvalidSetting, match=r"^providers\.x\.parser: unknown parser 'y'; use one of claude, acp, cod"):
        check_settings(Settings(providers={"x": Provider(parser="y")}))


@pytest.mark.parametrize(
    ("provider", "settings", "parser"),
    [
        ("codex", Provider(command=["x"], protocol="jsonrpc"), "codex"),
        ("my-agent", Provider(command=["x"], protocol="jsonrpc"), "acp"),
        ("gemini", Provider(command=["x"], protocol="jsonrpc"), "acp"),
        ("gemini", Provider(command=["x"]), "gemini"),
        ("my-agent", Provider(command=["x"]), "claude"),
        ("my-agent", Provider(command=["x"], parser="opencode"), "opencode"),
    ],
)
def test_a_providers_parser_follows_from_its_name_and_settings(provider: str, settings: Provider, parser: str) -> None:
    assert resolve(provider, Settings(providers={provider: settings})).parser == parser


def test_a_protocol_refuses_a_parser_of_another() -> None:
    with pytest.raises(UnknownParser, match="Unknown parser 'gemini'; parsers are acp, codex"):
        make_protocol("jsonrpc", "s", Options(), "gemini", SessionTotal(), 1)
