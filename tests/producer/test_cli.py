"""The command line, run as a process on a real server: what each command prints and its exit codes."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from agentrq.cli import command_table
from agentrq.client import AgentClient
from agentrq.embedded.attach import try_lock
from agentrq.embedded.server_process import ServerProcess
from agentrq.wire.commands import MAX_INBOX
from tests.polling import wait_until
from tests.producer.command_line import COMMAND, LIMIT_S, environment, following, only_line, run_cli, run_python
from tests.producer.session_writer import Writer

NOWHERE = "redis://somebody:se%20cret@127.0.0.1:1/0"
OF_A_SESSION = [
    ["attach", "SID"],
    ["prompt", "SID", "text"],
    ["answer", "SID", "r1", "allow"],
    ["interrupt", "SID"],
    ["stop", "SID"],
    ["show", "SID"],
    ["remove", "SID"],
]
ALL = [*OF_A_SESSION, ["start", "fake", "Do it"], ["run", "fake", "Do it"], ["list"], ["prompt", "SID", "x", "--wait"]]

TELLS_IMPORTS = """
import atexit, sys
from agentrq.cli import main
heavy = ("rich", "agentrq.embedded", "agentrq_worker", "agentrq.cli.doctor")
atexit.register(lambda: print([name for name in heavy if name in sys.modules], file=sys.stderr))
main()
"""
NO_WORKER = """
from importlib import metadata
metadata.entry_points = lambda **_: ()
from agentrq.cli import main
main()
"""


def named(arguments: list[str]) -> str:
    return arguments[0]


def is_free(lock: Path) -> bool:
    """Whether the embedded server that held the lock has ended."""
    held = try_lock(lock, fcntl.LOCK_EX)
    if held is not None:
        os.close(held)
    return held is not None


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ServerProcess(tmp_path_factory.mktemp("server"), args=("--appendonly", "no")) as server:
        yield server.url


# -- help and usage


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    done = run_python(TELLS_IMPORTS, "--help")
    assert done.returncode == 0
    assert done.stderr == "[]\n"
    for name, (_, line) in command_table.COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert line[:40] in done.stdout


def test_start_imports_neither_rich_nor_the_embedded_server(url: str) -> None:
    done = run_python(TELLS_IMPORTS, "start", "fake", "Do it", url=url)
    assert (done.returncode, done.stderr) == (0, "[]\n")


@pytest.mark.parametrize("name", [name for name, (place, _) in command_table.COMMANDS.items() if place])
def test_a_command_says_of_itself_what_the_help_says(name: str) -> None:
    command = command_table.load(name)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert (command.help or "").startswith(command_table.COMMANDS[name][1].removesuffix("."))
    if name in ("acl", "export", "top", "deliver"):  # print text or lines of JSON; are looked at
        return
    if isinstance(command, click.Group):  # each of its commands says where Redis is
        for part in command.commands.values():
            assert "--redis" in {option for parameter in part.params for option in parameter.opts}
        return
    assert {"--redis", "--json"} <= {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("arguments", [["--help"], ["start", "--help"], ["--version"]], ids=named)
def test_a_help_that_cannot_be_written_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S
        )
    assert (done.returncode, only_line(done.stderr)) == (1, "Cannot write to stdout: No space left on device")


def test_a_stderr_that_cannot_be_written_leaves_the_exit_code() -> None:
    with open("/dev/full", "w") as full:
        assert subprocess.run([*COMMAND, "nonsense"], env=environment(), stderr=full, timeout=LIMIT_S).returncode == 2


def test_a_terminal_that_has_not_every_character_gets_the_help() -> None:
    done = run_cli("start", "--help", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "model=?" in done.stdout


def test_no_command_shows_the_help_and_is_a_usage_error() -> None:
    done = run_cli()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lsit"], "lsit"),
        (["--redis", "redis://localhost", "list"], "Options come after the command"),
        (["start", "fake"], "PROMPT"),
        (["list", "--nonsense"], "--nonsense"),
        (["start", "fake", "Do it", "--session-id", "a b"], "Invalid session id 'a b'"),
        (["start", "fake", "Do it", "--session-id", "x" * 65], "Invalid session id"),
        (["start", "fake", ""], "prompt"),
        (["start", "fake", "Do it", "--option", "colour=red"], "Invalid option 'colour'"),
        (["start", "fake", "Do it", "--option", "prompt=x"], "Invalid option 'prompt'"),
        (["start", "fake", "Do it", "--option", "max_turns=many"], "Invalid option 'max_turns'"),
        (["start", "fake", "Do it", "--option", "maxTurns=0"], "Invalid option 'maxTurns'"),
        (["run", "fake", "Do it", "--option", "metadata=[1]"], "Invalid option 'metadata'"),
        (["run", "fake", "Do it", "--option", "model"], "NAME=VALUE"),
        (["attach", "sid", "--after", "yesterday"], "Invalid cursor 'yesterday'"),
        (["attach", "../x"], "Invalid session id '../x'"),
        (["prompt", "sid", "text", "--mode", "shout"], "shout"),
        (["prompt", "sid", ""], "prompt"),
        (["answer", "sid", "r1", "perhaps"], "neither allow nor deny nor a JSON object"),
        (["answer", "sid", "r1", "[1]"], "neither allow nor deny nor a JSON object"),
        (["list", "--redis", "http://u:se%20cret@localhost"], "http://u:***@localhost"),
        (["doctor", "--redis", "http://u:se%20cret@localhost"], "http://u:***@localhost"),
        (["list", "--redis", ""], "URL"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_usage_errors_are_one_line_and_2(url: str, arguments: list[str], said: str) -> None:
    done = run_cli(*arguments, url=url)
    assert done.returncode == 2
    assert arguments[0] == "doctor" or done.stdout == ""
    assert said in only_line(done.stderr)
    assert "cret" not in done.stderr


# -- exit codes


@pytest.mark.parametrize("arguments", ALL, ids=named)
def test_redis_that_does_not_answer_is_one_line_and_4(arguments: list[str]) -> None:
    done = run_cli(*arguments, "--redis", NOWHERE)
    assert (done.returncode, done.stdout) == (4, "")
    line = only_line(done.stderr)
    assert "redis://somebody:***@127.0.0.1:1/0" in line
    assert "not reachable" in line
    assert "cret" not in line


def test_the_url_comes_from_the_environment_too() -> None:
    done = run_cli("list", url=NOWHERE)
    assert done.returncode == 4
    assert "redis://somebody:***@127.0.0.1:1/0" in only_line(done.stderr)


def test_a_redis_that_wants_a_password_is_one_line_and_4(tmp_path: Path, unused_tcp_port: int) -> None:
    with ServerProcess(tmp_path, port=unused_tcp_port) as server:
        with AgentClient.from_url(server.url) as client:
            client._redis.config_set("requirepass", "right")
        done = run_cli("list", "--redis", f"redis://:wrong@127.0.0.1:{unused_tcp_port}/0")
        assert run_cli("list", "--redis", f"redis://:right@127.0.0.1:{unused_tcp_port}/0").returncode == 0
    assert done.returncode == 4
    assert "wrong" not in only_line(done.stderr).replace("WRONGPASS", "")


@pytest.mark.parametrize("arguments", OF_A_SESSION, ids=named)
def test_a_missing_session_is_exit_3(url: str, arguments: list[str]) -> None:
    done = run_cli(*(argument.replace("SID", "nobody") for argument in arguments), url=url)
    assert (done.returncode, done.stdout) == (3, "")
    assert only_line(done.stderr) == "No such session: nobody"


@pytest.mark.parametrize("command", ["start", "run"])
def test_a_taken_session_id_is_exit_5(url: str, command: str) -> None:
    run_cli("start", "fake", "Do it", "--session-id", "taken", url=url)
    done = run_cli(command, "fake", "Do it", "--session-id", "taken", url=url)
    assert (done.returncode, done.stdout) == (5, "")
    assert only_line(done.stderr) == "Session taken exists already"


@pytest.mark.parametrize("arguments", OF_A_SESSION[1:4], ids=named)
def test_a_command_for_an_ended_session_is_exit_5(url: str, arguments: list[str]) -> None:
    sid = f"ended-{arguments[0]}"
    Writer.start(url, sid).end("done", "completed")
    done = run_cli(*(argument.replace("SID", sid) for argument in arguments), url=url)
    assert (done.returncode, done.stdout) == (5, "")
    assert only_line(done.stderr) == f"Session {sid} has ended (done)"


def test_a_full_inbox_is_exit_5(url: str) -> None:
    Writer.start(url, "full")
    with AgentClient.from_url(url) as client:
        for _ in range(MAX_INBOX):
            client.session("full").interrupt()
    done = run_cli("prompt", "full", "One more", url=url)
    assert (done.returncode, done.stdout) == (5, "")
    assert f"{MAX_INBOX} commands waiting" in only_line(done.stderr)


# -- what they do


def test_start_prints_the_id_and_nothing_else(url: str, tmp_path: Path) -> None:
    done = run_cli("start", "fake", "Do it", url=url)
    assert (done.returncode, done.stderr) == (0, "")
    sid = done.stdout.rstrip("\n")
    assert len(sid) == 36
    options = ["--option", "max_turns=3", "--option", "systemPrompt=Be brief", "--option", 'metadata={"a":"b"}']
    done = run_cli(
        "start", "fake", "Do it", "--session-id", "chosen", "--cwd", f"{tmp_path}/x/..", *options, "--json", url=url
    )
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"sessionId": "chosen"}
    raw = Writer(url, "chosen").redis.hgetall("agentrq:{chosen}:state")
    assert isinstance(raw, dict)
    assert (raw[b"provider"], raw[b"prompt"]) == (b"fake", b"Do it")
    assert json.loads(raw[b"options"]) == {
        "cwd": str(tmp_path), "maxTurns": 3, "systemPrompt": "Be brief", "metadata": {"a": "b"}
    }  # fmt: skip


def test_bytes_that_are_no_text_become_replacement_characters(url: str) -> None:
    done = run_cli("start", "fake", os.fsdecode(b"caf\xe9"), "--session-id", "bytes", url=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert Writer(url, "bytes").redis.hget("agentrq:{bytes}:state", "prompt") == "caf\ufffd".encode()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["prompt", "SID", "Go on"], {"command": "prompt", "text": "Go on"}),
        (["prompt", "SID", "No", "--mode", "steer"], {"command": "prompt", "text": "No", "mode": "steer"}),
        (["answer", "SID", "r1", "deny"], {"command": "answer", "requestId": "r1", "answer": "deny"}),
        (["answer", "SID", "r1", '{"a": 1}'], {"command": "answer", "requestId": "r1", "answer": {"a": 1}}),
        (["interrupt", "SID"], {"command": "interrupt"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_command_reaches_the_inbox_and_its_id_is_printed(
    url: str, arguments: list[str], expected: dict[str, object], request: pytest.FixtureRequest
) -> None:
    sid = f"inbox-{abs(hash(request.node.name))}"
    writer = Writer.start(url, sid)
    arguments = [argument.replace("SID", sid) for argument in arguments]
    plain, wire = run_cli(*arguments, url=url), run_cli(*arguments, "--json", url=url)
    assert (plain.returncode, wire.returncode) == (0, 0)
    one, two = writer.inbox()
    assert plain.stdout == f"sent {one['commandId']}\n"
    assert json.loads(wire.stdout) == {"sessionId": sid, "commandId": two["commandId"]}
    assert expected.items() <= one.items()


def test_wait_prints_the_receipt_or_is_5(url: str) -> None:
    writer = Writer.start(url, "waited")

    def served(*arguments: str, outcome: str, **members: str) -> tuple[int, str, str, str]:
        writer.redis.delete("agentrq:{waited}:inbox")
        with following(*COMMAND, *arguments, "--wait", url=url) as follower:
            wait_until(writer.inbox)
            (command,) = writer.inbox()
            writer.receipt(command["commandId"], command["command"], outcome, **members)
            return *follower.finish(), command["commandId"]

    code, printed, _, sent = served("prompt", "waited", "Go on", outcome="applied")
    assert (code, printed) == (0, f"applied {sent}\n")
    code, printed, _, sent = served("answer", "waited", "r1", "allow", "--json", outcome="applied")
    assert (code, json.loads(printed)) == (0, writer.stream()[-1])
    code, printed, said, sent = served("interrupt", "waited", outcome="rejected", reason="idle")
    assert (code, printed) == (5, "")
    assert only_line(said) == f"Command {sent} of session waited was rejected: idle"


def test_ctrl_c_while_waiting_is_no_traceback(url: str) -> None:
    writer = Writer.start(url, "impatient")
    with following(*COMMAND, "prompt", "impatient", "Go on", "--wait", url=url) as follower:
        wait_until(writer.followed)
        follower.interrupt()
        code, printed, said = follower.finish()
    assert (code, printed) == (130, "")
    assert said.strip() == ""


def test_stop_ends_a_session_that_nobody_owns_and_a_stopped_one_stays_so(url: str) -> None:
    run_cli("start", "fake", "Do it", "--session-id", "stopped", url=url)
    assert run_cli("stop", "stopped", url=url).returncode == 0
    done = run_cli("stop", "stopped", "--json", url=url)
    assert done.returncode == 0
    assert json.loads(done.stdout).keys() == {"sessionId", "commandId"}
    assert json.loads(run_cli("show", "stopped", "--json", url=url).stdout)["reason"] == "stopped"


def test_list_and_show_print_states(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, args=("--appendonly", "no")) as server:
        url = server.url
        assert run_cli("list", "--json", url=url).stdout == ""
        first = Writer.start(url, "first", model="fable \x1b[31m", metadata={"who": "me"})
        run_cli("start", "fake", "Do it", "--session-id", "second", url=url)
        first.end("error", "failed", error="Exit code: 3\n\x1b[2J")
        heads, two, one = run_cli("list", url=url).stdout.splitlines()
        assert heads.split() == ["SESSION", "STATUS", "PROVIDER", "MODEL", "WORKER", "TURNS", "COST", "AGE"]
        assert one.split()[:7] == ["first", "error", "(failed)", "fake", "fable", "^[[31m", "fake-worker"]
        assert two.split()[:3] == ["second", "queued", "fake"]
        assert heads.index("PROVIDER") == one.index("fake") == two.index("fake")
        states = [json.loads(line) for line in run_cli("list", "--json", url=url).stdout.splitlines()]
        assert [state["sessionId"] for state in states] == ["second", "first"]
        assert json.loads(run_cli("show", "first", "--json", url=url).stdout) == states[1]
        assert (states[1]["status"], states[1]["inputTokens"], states[1]["metadata"]) == ("error", 0, {"who": "me"})
        shown = dict(line.split(None, 1) for line in run_cli("show", "first", url=url).stdout.splitlines())
        assert shown["error"] == "Exit code: 3 ^[[2J"
        assert shown["metadata"] == '{"who":"me"}'
        assert len(shown["createdAt"]) == len("2026-11-22 10:43:28")
        assert run_cli("remove", "first", url=url).stdout == "removed first\n"
        assert json.loads(run_cli("remove", "second", "--json", url=url).stdout) == {"sessionId": "second"}
        assert run_cli("list", "--json", url=url).stdout == ""


def test_without_a_url_the_embedded_server_is_used(tmp_path: Path) -> None:
    runtime = tempfile.mkdtemp(prefix="arq-")
    places = {"AGENTRQ_DATA_DIR": str(tmp_path), "XDG_RUNTIME_DIR": runtime}
    try:
        sid = run_cli("start", "fake", "Do it", **places).stdout.strip()
        assert json.loads(run_cli("list", "--json", **places).stdout)["sessionId"] == sid
    finally:
        wait_until(lambda: is_free(tmp_path / "valkey" / "server.lock"))
        shutil.rmtree(runtime)


def test_no_server_to_embed_is_one_line_and_4(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_cli("list", AGENTRQ_DATA_DIR=str(tmp_path / "file"))
    assert (done.returncode, done.stdout) == (4, "")
    assert "Cannot use the data directory" in only_line(done.stderr)


INTERRUPTED = """
import sys

class AtClick:
    def find_spec(self, name, *_):
        if name == "click":
            raise KeyboardInterrupt

sys.meta_path.insert(0, AtClick())
from agentrq.__main__ import main
main()
"""


def test_ctrl_c_while_it_is_loaded_is_no_traceback() -> None:
    done = run_python(INTERRUPTED)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


# -- the worker's commands


@pytest.mark.parametrize("command", ["worker", "up"])
def test_without_the_worker_distribution_its_commands_say_what_to_install(command: str) -> None:
    done = run_python(NO_WORKER, command, "--name", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install agentrq-worker" in only_line(done.stderr)
    assert f"  {command} " in run_python(NO_WORKER, "--help").stdout


def test_a_worker_distribution_that_cannot_be_imported_is_one_line() -> None:
    code = "import sys; sys.modules['agentrq_worker.cli'] = None; from agentrq.cli import main; main()"
    done = run_python(code, "worker")
    assert (done.returncode, done.stdout) == (2, "")
    assert "agentrq_worker.cli:worker" in only_line(done.stderr)


def test_the_workers_commands_are_found() -> None:
    done = run_cli("worker", "--help")
    assert done.returncode == 0
    assert "--max-sessions" in done.stdout
