"""Settings: where each comes from, which source wins, and what is said of one that is wrong."""

from pathlib import Path
from typing import Any

import pytest

from agentrq_worker.settings import InvalidSetting, Provider, Settings, load


def test_the_nearer_source_wins(tmp_path: Path) -> None:
    config = tmp_path / "agentrq.toml"
    config.write_text('lease_s = 20.0\nmax_sessions = 7\nqueue = "file"\n')
    environment = {"AGENTRQ_MAX_SESSIONS": "8", "AGENTRQ_QUEUE": "environment", "AGENTRQ_PREFIX": ""}
    found = load(str(config), environment, {"queue": "option", "max_line": None})
    assert (found.lease_s, found.max_sessions, found.queue) == (20.0, 8, "option")
    assert (found.prefix, found.max_line) == (Settings().prefix, Settings().max_line)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_sessions", "0", "--max-sessions: 0 is out of range, use a number above 0"),
        ("max_sessions", "many", "--max-sessions: 'many' is not a whole number"),
        ("lease_s", "4", "beat_s (2.5) must be at most half of lease_s (4)"),
        ("metrics_port", "70000", "--metrics-port: 70000 is not a port, use 1 to 65535"),
        ("name", "a b", "--name: use 1 to 100 of A-Z a-z 0-9 _ . -"),
        ("queue", "", "--queue: is empty"),
        ("prefix", "", "--prefix: is empty"),
    ],
)
def test_an_option_that_is_wrong(name: str, value: str, said: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load(environment={}, options={name: value})
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lease = 3", "unknown setting; settings are "),
        ('max_sessions = "3"', "max_sessions: '3' is not a whole number"),
        ("lease_s =", "Invalid value"),
        ("providers = 1", "providers: expected tables [providers.NAME]"),
        ("[providers.x]\ncommand = []", "providers.x.command: is empty"),
        ("[providers.x]\nparser = 3", "providers.x: Expected `str"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "agentrq.toml"
    config.write_text(text)
    with pytest.raises(InvalidSetting) as caught:
        load(str(config), {})
    assert str(caught.value).startswith(str(config))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"gone\.toml: No such file or directory"):
        load(str(tmp_path / "gone.toml"), {})


def test_a_variable_is_named(tmp_path: Path) -> None:
    bad: dict[str, Any] = {"AGENTRQ_LEASE_S": "soon"}
    with pytest.raises(InvalidSetting, match="AGENTRQ_LEASE_S: 'soon' is not a number"):
        load(environment=bad)


def test_the_former_names_of_a_providers_keys_are_accepted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "agentrq.toml"
    config.write_text('[providers.x]\ndialect = "jsonrpc"\nadapter = "acp"\n')
    assert load(str(config), {}).providers["x"] == Provider(protocol="jsonrpc", parser="acp")
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f"{config}: providers.x: dialect is now called protocol; adapter is now called parser"


def test_a_key_given_by_both_its_names_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "agentrq.toml"
    config.write_text('[providers.x]\nparser = "acp"\nadapter = "claude"\n')
    with pytest.raises(InvalidSetting, match=r"providers\.x: give parser, not adapter, which is its old name$"):
        load(str(config), {})
