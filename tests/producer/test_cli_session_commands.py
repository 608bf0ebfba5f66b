"""``run`` and ``attach`` on a real server: what is shown in a pipe, as JSON and on a terminal, and when they end."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agentrq.embedded.server_process import ServerProcess
from tests.polling import wait_until
from tests.producer.command_line import COMMAND, LIMIT_S, Follower, environment, following, only_line, run_cli
from tests.producer.session_writer import Writer

EVIL = "\x1b]0;owned\x07\x1b[31mred\r\n\x9b2J \u202edlo"
HARMLESS = ["^[]0;owned^G^[[31mred", "\ufffd2J \ufffddlo"]
EVERYTHING = [
    ("prompt", {"text": "Do it", "commandId": "c1"}),
    ("init", {"providerSessionId": "p", "model": "fable", "cwd": "/srv", "tools": ["Bash", {"name": "x"}]}),
    ("text", {"text": "Zwei\nZeilen – 😀", "blockId": "b1"}),
    ("thinking", {"text": ""}),
    ("tool_call", {"toolUseId": "t1", "name": "Bash", "input": {"command": "ls", "n": 1.5, "none": None, "a": [1]}}),
    ("tool_result", {"toolUseId": "t1", "output": [{"type": "text", "text": "a"}], "isError": False}),
    ("status", {"subtype": "requesting"}),
    ("compaction", {"trigger": "auto", "preTokens": 9007199254740993}),
    ("approval_request", {"requestId": "r1", "name": "Bash", "input": {}, "suggestions": [{"x": None}]}),
    ("approval_resolved", {"requestId": "r1", "decision": "allow", "by": "client"}),
    ("rate_limit", {"scope": "five_hour", "message": "soon", "resetsAt": 1_763_793_000_000}),
    ("question", {"requestId": "r2", "questions": [{"id": "0", "header": "h", "question": "q", "options": ["a"]}]}),
    ("error", {"message": "too long", "code": "line_too_long", "bytes": 11}),
    ("error", {"message": "gone", "code": "history_lost", "from": "1-1", "to": "1-2"}),
    ("unknown", {"type": "novelty", "deep": {"list": [None, True, 1e300, ""]}}),
    ("hologram", {"newer": "than this library"}),
    ("text", {"text": 7, "note": "ill-typed for this library"}),
    (
        "cost",
        {
            "totalCostUsd": 0.0123,
            "durationMs": 2100,
            "inputTokens": 10,
            "outputTokens": 2,
            "numTurns": 1,
            "isError": True,
            "errors": ["overloaded"],
            "sessionTotal": {"costUsd": 1.5, "inputTokens": 100, "outputTokens": 20, "numTurns": 3},
        },
    ),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ServerProcess(tmp_path_factory.mktemp("server"), args=("--appendonly", "no")) as server:
        yield server.url


def everything(url: str, sid: str) -> Writer:
    writer = Writer.start(url, sid)
    writer.statuses("running")
    for kind, content in EVERYTHING:
        writer.message(kind, content)
    writer.message("text", {"text": "of a sub-agent"}, parentId="t1")
    writer.receipt("c2", "prompt", "rejected", reason="no")
    return writer


def begun(writer: Writer, follower: Follower) -> None:
    """The follower has seen all there is and gets live hints from now on."""
    wait_until(writer.followed)
    writer.message("text", {"text": "BEGUN"})
    follower.read_until("BEGUN")


# -- JSON


def test_json_is_the_streams_own(url: str) -> None:
    writer = everything(url, "wire")
    writer.end("done", "max_turns")
    done = run_cli("attach", "wire", "--json", url=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == writer.stream()


def test_json_has_no_deltas_and_comes_live(url: str) -> None:
    writer = Writer.start(url, "live-json")
    with following(*COMMAND, "attach", "live-json", "--json", url=url) as follower:
        begun(writer, follower)
        writer.delta("text_delta", "Hel", "b1", 0)
        writer.message("text", {"text": "Hello", "blockId": "b1"})
        follower.read_until("Hello")
        writer.end("error", "failed", error="Exit code: 3")
        code, printed, said = follower.finish()
    assert (code, said) == (1, "")
    assert [json.loads(line) for line in printed.splitlines()] == writer.stream()


# -- plain text


def test_in_a_pipe_an_event_is_a_line_and_its_further_lines_are_indented(url: str) -> None:
    everything(url, "plain").end("done", "completed")
    done = run_cli("attach", "plain", url=url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    heads = [re.match(r"\d\d:\d\d:\d\d (\d+-\d+) +(\w+)", line) for line in lines]
    kinds = [head[2] for head in heads if head]
    assert kinds == [*["session"] * 3, *[kind for kind, _ in EVERYTHING], "text", "receipt", "session"]
    assert [head[1] for head in heads if head][3:6] == ["1-3", "1-4", "1-5"]
    assert all(line.startswith("    ") for line, head in zip(lines, heads, strict=True) if not head)
    for expected in (
        "06:30:00 1-5    text         Zwei\n    Zeilen – 😀\n",
        "06:30:00 1-7    tool_call    Bash  ls\n",
        " 1-11   approval_request approval needed: Bash\n    agentrq answer plain r1 allow    # or: deny\n",
        ' question     [0] h: q\n        - a\n    agentrq answer plain r2 \'{"answers":{"0":"…"}}\'\n',
        " error        line_too_long: too long\n",
        ' hologram     {"newer":"than this library"}\n',
        " cost         failed · $0.0123 · 2.1 s · 10 in · 2 out · 1 turn · session $1.50 in 3 turns\n    overloaded\n",
        " text         ↳ of a sub-agent\n",
        " receipt      prompt rejected: no (c2)\n",
        " session      done (completed)\n",
    ):
        assert expected in done.stdout
    assert "\x1b" not in done.stdout


def test_control_characters_of_an_agent_are_only_shown(url: str) -> None:
    writer = Writer.start(url, "evil")
    writer.message("text", {"text": EVIL})
    writer.message("tool_call", {"toolUseId": "t", "name": EVIL, "input": {"command": EVIL}})
    writer.message("approval_request", {"requestId": EVIL, "name": "Bash", "input": {EVIL: EVIL}})
    writer.message(EVIL, {"a": EVIL})
    writer.end("error", "failed", error=EVIL)
    piped = run_cli("attach", "evil", url=url).stdout
    with following(*COMMAND, "attach", "evil", url=url, terminal=True, NO_COLOR="1") as follower:
        _, shown, _ = follower.finish()
    for text in (piped, shown.replace("\r\n", "\n")):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
        for part in HARMLESS:
            assert part in text


def test_attach_shows_only_what_follows_the_cursor(url: str) -> None:
    writer = everything(url, "after")
    writer.end("done", "completed")
    done = run_cli("attach", "after", "--after", "1-4", "--json", url=url)
    assert [json.loads(line) for line in done.stdout.splitlines()] == writer.stream()[5:]
    last = writer.stream()[-1]["cursor"]
    done = run_cli("attach", "after", "--after", last, url=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_after_the_last_event_of_a_session_in_error_is_1_still(url: str) -> None:
    Writer.start(url, "bad-end").end("error", "lost", error="gone")
    done = run_cli("attach", "bad-end", "--after", "1-2", url=url)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_cursor_that_is_trimmed_away_is_refused(url: str) -> None:
    writer = Writer.start(url, "trimmed")
    for _ in range(5):
        head = {"sessionId": "trimmed", "cursor": f"1-{writer.seq + 1}", "timestamp": 0, "id": "m", "type": "text"}
        writer.write(("m", head | {"content": {"text": "x"}}), most=2)
    done = run_cli("attach", "trimmed", "--after", "1-1", url=url)
    assert (done.returncode, done.stdout) == (5, "")
    assert "trimmed through 1-4" in only_line(done.stderr)


# -- run


@pytest.mark.parametrize(
    ("status", "reason", "code"), [("idle", None, 0), ("done", "completed", 0), ("error", "failed", 1)]
)
def test_run_ends_with_the_turn(url: str, status: str, reason: str | None, code: int) -> None:
    sid = f"run-{status}"
    with following(*COMMAND, "run", "fake", "Do it", "--session-id", sid, "--json", url=url) as follower:
        follower.read_until("queued")
        writer = Writer(url, sid).claim()
        writer.statuses("running")
        writer.message("text", {"text": "There."})
        if reason is None:
            writer.statuses(status)
        else:
            writer.end(status, reason)
        exit_code, printed, said = follower.finish()
    assert exit_code == code
    assert "no worker serves queue agentrq" in only_line(said)
    assert [json.loads(line) for line in printed.splitlines()] == writer.stream()


def test_run_goes_on_while_more_prompts_wait(url: str) -> None:
    with following(*COMMAND, "run", "fake", "Do it", "--session-id", "more", url=url) as follower:
        follower.read_until("queued as more")
        writer = Writer(url, "more").claim()
        writer.statuses("running")
        writer.statuses("idle", "running")
        begun(writer, follower)
        writer.statuses("idle")
        code, printed, _ = follower.finish()
    assert code == 0
    assert printed.count(" idle") == 2


def test_with_a_worker_in_the_queue_run_says_nothing_of_one(url: str) -> None:
    Writer(url, "x").redis.sadd("rq:workers:other", "rq:worker:w")
    with following(*COMMAND, "run", "fake", "x", "--session-id", "w", url=url, AGENTRQ_QUEUE="other") as follower:
        follower.read_until("queued as w")
        Writer(url, "w").claim().end("done", "completed")
        assert follower.finish()[::2] == (0, "")


# -- the ways out


@pytest.mark.parametrize("terminal", [False, True])
def test_ctrl_c_detaches_quietly(url: str, terminal: bool) -> None:
    sid = f"detached-{terminal}"
    writer = Writer.start(url, sid)
    with following(*COMMAND, "attach", sid, url=url, terminal=terminal) as follower:
        begun(writer, follower)
        follower.interrupt()
        code, _, said = follower.finish()
    assert code == 130
    assert only_line(said) == f"detached; session {sid} keeps running"


def test_a_closed_pipe_ends_it_quietly(url: str) -> None:
    everything(url, "head").end("error", "failed", error="x")
    shell = f"set -o pipefail; {sys.executable} -m agentrq attach head | head -1"
    for _ in range(3):
        with following("bash", "-c", shell, url=url) as follower:
            code, printed, said = follower.finish()
        # Whether our last write comes before or after head's end is chance: the session's code, or none.
        assert code in (0, 1)
        assert (printed.count("\n"), said) == (1, "")


def test_a_reader_that_goes_while_we_follow(url: str) -> None:
    writer = Writer.start(url, "gone-reader")
    command = [*COMMAND, "attach", "gone-reader"]
    with subprocess.Popen(
        command, env=environment(AGENTRQ_REDIS_URL=url), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        wait_until(writer.followed)
        process.stdout.close()
        process.stdout = None
        writer.message("text", {"text": "for nobody"})
        _, said = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, said) == (0, b"")


def test_a_full_disk_is_one_line(url: str) -> None:
    everything(url, "disk").end("done", "completed")
    with following("bash", "-c", f"{sys.executable} -m agentrq attach disk >/dev/full", url=url) as follower:
        code, _, said = follower.finish()
    assert code == 1
    assert only_line(said) == "Cannot write to stdout: No space left on device"


def test_a_stdout_that_was_never_open(url: str) -> None:
    with following("bash", "-c", f"{sys.executable} -m agentrq list >&-", url=url) as follower:
        assert follower.finish() == (0, "", "")


# -- on a terminal


def streamed(url: str, sid: str, *command: str, **changes: str | None) -> str:
    """What a terminal shows of texts that come in pieces, and of the whole texts after them."""
    writer = Writer.start(url, sid)
    with following(*(command or COMMAND), "attach", sid, url=url, terminal=True, **changes) as follower:  # type: ignore[arg-type]
        begun(writer, follower)
        writer.delta("thinking_delta", "Hmm, ", "b0", 0)
        follower.read_until("Hmm")
        writer.delta("thinking_delta", "yes.", "b0", 5)
        writer.message("thinking", {"text": "Hmm, yes.", "blockId": "b0"})
        writer.delta("text_delta", "One two", "b1", 0)
        follower.read_until("One two")
        writer.delta("text_delta", " three", "b1", 7)
        follower.read_until(" three")
        writer.message("text", {"text": "One two three. End.", "blockId": "b1"})
        writer.delta("text_delta", "not its beginning", "b2", 40)
        writer.message("text", {"text": "Second text, whole", "blockId": "b2"})
        writer.statuses("running", "idle")
        writer.message("error", {"message": "Something red"})
        writer.end("done", "completed")
        code, shown, said = follower.finish()
    assert (code, said) == (0, "")
    return shown.replace("\r\n", "\n")


def seen_once(shown: str) -> None:
    text = re.sub("\x1b\\[[0-9;]*m", "", shown)
    for words in ("Hmm, yes.", "One two three. End.\n", "Second text, whole", "Something red", "done (completed)"):
        assert text.count(words) == 1, words
    for words in ("One two", "Hmm", "not its beginning"):
        assert text.count(words) == (0 if words.startswith("not") else 1), words


def test_a_terminal_shows_deltas_as_they_come_and_each_text_once_in_colour(url: str) -> None:
    shown = streamed(url, "terminal")
    seen_once(shown)
    assert re.search("\x1b\\[31m[^\x1b]*Something red", shown)
    assert re.search(r"\x1b\[2m\d\d:\d\d:\d\d \x1b\[0m", shown)


def test_no_color_is_honoured(url: str) -> None:
    shown = streamed(url, "no-color", NO_COLOR="1")
    seen_once(shown)
    assert "\x1b" not in shown


def test_a_dumb_terminal_gets_no_escape_codes(url: str) -> None:
    shown = streamed(url, "dumb", TERM="dumb")
    seen_once(shown)
    assert "\x1b" not in shown


def test_without_rich_it_is_the_same_without_colour(url: str) -> None:
    code = "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None; from agentrq.cli import main; main()"
    shown = streamed(url, "no-rich", sys.executable, "-c", code)
    seen_once(shown)
    assert "\x1b" not in shown


def test_lines_fit_the_terminal_and_hang_beside_the_time(url: str) -> None:
    writer = Writer.start(url, "wrapped")
    writer.message("text", {"text": "word " * 60 + "\n    code\n" + "漢" * 90})
    writer.end("done", "completed")
    with following(*COMMAND, "attach", "wrapped", url=url, terminal=True, NO_COLOR="1") as follower:
        lines = follower.finish()[1].replace("\r\n", "\n").splitlines()
    assert max(len(line) + line.count("漢") for line in lines) <= 80
    assert " " * 11 + "    code" in lines
    assert "".join(lines).count("漢") == 90
    assert all(re.match(r"\d\d:\d\d:\d\d | {11}\S|\s+code", line) for line in lines)


def test_run_on_a_terminal_says_how_to_go_on(url: str) -> None:
    command = (*COMMAND, "run", "fake", "Do it", "--session-id", "hint")
    with following(*command, url=url, terminal=True, NO_COLOR="1") as follower:
        follower.read_until("queued as hint")
        Writer(url, "hint").claim().statuses("running", "idle")
        code, shown, _ = follower.finish()
    assert code == 0
    assert "agentrq prompt hint TEXT" in shown
