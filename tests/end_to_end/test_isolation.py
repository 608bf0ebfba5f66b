"""Attacks on a worker by those who may start sessions, and by the agents in them: policy, sandbox, secrets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrq import AsyncAgentClient, CommandRejected
from agentrq_worker.sandbox import landlock
from tests.attacks import attack
from tests.fakes.probe_provider import PROBE
from tests.landlock_marks import needs_landlock
from tests.rq_checks import eventually
from tests.sessions import texts, until
from tests.workers import Worker

Start = Callable[..., Worker]

SECRET = 'sk-test/"café"-0123456789'


def everything(raw: Any) -> bytes:
    """All that Redis holds."""
    return b"\n".join((raw.dump(key) or b"") + key for key in raw.scan_iter())


@attack(
    "a start with another provider, model, directory or ceiling than the policy's; options in disguise",
    "`refused`, with the rule; nothing spawned, one log line",
)
async def test_a_start_that_the_policy_refuses(
    client: AsyncAgentClient, start_worker: Start, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "ws").mkdir()
    config.write_text(f"""{PROBE}
[policy]
providers = ["probe"]
models = ["small*"]
roots = ["{tmp_path}/ws"]
max_turns = 2
""")
    worker = start_worker()
    ws = str(tmp_path / "ws")
    for options, provider, rule in (
        ({"cwd": ws}, "demo", "policy.providers"),
        ({"cwd": ws, "model": "large"}, "probe", "policy.models"),
        ({"cwd": f"{ws}/.."}, "probe", "policy.roots"),
        ({"cwd": ws, "max_turns": 3}, "probe", "policy.max_turns"),
        ({"cwd": ws, "resume": "--help"}, "probe", "resume '--help' begins with a dash"),
    ):
        session = await client.start(provider, "open('/tmp/never', 'w')", **options)
        state = await session.wait(20)
        assert (state.status, state.reason, state.pid) == ("error", "refused", None)
        assert rule in (state.error or "")
        worker.wait_log(session.id)
        assert len([line for line in worker.log if session.id in line]) == 1
    session = await client.start("probe", "import os; say(os.getcwd())", cwd=f"{ws}/../ws/.", model="small-1")
    await until(session, "idle")
    with pytest.raises(CommandRejected, match=r"policy\.models"):
        await session.set_model("large", wait=True, timeout=20)
    await session.prompt("say('second')")
    state = await session.wait(20)
    assert (state.reason, await texts(session)) == ("max_turns", [ws, "second"])


@attack(
    "an agent prints the keys it was given: in messages, errors, stderr, in two writes, at the edge of what is kept",
    "in no key of Redis, no log line, no argument list: `[redacted]`, counted",
)
async def test_a_known_secret_is_redacted_wherever_it_is_printed(
    client: AsyncAgentClient, start_worker: Start, config: Path, raw: Any
) -> None:
    import base64
    import json

    config.write_text(f"""{PROBE}
env = {{ API_KEY = {json.dumps(SECRET)}, MODE = "fast-mode", SHORT = "fast" }}
pass_env = ["PASSED"]
public_env = ["MODE"]
""")
    worker = start_worker(PASSED="passed-by-the-worker", HIDDEN="never-given-to-anyone")
    session = await client.start(
        "probe",
        """
import base64, fcntl, json, os, sys, termios
key, passed = os.environ["API_KEY"], os.environ["PASSED"]
say(key)
say(json.dumps({"inner": key}))
put({"type": "news", "key": key, passed: [passed]})
print("not json " + passed, flush=True)
print(key, passed, file=sys.stderr, flush=True)
print("x" * 8180 + passed, file=sys.stderr, flush=True)
half = len(key) // 2
line = json.dumps({"type": "halves", "key": passed}).encode() + b"\\n"
for piece in (line[:30], line[30:]):  # one line in two writes, as the pipe brings them
    os.write(1, piece)
    while any(fcntl.ioctl(1, termios.FIONREAD, bytes(4))):  # bytes that nobody has read yet (pipe(7))
        os.sched_yield()
print("Authorization: Basic " + base64.b64encode(b"user:" + passed.encode()).decode(), file=sys.stderr, flush=True)
say(base64.b64encode(passed.encode()).decode())
say("HIDDEN" in os.environ or os.environ["MODE"] + os.environ["SHORT"])
raise SystemError(key)
""",
    )
    await until(session, "idle")
    # No argument list has it either.
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = cmdline.read_bytes()
        except OSError:
            continue
        assert b"passed-by-the-worker" not in arguments
    failing = await client.start(
        "probe",
        """
