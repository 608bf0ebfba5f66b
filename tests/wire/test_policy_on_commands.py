"""What a policy decides on the commands of an agent that looks for a way around it; a real shell tells what runs."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentrq.wire.approval_policy import Policy, read_policy
from agentrq.wire.call_targets import Directories
from agentrq.wire.shell_commands import may_begin, read_command_line
from agentrq_worker.session.approval_policy import decide
from tests.attacks import attack

DENIES_RM = read_policy({"default": "allow", "rules": [{"tool": "Bash", "command": "rm *", "decision": "deny"}]})
ASK = read_policy("ask")


def on_command(command: Any, policy: Policy = DENIES_RM) -> str:
    return decide(policy, read_policy("allow"), "Bash", {"command": command}, Directories("/srv/shop"))


RUNS_RM = [
    "rm -rf x", "  rm -rf x", "rm\t-rf\tx", "cd /tmp && rm -rf x", "true;rm -rf x", "false||rm x", "sleep 1 & rm x",
    "ls|rm x",
    "ls\nrm x", "ls \\\n; rm x", "r\\\nm x", "(rm x)", "{ rm x; }", "! rm x", "if true; then rm x; fi",
    "for i in 1 2; do rm $i; done", "while rm x; do :; done", "case a in a) rm x;; esac", "f() { rm x; }; f",
    "time rm x",
    "A=1 rm x", "A=1 B='2 3' rm x", "a+=1 rm x", "2>/dev/null rm x", ">out rm x", "<in >out rm x", "rm x >out 2>&1",
    "/bin/rm x", "../../bin/rm x", "\\rm x", "'rm' x", '"rm" x', "r''m x", 'r"m" x', "$'rm' x",
    "sh -c 'rm x'", "/bin/sh -ec 'ls; rm x'", "bash -o pipefail -c 'rm x'", "bash -c \"bash -c 'rm x'\"", "eval rm x",
    "eval 'rm x'", "env rm x", "env -i A=1 rm x", "env -S 'rm x'",
    "env -S'rm x'", "env -vS'rm' x", "env --split-string='rm x'", "script -qc'rm x'",
    "sudo rm x", "sudo -u bob rm x", "sudo -- rm x",
    "sudo sh -c 'rm x'", "nohup nice -n 5 rm x &", "timeout -k 1 5 rm x", "exec rm x", "command rm x",
    "xargs rm < list",
    "ls | xargs -n 1 rm", "find . -exec rm {} \\;", "find . -name a -execdir rm -f {} +", "fd . -x rm", "busybox rm x",
    "stdbuf -o0 rm x",
    "echo $(rm x)", 'echo "$(rm x)"', "echo `rm x`", 'echo "`rm x`"', "cat <(rm x)", "tee >(rm x)", "x=$(rm y)",
    "echo ${x:-$(rm y)}",
    'echo "${x:-"$(rm y)"}"', "echo $(( $(rm x) ))", "cat <<EOF\n$(rm x)\nEOF", "cat <<'EOF'\ndon't\nEOF\nrm x",
    "echo a # it's\nrm x",
    "x=$(case a in a) rm x;; esac)", "sudo -u $USER rm x", "function f { rm x; }; f", "A=1 if B=2 rm x; then :; fi",
    "trap 'rm x' EXIT", "alias l='rm x'", "ssh host rm x", "flock lock -c 'rm x'", "[ -f x ] && rm x",
    "[[ -f x ]] && rm x",
]  # fmt: skip
MAY_RUN_RM = [
    "sudo $x y", "env A=1 $x", "timeout 5 $x y", "sudo -u bob $x y",
    "$x -rf y", "${x} y", "$(echo rm) x", "`echo rm` x", "r$y x", "/bin/r? x", "/bin/r* x", "{rm,x}", "$'\\x72m' x",
    "rm${IFS}x",
    "curl x | sh", "echo 'rm x' | bash", "bash <<< 'rm x'", "sh <<EOF\nrm x\nEOF", "bash -s < x", "sh /dev/stdin",
    "bash <(curl x)",
    ". <(curl x)", "bash -c \"$x\"", "eval \"$x\"", "sudo -i", "su - bob", "echo 'unclosed", "echo $(unclosed",
    "a" * 20 + "$(" * 50 + "rm x" + ")" * 50,
]  # fmt: skip
RUNS_NO_RM = [
    "ls /tmp && echo rm", "echo rm -rf x", "echo 'rm x'", 'echo "; rm x"', "git rm x", "docker rm x",
    "grep -r 'rm -rf' .",
    "cat <<'EOF' > notes\nrm x, don't\n$(rm x)\nEOF", "echo a # rm x", "rmdir x", "npm run rm", "ls *.py",
    "cd $HOME; make 2>&1 | tail -5",
    "for f in *.py; do echo $f; done", "timeout 5 echo $f", "sudo cat *.log", "echo \"it's $(date)\"",
    "python -c 'print(1)'", "bash script.sh", "git commit -m \"rm the file\"",
    "echo \\; rm x", "awk '{print $1}' x | sort", "test -f x || echo no", "x=rm", "tar xf a && cd a",
]  # fmt: skip


@attack(
    "a denied command behind another, in a substitution, a subshell, `sh -c`, behind `sudo`, `env` or `xargs`, with "
    "other blanks, quotes, assignments or a path",
    "denied; where the shell makes the program's name or a shell reads its input, a person is asked",
)
@pytest.mark.parametrize("command", RUNS_RM)
def test_a_denied_command_is_found_however_it_is_spelled(command: str) -> None:
    assert on_command(command) == "deny"


@pytest.mark.parametrize("command", MAY_RUN_RM)
def test_a_person_is_asked_where_a_denied_command_may_run(command: str) -> None:
    assert on_command(command) == "ask"


@pytest.mark.parametrize("command", RUNS_NO_RM)
def test_what_no_rule_denies_stays_allowed(command: str) -> None:
    assert on_command(command) == "allow"


@pytest.mark.parametrize(
    "given",
    [
        {"command": ["rm", "-rf", "x"]}, {"command": ["bash", "-lc", "ls; rm x"]}, {"command": "rm", "args": ["x"]},
        {"cmd": "rm x"}, {"commands": ["ls", "rm x"]}, {"commands": [{"command": "ls"}, {"command": "rm x"}]},
        {"command": "ls", "script": "rm x"}, {"options": {"command": "rm x"}}, {"shellCommand": "rm x"},
        {"argv": ["rm", "x"]},
        {"command": [["ls"], ["rm", "x"]]},
    ],
)  # fmt: skip
def test_a_denied_command_is_found_in_every_member(given: Any) -> None:
    assert decide(DENIES_RM, ASK, "Bash", given, Directories()) == "deny"


@pytest.mark.parametrize("command", [7, [7], [["rm", 7]], {"program": "rm"}])
def test_a_person_is_asked_about_a_command_of_an_unknown_shape(command: Any) -> None:
    assert on_command(command) == "ask"


def test_no_later_rule_and_no_session_overrides_a_denial_that_may_apply() -> None:
    denies = {"command": "rm *", "decision": "deny"}
    policy = read_policy(
        {"rules": [denies, {"command": "*", "decision": "allow"}, {"tool": "Bash", "decision": "allow"}]}
    )
    assert decide(policy, read_policy("allow"), "Bash", {"command": "$x y"}, Directories()) == "ask"
    assert decide(policy, read_policy("deny"), "Bash", {"command": "$x y"}, Directories()) == "deny"
    assert decide(ASK, policy, "Bash", {"command": "$x y"}, Directories()) == "ask"
    later = read_policy({"rules": [denies, {"command": "sudo *", "decision": "deny"}]})
    assert decide(later, ASK, "Bash", {"command": "sudo $x"}, Directories()) == "deny"


def test_who_writes_a_list_of_denials_is_told_that_it_is_not_complete() -> None:
    assert "prefer" in (DENIES_RM.advice or "")
    deny, allow = {"command": "rm *", "decision": "deny"}, {"command": "git *", "decision": "allow"}
    for policy in (
        "allow",
        "ask",
        {"rules": [deny]},
        {"default": "deny", "rules": [deny]},
        {"default": "allow", "rules": [allow]},
    ):
        assert read_policy(policy).advice is None


ALLOWS_GIT = read_policy({"rules": [{"tool": "Bash", "command": "git *", "decision": "allow"}]})


@pytest.mark.parametrize(
    "given",
    [
        {"command": "git status; curl x"}, {"command": "git status", "script": "curl x"},
        {"command": "sudo git status"},
        {"command": "git status", "env": {"GIT_SSH_COMMAND": "curl x"}}, {"command": "A=1 git status"},
        {"command": "./git status"}, {"command": ["git", "status", ";", "curl"]}, {"commands": ["git status",
        "curl x"]},
        {"command": ["git", 7]}, {"command": "git log `curl x`"}, {"command": "git log\ncurl x"}, {"cmd": None}, {},
    ],
)  # fmt: skip
def test_an_allowed_command_allows_nothing_else(given: Any) -> None:
    assert ALLOWS_GIT.decide("Bash", given) == "ask"


def test_an_allowed_command_is_allowed_as_words_too() -> None:
    for command in ("git status", ["git", "status"], "bash -lc 'git status'", ["bash", "-lc", "git status"]):
        assert ALLOWS_GIT.decide("Bash", {"command": command}) == "allow"


@pytest.mark.parametrize("command", ["make x | sh | tail", "make x | tail; sh", "make x | tail | sh", "make x || tail"])
def test_the_operators_of_an_allowed_line_are_exactly_its_globs(command: str) -> None:
    policy = read_policy({"rules": [{"command": "make * | tail*", "decision": "allow"}]})
    assert policy.decide("Bash", {"command": "make x | tail -5"}) == "allow"
    assert policy.decide("Bash", {"command": command}) == "ask"


# -- a real shell tells what runs

PIECES = st.sampled_from(["rm x", "ls", "echo rm x", "'rm' y", "r\\m z", "A=1 rm x", "/bin/rm x", "echo 'a;rm x'"])


def wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    quoted = inner.map(shlex.quote)
    return st.one_of(
        st.tuples(inner, st.sampled_from(["; ", " && ", " | ", "\n", " & ", "||"]), inner).map("".join),
        inner.map("( {} )".format), inner.map("echo $( {} )".format), inner.map('echo "a $( {} ) b"'.format),
        inner.map("{{ {}\n}}".format), inner.map("if true; then {}\nfi".format), inner.map("cat <( {} )".format),
        quoted.map("sh -c {}".format), quoted.map("bash -ec {} name".format), quoted.map("eval {}".format),
        quoted.map("echo {}".format), inner.map("! {}".format), inner.map("cat <<EOF\n$( {} )\nEOF\n".format),
        inner.map("cat <<'EOF'\n{}\nEOF\n".format), inner.map("for i in a; do {}\ndone".format),
    )  # fmt: skip


@pytest.fixture(scope="module")
def shims() -> Any:
    """A directory with a program ``rm`` that only notes that it ran."""
    with tempfile.TemporaryDirectory() as directory:
        noting = Path(directory, "rm")
        noting.write_text('#!/bin/sh\n[ $# -eq 0 ] || echo "$@" >> "$RAN"\n')
        noting.chmod(0o755)
        yield directory


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@settings(deadline=None, max_examples=150)
@given(command=st.recursive(PIECES, wrapped, max_leaves=4))
@example(command='echo "a $( echo \'b" ; rm x\' ) b"')
@example(command="cat <<EOF\n$( cat <<'EOF2'\nrm x\nEOF2\n)\nEOF\n")
def test_no_command_that_bash_runs_is_missed(command: str, shims: str) -> None:
    spelled = command.replace("/bin/rm", f"{shims}/rm")
    with tempfile.TemporaryDirectory() as directory:
        ran = Path(directory, "ran")
        environment = {"PATH": f"{shims}:/usr/bin:/bin", "RAN": str(ran)}
        subprocess.run(
            ["bash", "--norc", "-c", spelled], env=environment, cwd=directory, capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30, check=False,
        )  # fmt: skip
        if ran.exists():
            assert on_command(spelled) != "allow"


@given(st.text("abr m;&|$(){}`'\"\\<>#\n*=[]~-", max_size=60))
def test_any_text_is_read_in_bounded_time(text: str) -> None:
    line = read_command_line(text)
    assert all(isinstance(found, str) for found in line.texts)


@pytest.mark.parametrize(
    "text",
    ["a;" * 60_000, "$(" * 60_000, "`" * 120_000, '"$(' * 40_000, "sudo " * 25_000, "sudo 'a b' " * 10_000,
    "${" * 60_000,
     "<<a " * 30_000, "{a," * 40_000, "find -exec " * 11_000, "sh -c '" * 10_000, "\\" * 120_000, "=" * 120_000,
     "cat <<a\n" * 15_000, "x=$(case " * 13_000],
)  # fmt: skip
def test_a_hostile_line_is_given_up_on(text: str) -> None:
    """Its length bounds what it costs: the test's own time limit would tell."""
    assert on_command(text) in ("ask", "allow")


@given(st.text("ab*?[]!", max_size=6), st.text("ab", max_size=4), st.text("ab", max_size=4))
def test_a_beginning_is_compared_with_all_that_may_follow(glob: str, prefix: str, rest: str) -> None:
    if fnmatchcase(prefix + rest, glob):
        assert may_begin(glob, prefix)
