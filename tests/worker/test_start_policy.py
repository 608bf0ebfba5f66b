"""What a start may ask for: each rule attacked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq.wire.commands import Options, make_options
from agentrq_worker.settings import InvalidSetting, Settings, load
from agentrq_worker.start_policy import EVERYTHING, NotAllowed, StartPolicy, admit, bounded, entered, may_switch
from tests.attacks import attack


def check(policy: StartPolicy, provider: str = "demo", defaults: Options | None = None, **given: Any) -> Options:
    asked = make_options(given)
    set_ = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not None}
    merged = msgspec.structs.replace(defaults or Options(), **set_)
    return admit(policy, provider, asked, bounded(policy, merged))


@pytest.mark.parametrize(
    ("policy", "given", "says"),
    [
        (StartPolicy(providers=["claude", "cod*"]), {}, "provider 'demo' is not allowed by policy.providers"),
        (StartPolicy(providers=[]), {}, "policy.providers (none)"),
        (StartPolicy(models=["claude-haiku-*"]), {"model": "claude-opus-4"}, "model 'claude-opus-4' is not allowed"),
        (StartPolicy(models=["a"]), {"model": "A"}, "policy.models"),
        (StartPolicy(permission_modes=["plan"]), {"permission_mode": "bypassPermissions"}, "policy.permission_modes"),
        (StartPolicy(extra_env=["TEAM_*"]), {"extra_env": {"TEAM_A": "", "NODE_OPTIONS": ""}}, "'NODE_OPTIONS'"),
        (StartPolicy(extra_env=[]), {"extra_env": {"HTTPS_PROXY": "http://evil"}}, "policy.extra_env (none)"),
        (StartPolicy(max_turns=5), {"max_turns": 6}, "max_turns 6 is over policy.max_turns (5)"),
        (StartPolicy(max_budget_usd=1.5), {"max_budget_usd": 2}, "policy.max_budget_usd (1.5)"),
        (StartPolicy(timeout_s=60), {"timeout_s": 61}, "policy.timeout_s (60)"),
        (StartPolicy(turn_timeout_s=6), {"turn_timeout_s": 7}, "policy.turn_timeout_s (6)"),
        (StartPolicy(require=["tenant"]), {"user": "ann"}, "tenant is missing, which policy.require asks for"),
        # Without any policy too: text that a program would take for an option of its own.
        (EVERYTHING, {"resume": "--dangerously-skip-permissions"}, "begins with a dash"),
        (EVERYTHING, {"model": "-p"}, "begins with a dash"),
        (EVERYTHING, {"permission_mode": "--x"}, "begins with a dash"),
        (EVERYTHING, {"additional_directories": ["/tmp", "--mcp-config=/x"]}, "begins with a dash"),
        (EVERYTHING, {"cwd": "-"}, "begins with a dash"),
        (EVERYTHING, {"worktree_name": "../../etc"}, "is not a plain name"),
        (EVERYTHING, {"worktree_name": "--x"}, "begins with a dash"),
    ],
)
def test_refused(policy: StartPolicy, given: dict[str, Any], says: str) -> None:
    with pytest.raises(NotAllowed) as refused:
        check(policy, **given)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


TEXTS = {name for name, kind in get_type_hints(Options).items() if str in get_args(kind) or list[str] in get_args(kind)}
ANY_TEXT = {"system_prompt", "approvals"}


def test_a_text_option_of_any_name_is_held_to_what_an_argument_may_be() -> None:
    """A new option is too, unless it is listed as one that never becomes an argument."""
    assert {"model", "resume", "cwd", "additional_directories", "system_prompt"} <= TEXTS
    for name in TEXTS:
        for text in ("--x", "-", "a\0b", "a\nb", "a\x1b[2J", "a\x7f"):
            value: Any = [text] if list[str] in get_args(get_type_hints(Options)[name]) else text
            options = Options(**{name: value})
            if name in ANY_TEXT:
                admit(EVERYTHING, "demo", options, options)
            else:
                with pytest.raises(NotAllowed, match=name):
                    admit(EVERYTHING, "demo", options, options)


TAKING_OVER = [
    "PATH",
    "LD_PRELOAD",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "NODE_OPTIONS",
    "BASH_ENV",
    "ENV",
    "GIT_SSH_COMMAND",
    "GIT_CONFIG_COUNT",
    "PERL5OPT",
    "RUBYOPT",
    "JAVA_TOOL_OPTIONS",
    "HOME",
    "XDG_CONFIG_HOME",
    "https_proxy",
    "ALL_PROXY",
    "OPENAI_BASE_URL",
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "EDITOR",
    "npm_config_prefix",
]


@attack(
    "`extra_env` that takes the agent over: PATH, NODE_OPTIONS, PYTHONPATH, BASH_ENV, GIT_*, proxies, base URLs, HOME",
    "`refused` under any policy that does not name the variable; LD_*, DYLD_*, AGENTRQ_* never set at all",
)
@pytest.mark.parametrize("name", TAKING_OVER)
def test_silence_of_a_policy_allows_no_variable_that_takes_over(name: str) -> None:
    with pytest.raises(NotAllowed, match=rf"'{name}' decides what runs: policy\.extra_env has to name it"):
        check(StartPolicy(models=["small"]), extra_env={name: "/evil"})
    assert check(StartPolicy(extra_env=[name]), extra_env={name: "/good"}).extra_env == {name: "/good"}
    assert check(StartPolicy(models=["small"]), extra_env={"TEAM": "a", "GITHUB_TEAM": "b"}).extra_env
    assert check(EVERYTHING, extra_env={name: "/mine"}).extra_env == {name: "/mine"}


def test_what_is_allowed_passes_unchanged() -> None:
    policy = StartPolicy(
        providers=["demo"], models=["claude-*"], permission_modes=["*"], extra_env=["TEAM_*"], max_turns=5, timeout_s=60
    )
    options = check(policy, model="claude-x", max_turns=5, extra_env={"TEAM_A": "1"}, worktree_name="fix/a.b-c")
    assert (options.model, options.max_turns, options.timeout_s) == ("claude-x", 5, 60)
    anything = make_options({"model": "m", "cwd": "rel/../x", "extra_env": {"A": "b"}, "max_turns": 10**6})
    assert admit(EVERYTHING, "anyone", anything, bounded(EVERYTHING, anything)) == anything


def test_who_names_nothing_gets_the_ceiling_and_the_allowed_mode() -> None:
    policy = StartPolicy(max_turns=5, max_budget_usd=2.0, turn_timeout_s=9.0, permission_modes=["plan", "default"])
    options = check(policy)
    assert (options.max_turns, options.max_budget_usd, options.turn_timeout_s) == (5, 2.0, 9.0)
    assert options.permission_mode == "plan"
    assert check(StartPolicy(permission_modes=["bypass*"])).permission_mode is None


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    (tmp_path / "ws/inner").mkdir(parents=True)
    (tmp_path / "ws-evil").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "ws/link").symlink_to(tmp_path / "secret")
    (tmp_path / "ws/loop").symlink_to("loop")
    (tmp_path / "door").symlink_to("ws")
    return tmp_path


@pytest.mark.parametrize(
    "path",
    ["/", "{0}", "{0}/ws/..", "{0}/ws/../secret", "{0}/ws/link", "{0}/ws/link/x", "{0}/ws-evil",
     "{0}/ws/inner/../../secret",
     "/proc/self/root", "{0}/ws/none/../../secret", "", "ws"],
)  # fmt: skip
@pytest.mark.parametrize("option", ["cwd", "config_dir", "additional_directories"])
def test_paths_that_lead_out(roots: Path, path: str, option: str) -> None:
    where = path.format(roots)
    policy = StartPolicy(roots=[str(roots / "ws")])
    given: dict[str, Any] = {"cwd": str(roots / "ws"), option: [where] if option.startswith("add") else where}
    if option == "additional_directories" and path in ("", "ws"):
        return  # relative to the workspace: they stay in it
    if option == "config_dir" and path == "":
        return  # as good as absent
    with pytest.raises(NotAllowed, match=rf"{option}.*is not under policy\.roots"):
        check(policy, **given)


def test_paths_are_resolved_before_they_are_used(roots: Path) -> None:
    options = check(
        StartPolicy(roots=[str(roots / "door")]), cwd=f"{roots}/door/inner/..", additional_directories=["inner"],
        config_dir=f"{roots}/ws/inner/none",
    )  # fmt: skip
    assert options.cwd == f"{roots}/ws"
    assert options.additional_directories == [f"{roots}/ws/inner"]
    assert options.config_dir == f"{roots}/ws/inner/none"


def test_without_a_cwd_the_workers_own_is_held_to_the_roots(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = StartPolicy(roots=[str(roots / "ws")])
    with pytest.raises(NotAllowed):
        check(policy)
    monkeypatch.chdir(roots / "ws/inner")
    assert check(policy).cwd == f"{roots}/ws/inner"


def test_the_operators_own_defaults_are_not_held_to_the_roots(roots: Path) -> None:
    defaults = Options(config_dir=str(roots / "secret"))
    policy = StartPolicy(roots=[str(roots / "ws")])
    assert check(policy, defaults=defaults, cwd=str(roots / "ws")).config_dir == str(roots / "secret")
    with pytest.raises(NotAllowed):
        check(policy, defaults=defaults, cwd=str(roots / "ws"), config_dir=str(roots / "secret"))


@attack("any path of links, loops and `..` out of the roots", "nothing outside is admitted")
@given(st.lists(st.sampled_from(["ws", "inner", "link", "..", ".", "loop", "door", "secret", "x"]), max_size=6))
def test_nothing_admitted_is_outside(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    base = tmp_path_factory.getbasetemp() / "walk"
    for directory in ("ws/inner", "secret"):
        (base / directory).mkdir(parents=True, exist_ok=True)
    for link, target in (("ws/link", base / "secret"), ("ws/loop", Path("loop")), ("door", base)):
        if not (base / link).is_symlink():
            (base / link).symlink_to(target)
    try:
        options = check(StartPolicy(roots=[f"{base}/ws"]), cwd="/".join([f"{base}/ws", *parts]))
    except NotAllowed:
        return
    assert options.cwd is not None
    assert Path(options.cwd).is_relative_to(base.resolve() / "ws")
    assert os.path.realpath(options.cwd) == options.cwd or "loop" in parts


@attack("a link in the place of `cwd` after the check", "`refused` at the spawn; one put there later does not count")
def test_a_directory_swapped_after_the_check_is_caught(roots: Path) -> None:
    """At spawn: what was a directory when it was checked is a link by now."""
    policy = StartPolicy(roots=[str(roots / "ws")])
    cwd = check(policy, cwd=str(roots / "ws/inner")).cwd
    (roots / "ws/inner").rmdir()
    (roots / "ws/inner").symlink_to(roots / "secret")
    with pytest.raises(NotAllowed, match=r"policy\.roots"), entered(policy.roots, cwd):
        pass


@pytest.mark.parametrize("what", ["ws/inner", "ws/new"])
def test_other_directories_swapped_after_the_check_are_caught(roots: Path, what: str) -> None:
    policy = StartPolicy(roots=[str(roots / "ws")])
    options = check(policy, cwd=str(roots / "ws"), config_dir=str(roots / what))
    if (roots / what).exists():
        (roots / what).rmdir()
    (roots / what).symlink_to(roots / "secret")
    held = [options.config_dir or ""]
    with pytest.raises(NotAllowed, match=r"policy\.roots"), entered(policy.roots, options.cwd, held):
        pass


@attack(
    "`config_dir`, `cwd` or further directories in another tenant's workspace, by `..` and links too",
    "`refused` where the `roots` are one tenant's; a worker has one policy: give tenants workers of their own",
)
@pytest.mark.parametrize("path", ["{0}/other/.claude", "{0}/own/../other", "{0}/own/link/.claude", "{0}/own-evil"])
@pytest.mark.parametrize("option", ["cwd", "config_dir", "additional_directories"])
def test_another_tenants_directory(tmp_path: Path, path: str, option: str) -> None:
    for name in ("own", "other/.claude", "own-evil"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "own/link").symlink_to(tmp_path / "other")
    where = path.format(tmp_path)
    given: dict[str, Any] = {"cwd": f"{tmp_path}/own"} | {option: [where] if option.startswith("add") else where}
    with pytest.raises(NotAllowed, match=r"is not under policy\.roots"):
        check(StartPolicy(roots=[f"{tmp_path}/own"]), **given)


def test_a_directory_swapped_while_it_is_held_does_not_count(roots: Path) -> None:
    with entered([str(roots / "ws")], str(roots / "ws/inner")) as cwd:
        assert cwd is not None
        (roots / "ws/inner").rename(roots / "ws/moved")
        (roots / "ws/inner").symlink_to(roots / "secret")
        assert os.path.realpath(cwd) == f"{roots}/ws/moved"


@attack("`set_model`, `set_permission_mode` of a live session beyond the policy", "rejected")
def test_a_live_session_is_not_switched_to_more() -> None:
    policy = StartPolicy(models=["small"], permission_modes=["plan"])
    assert may_switch(policy, "set_model", "small") is None
    assert "policy.models" in (may_switch(policy, "set_model", "large") or "")
    assert "policy.permission_modes" in (may_switch(policy, "set_permission_mode", "bypassPermissions") or "")
    assert may_switch(EVERYTHING, "set_model", "large") is None
    assert "dash" in (may_switch(EVERYTHING, "set_model", "--x") or "")


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[policy]\nprovider = ['x']", "unknown field `provider`"),
        ("[policy]\nmax_turns = 0", "max_turns: Expected a number above 0"),
        ("[policy]\nroots = ['work']", "'work' is not an absolute path"),
        ("[policy]\nmodels = 'all'", "Expected `array | null`"),
        ("[providers.a.sandbox]\nkind = 'vm'", "Invalid enum value 'vm'"),
        ("[providers.a.sandbox]\numask = '8'", "not octal"),
        ("[providers.a.sandbox]\nmemory = 0", "memory: Expected a number above 0"),
        ("[providers.a.sandbox]\nlogin = ['../x']\nhome = 'session'", "not relative"),
        ("[providers.a.sandbox]\nlogin = ['x']", "needs home"),
        ("[providers.a.sandbox]\nwrite = ['x']", "not an absolute path"),
        ("[providers.a.sandbox]\nconnect = [443]", "connect: needs kind"),
        ("[providers.a.sandbox]\nkind = 'landlock'\nconnect = [0]", "connect: needs kind"),
    ],
)
def test_a_wrong_policy_is_told_at_once(toml: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "agentrq.toml"
    path.write_text(toml)
    with pytest.raises(InvalidSetting) as error:
        load(str(path), {})
    assert says in str(error.value)


def test_a_policy_comes_from_the_file_only(tmp_path: Path) -> None:
    path = tmp_path / "agentrq.toml"
    path.write_text("[policy]\nmodels = ['small']")
    assert load(str(path), {"AGENTRQ_POLICY": "{}"}).start_policy == StartPolicy(models=["small"])
    assert Settings().start_policy == EVERYTHING