import os, json, sys
sys.stdout.write(json.dumps({"type": "agent_error", "message": "failed with " + os.environ["API_KEY"]}) + "\\n")
sys.stdout.flush()
""",
    )
    state = await failing.wait(20)
    assert state.error == "failed with [redacted]"
    await session.stop()
    await session.wait(20)
    worker.wait_log(f"session {session.id}: .* a known secret was taken out")
    seen = everything(raw)
    log = "".join(worker.log).encode()
    for place in (seen, log):
        coded = base64.b64encode(b"passed-by-the-worker").decode()[4:-8]
        for form in ("passed-by-the", "0123456789", "sk-test", "never-given", coded):
            assert form.encode() not in place, form
    assert (await texts(session))[0] == "[redacted]"
    assert "fast-modefast" in await texts(session)


async def test_the_operators_variables_reach_an_agent_whatever_their_names(
    client: AsyncAgentClient, start_worker: Start, config: Path
) -> None:
    config.write_text(f"""approvals = {{ default = "allow", rules = [{{ command = "rm *", decision = "deny" }}] }}
{PROBE}
env = {{ NODE_OPTIONS = "--a" }}
options = {{ extra_env = {{ PYTHONWARNINGS = "ignore" }} }}
""")
    worker = start_worker()
    told = "import os; say(' '.join(sorted({'NODE_OPTIONS', 'PYTHONWARNINGS', 'PERL5OPT', 'MY'} & os.environ.keys())))"
    for given, there in ((None, "NODE_OPTIONS PYTHONWARNINGS"), ({"PERL5OPT": "-x", "MY": "own"}, "MY NODE_OPTIONS")):
        session = await client.start("probe", told, extra_env=given)
        await until(session, "idle")
        await session.stop()
        assert await texts(session) == [there]
    worker.wait_log("extra_env refused: PERL5OPT")
    worker.wait_log("approvals: everything is allowed that no rule denies")


async def test_a_variable_of_the_settings_that_no_program_can_be_given_is_refused_in_words(
    client: AsyncAgentClient, start_worker: Start, config: Path
) -> None:
    """A start's own are refused by its client."""
    config.write_text(f"""{PROBE}
env = {{ LONG = "{"é" * 70_000}" }}
""")
    start_worker()
    state = await (await client.start("probe", "say('hi')")).wait(20)
    assert (state.status, state.reason) == ("error", "refused")
    assert state.error == "The variable 'LONG' has 140005 bytes, over 131071: put it in a file of the workspace"


async def test_a_secret_that_is_said_in_pieces_is_published_in_none(
    client: AsyncAgentClient, start_worker: Start, config: Path, raw: Any, tmp_path: Path
) -> None:
    key = "shop-9f8e7d6c5b47"
    config.write_text(f"""
[providers.piecemeal]
protocol = "jsonrpc"
command = ["{sys.executable}", "-S", "{Path(__file__).parents[1] / "fakes/fake_acp_agent.py"}"]
env = {{ FAKE_ACP_HOME = "{tmp_path}", SHOP_API_KEY = "{key}" }}
""")
    session = await client.start("piecemeal", "tell SHOP_API_KEY", cwd=str(tmp_path))
    await session.prompt("tell SHOP_API_KEY and die")  # its text is cut: what came of it is told
    live: dict[str, str] = {}
    whole: list[str] = []
    start_worker()
    async for event in session.events(deltas=True):
        content: Any = getattr(event, "content", None)
        if getattr(event, "type", None) == "text_delta":
            assert content.offset == len(live.get(content.block_id, ""))
            live[content.block_id] = live.get(content.block_id, "") + content.text
        elif getattr(event, "type", None) == "text":
            whole.append(content.text)
    assert whole == ["SHOP_API_KEY is [redacted], as you asked."] * 2
    assert set(live.values()) == set(whole)
    for beginning in (key, key[:10]):
        assert beginning.encode() not in everything(raw)


@attack(
    "reading the worker's home, the settings file, other workspaces, other sessions' homes",
    "denied by `landlock`; its own login is there",
)
@needs_landlock
async def test_a_sandboxed_session_runs_whole(
    client: AsyncAgentClient, start_worker: Start, config: Path, tmp_path: Path
) -> None:
    for name in ("ws", "other", "worker-home"):
        (tmp_path / name).mkdir()
    (tmp_path / "worker-home/login.json").write_text("logged in")
    (tmp_path / "worker-home/private").write_text("private")
    (tmp_path / "other/file").write_text("of a neighbour")
    config.write_text(f"""
homes_dir = "{tmp_path}/homes"
[policy]
roots = ["{tmp_path}/ws"]
{PROBE}
[providers.probe.sandbox]
kind = "landlock"
read = ["{Path(__file__).parents[1]}/fakes"]
login = ["login.json"]
umask = "077"
""")
    start_worker(HOME=str(tmp_path / "worker-home"))
    session = await client.start(
        "probe",
        f"""
import os, subprocess
def tried(what, *args):
    try:
        return what(*args)
    except OSError as error:
        return error.strerror
say(open(os.path.expanduser("~/login.json")).read())
say([tried(open, path) for path in ("{tmp_path}/worker-home/private", "{tmp_path}/other/file", "{config}")])
say(tried(open, f"/proc/{{os.getppid()}}/environ"))
say(tried(os.listdir, "{tmp_path}/homes"))
open("result", "w").write("x")
open(os.path.join(os.environ["TMPDIR"], "t"), "w").write("x")
say(oct(os.stat("result").st_mode & 0o777))
say(subprocess.run("cat {tmp_path}/other/file", shell=True, capture_output=True, text=True).returncode)
""",
        cwd=str(tmp_path / "ws"),
    )
    await until(session, "idle")
    denied = "Permission denied"
    assert (
        await session.state()
    ).enforced == f"landlock {landlock.version()}, no_new_privs, no capabilities, no signals to others, own home"
    assert (tmp_path / "homes" / session.id).is_dir()
    await session.stop()
    await session.wait(20)
    assert await texts(session) == ["logged in", str([denied] * 3), denied, denied, "0o600", "1"]
    assert (tmp_path / "ws/result").exists()
    await eventually(lambda: not list((tmp_path / "homes").iterdir()))  # behind the session's last event


@attack("a sandbox that this machine cannot enforce", "`refused`, with what is missing: nothing is spawned")
async def test_a_sandbox_that_cannot_be_enforced_starts_nothing(
    client: AsyncAgentClient, start_worker: Start, config: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "sprung"
    config.write_text(f'{PROBE}[providers.probe.sandbox]\nwrite = ["/no/such/place"]\n')
    start_worker()
    state = await (await client.start("probe", f"open({str(trap)!r}, 'w')")).wait(20)
    assert (state.status, state.reason) == ("error", "refused")
    assert state.error == "sandbox.write: /no/such/place does not exist"
    assert not trap.exists()
