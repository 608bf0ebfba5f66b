"""The allow-list of the contract, name by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq_worker.process.environment import build_environment

ALLOWED = [
    "PATH",
    "HOME",
    "USER",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TERM",
    "TZ",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "HTTP_PROXY",
    "https_proxy",
    "NO_PROXY",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CLAUDE_CODE_EXPERIMENTAL_AGENT_TEAMS",
]
PROVIDERS_OWN = [
    "CLAUDECODE",
    "CLAUDE_CONFIG_DIR",
    "CLAUDE_CODE_ENTRYPOINT",
    "CODEX_HOME",
    "OLLAMA_HOST",
    "ANTHROPIC_API_KEY",
    "AIDER_X",
]
OTHERS = [
    "AWS_SECRET_ACCESS_KEY",
    "AGENTRQ_REDIS_URL",
    "OPENAI_API_KEY",
    "LD_PRELOAD",
    "PYTHONPATH",
    "PATHX",
    "LC",
    "ANTHROPIC",
]


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed_names_pass(name: str) -> None:
    assert build_environment({name: "v"}).variables == {name: "v"}


@pytest.mark.parametrize("name", PROVIDERS_OWN + OTHERS)
def test_nothing_else_passes(name: str) -> None:
    assert build_environment({name: "v"}).variables == {}


@pytest.mark.parametrize("name", PROVIDERS_OWN + OTHERS)
def test_what_the_settings_name_passes(name: str) -> None:
    assert build_environment({name: "v", "X": "y"}, pass_env=[name, "ABSENT"]).variables == {name: "v"}
    assert build_environment({}, settings_env={name: "w"}).variables == {name: "w"}


@pytest.mark.parametrize(
    "name",
    [*PROVIDERS_OWN, "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "AGENTRQ_RUNNER_MARK"],
)
def test_a_start_may_not_set_them(name: str) -> None:
    made = build_environment({}, extra_env={name: "evil", "MY": "own"}, settings_env={name: "good"})
    assert made == ({name: "good", "MY": "own"}, [name])


@pytest.mark.parametrize(("name", "value"), [("", "v"), ("A=B", "v"), ("A\0B", "v"), ("A", "v\0"), ("A", "\ud800")])
def test_what_the_system_cannot_take_is_refused(name: str, value: str) -> None:
    assert build_environment({}, extra_env={name: value}) == ({}, [name])


def test_later_sources_win() -> None:
    made = build_environment(
        {"PATH": "worker", "HOME": "worker", "TZ": "worker"},
        settings_env={"HOME": "settings", "TZ": "settings"},
        extra_env={"TZ": "start", "CLAUDE_CODE_EXPERIMENTAL_X": "1"},
    )
    assert made.variables == {"PATH": "worker", "HOME": "settings", "TZ": "start", "CLAUDE_CODE_EXPERIMENTAL_X": "1"}
    assert made.refused == []


def test_config_dir_has_the_providers_own_name() -> None:
    made = build_environment({}, config_dir="/c", config_dir_variable="MY_HOME", settings_env={"MY_HOME": "/settings"})
    assert made.variables == {"MY_HOME": "/c"}
    assert build_environment({}, config_dir=None, config_dir_variable="MY_HOME").variables == {}
    assert build_environment({}, config_dir="/c").variables == {}


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()))
def test_every_key_is_taken_or_refused(source: dict[str, str], extra_env: dict[str, str]) -> None:
    before = dict(source), dict(extra_env)
    made = build_environment(source, extra_env=extra_env)
    assert set(made.refused) | set(made.variables) >= set(extra_env)
    assert all(made.variables[name] == value for name, value in extra_env.items() if name not in made.refused)
    assert (source, extra_env) == before
