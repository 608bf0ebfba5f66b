"""The allow-list of the contract, name by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq_worker.process.environment import build_environment
from agentrq_worker.start_policy import StartPolicy
from tests.attacks import attack

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


TAKE_OVER = [
    "LD_DEBUG_OUTPUT", "LD_ANYTHING", "GLIBC_TUNABLES", "DYLD_X", "MALLOC_TRACE", "GCONV_PATH", "OPENSSL_CONF",
    "RES_OPTIONS",
    "ENV", "BASH_ENV", "BASH_FUNC_ls%%", "SHELLOPTS", "PS4", "ZDOTDIR", "PYTHONSTARTUP", "PYTHONPATH",
    "PYTHONWARNINGS",
    "PYTHONANYTHING", "NODE_OPTIONS", "NODE_PATH", "npm_config_node_options", "npm_config_script_shell", "BUN_OPTIONS",
    "PERL5OPT", "PERL5LIB", "RUBYOPT", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "PHPRC", "LUA_INIT_5_4",
    "R_PROFILE_USER", "DOTNET_STARTUP_HOOKS", "GOFLAGS", "RUSTC_WRAPPER", "CARGO_TARGET_X_RUNNER", "ERL_FLAGS",
]  # fmt: skip


@attack(
    "`extra_env` with a variable by which a loader, shell, interpreter or compiler runs other code: LD_*, "
    "GLIBC_TUNABLES, BASH_ENV, PYTHON*, NODE_OPTIONS, PERL5OPT, RUBYOPT, JAVA_TOOL_OPTIONS, …",
    "left out, with a log line; a loader's always, the others unless `[policy] extra_env` has them by their full names",
)
@pytest.mark.parametrize("name", TAKE_OVER)
def test_a_start_sets_no_variable_by_which_other_code_runs(name: str) -> None:
    assert build_environment({}, extra_env={name: "x", "MY_LD": "y"}) == ({"MY_LD": "y"}, [name])
    assert build_environment({}, settings_env={name: "x"}).variables == {name: "x"}
    everything = StartPolicy(extra_env=["*", "P*", "N*"])
    assert build_environment({}, extra_env={name: "x"}, policy=everything).variables == {}


def test_a_policy_names_an_interpreters_variable_in_full() -> None:
    policy = StartPolicy(extra_env=["PYTHONPATH", "LD_PRELOAD"])
    made = build_environment({}, extra_env={"PYTHONPATH": "x", "LD_PRELOAD": "x"}, policy=policy)
    assert made == ({"PYTHONPATH": "x"}, ["LD_PRELOAD"])


@pytest.mark.parametrize(
    "name",
    [
        "PYTHONUNBUFFERED",
        "NODE_ENV",
        "BASH_DEFAULT_TIMEOUT_MS",
        "CARGO_HOME",
        "GIT_AUTHOR_NAME",
        "MY_LD_X",
        "ENVIRONMENT",
    ],
)
def test_a_start_sets_ordinary_variables(name: str) -> None:
    assert build_environment({}, extra_env={name: "x"}) == ({name: "x"}, [])


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
