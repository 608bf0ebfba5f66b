"""The built-in replay, as a real process over real pipes: every byte of a recording, its parser, its pace."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq_worker.builtin_runners.protocol import RunnerError
from agentrq_worker.builtin_runners.replay.__main__ import Request, parse
from agentrq_worker.builtin_runners.replay.format_guess import guess
from agentrq_worker.builtin_runners.replay.pace import GAP_S, due_times
from tests.worker.runner_processes import query, run_runner, talking_runner

REPLAY = "agentrq_worker.builtin_runners.replay"
TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
RECORDED = sorted(path.name for path in TRANSCRIPTS.glob("*.ndjson") if not path.name.endswith(".in.ndjson"))
PARSERS = {
    "claude": "claude",
    "claude197": "claude",
    "codex": "codex",
    "codexapp": "codex",
    "gemini": "gemini",
    "opencode": "opencode",
    "claudeacp": "acp",
    "geminiacp": "acp",
    "opencodeacp": "acp",
}


def replayed(stdin: bytes, *arguments: str, code: int = 0) -> list[bytes]:
    """The lines after ``ready``."""
    done = run_runner(REPLAY, stdin, *arguments)
    assert done.returncode == code, done.stderr.decode()
    first, *lines = done.stdout.split(b"\n")[:-1]
    assert json.loads(first) == {"type": "ready"}
    return lines


def wrapped(raw: bytes) -> bytes:
    return b'{"type":"agent_event","event":' + raw + b"}"


def started(parser: str) -> dict[str, str]:
    return {"type": "agent_started", "parser": parser}


def test_the_recordings_are_found() -> None:
    assert {name.split("-")[0] for name in RECORDED} >= {"claude", "codex"}


@pytest.mark.parametrize("name", RECORDED)
def test_every_object_goes_out_byte_for_byte(name: str) -> None:
    objects = [line for line in (TRANSCRIPTS / name).read_bytes().split(b"\n") if line]
    begun, *lines = replayed(query(f"{name} --speed 0", cwd=str(TRANSCRIPTS)))
    assert json.loads(begun) == started(PARSERS[name.split("-", maxsplit=1)[0]])
    assert lines == [wrapped(line) for line in objects]
    for line, raw in zip(lines, objects, strict=True):
        assert json.loads(line)["event"] == json.loads(raw)


def test_a_paced_replay_prints_the_same_as_one_without_pauses(tmp_path: Path) -> None:
    stamped = [{"type": "text", "timestamp": 1795329149023 + at * 3_600_000, "sessionID": "x"} for at in range(20)]
    file = tmp_path / "r.ndjson"
    file.write_text("\n".join(map(json.dumps, stamped)))
    flat = replayed(query(""), str(file), "--speed", "0")
    assert json.loads(flat[0]) == started("opencode")
    assert len(flat) == 21
    assert replayed(query(""), str(file), "--speed=1e9") == flat


def test_a_line_that_is_not_an_object_is_replayed_as_it_is(tmp_path: Path) -> None:
    odd = [b"a banner", b"[1]", b'{"torn":', b'{"bad":"\xff"}', b'{"n":NaN}', b'"text"', b'{"a":' * 3000]
    good = [b'{"type":"x","lone":"\\ud800"}', '{"type":"y","raw":"\u2028"}'.encode(), b' { "spaced" : 1 } \r', b"{}"]
    file = tmp_path / "odd.ndjson"
    file.write_bytes(b"\n".join([*odd, b"", b"  ", *good]))
    begun, *lines = replayed(query("odd.ndjson --speed 0", cwd=str(tmp_path)))
    assert json.loads(begun) == started("claude")
    assert lines == [*odd, *(wrapped(line) for line in good)]


def test_each_query_replays_the_whole_recording_or_another(tmp_path: Path) -> None:
    (tmp_path / "a b.ndjson").write_text('{"jsonrpc":"2.0","id":1}\n')
    (tmp_path / "c.ndjson").write_text('{"type":"turn.started"}\n')
    prompts = query("'a b.ndjson'", cwd=str(tmp_path)) + query("c.ndjson --repeat 2") + query("c.ndjson --parser mine")
    turn = wrapped(b'{"type":"turn.started"}')
    lines = replayed(prompts)
    assert [json.loads(line).get("parser") for line in lines] == ["acp", None, "codex", None, None, "mine", None]
    assert (lines[1], lines[3], lines[4], lines[6]) == (wrapped(b'{"jsonrpc":"2.0","id":1}'), turn, turn, turn)


def test_a_repeated_recording_comes_in_order(tmp_path: Path) -> None:
    file = tmp_path / "load.ndjson"
    file.write_text("".join(f'{{"type":"system","number":{number}}}\n' for number in range(1000)))
    lines = replayed(query("ignored") + query("ignored"), str(file), "--speed", "0", "--repeat", "20")
    assert [json.loads(line)["event"]["number"] for line in lines[1:20001]] == list(range(1000)) * 20
    assert json.loads(lines[20001]) == started("claude")
    assert len(lines) == 2 * 20001


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("none.ndjson", "Transcript not found: {cwd}/none.ndjson"),
        ("/nowhere/x", "Transcript not found: /nowhere/x"),
        (".", "Transcript not found: {cwd}/."),
        ("/dev/zero", "Transcript not found: /dev/zero"),
        ("''", "No transcript named"),
        ("--speed 3", "No transcript named"),
        ("'open", "The prompt does not parse: No closing quotation"),
        ("a b", "More than one transcript: b"),
        ("a --speed -1", "Unknown or bad option: --speed -1"),
        ("a --speed", "Unknown or bad option: --speed"),
        ("a --repeat 0", "Unknown or bad option: --repeat 0"),
        ("a --novel 1", "Unknown or bad option: --novel 1"),
    ],
)
def test_what_cannot_be_played_ends_the_session(tmp_path: Path, prompt: str, message: str) -> None:
    (line,) = replayed(query(prompt, cwd=str(tmp_path)) + query("never"), code=1)
    found = json.loads(line)
    assert found["type"] == "agent_error"
    assert found["message"].startswith(message.format(cwd=tmp_path))


def test_a_bad_command_line_is_refused() -> None:
    done = run_runner(REPLAY, b"", "--novel")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Unknown or bad option: --novel" in done.stderr


async def test_stop_ends_it_between_two_lines(tmp_path: Path) -> None:
    file = tmp_path / "slow.ndjson"
    file.write_text('{"type":"a","timestamp":1795329149023}\n{"type":"b","timestamp":1795332749023}\n')
    async with talking_runner(REPLAY, str(file)) as talk:
        talk.write(query("play"))
        await talk.until("a")
        talk.command("stop")
        assert await talk.rest() == [{"type": "agent_stopped"}]
        assert await talk.process.wait() == 0


def test_options_of_the_prompt_override_the_command_line() -> None:
    base = parse(["--speed", "4", "--adapter=claude"], Request())
    assert base == Request(speed=4, parser="claude")
    assert parse(["f", "--speed=0"], base) == Request(file="f", speed=0, parser="claude")
    with pytest.raises(RunnerError):
        parse(["f", "--speed", "inf"], base)


@pytest.mark.parametrize(
    ("first", "parser"),
    [
        ({"type": "error", "message": "Reconnecting"}, "claude"),
        ({"type": "thread.started"}, "codex"),
        ({"method": "turn/started", "params": {}}, "codex"),
        ({"id": 1, "result": {}}, "codex"),
        ({"jsonrpc": "2.0", "method": "session/update"}, "acp"),
        ({"type": "tool_use", "sessionID": "s", "part": {}}, "opencode"),
        ({"type": "tool_use", "tool_name": "x", "tool_id": "1"}, "gemini"),
        ({"type": "message", "role": "user", "content": ""}, "gemini"),
        ({"type": "control_response", "response": {}}, "claude"),
    ],
)
def test_the_first_telling_object_names_the_parser(first: dict[str, Any], parser: str) -> None:
    assert guess([None, {}, {"type": 7}, first]) == parser


def test_lines_are_due_as_recorded() -> None:
    iso = [{"timestamp": "2026-11-22T06:31:24.000Z"}, {"timestamp": "2026-11-22T06:31:26.500Z"}]
    assert due_times(iso) == [0, 2.5]
    assert due_times([None, {}, None]) == pytest.approx([0, GAP_S, 2 * GAP_S])
    # Those without do not push the ones that have a time of their own.
    mixed: list[dict[str, Any]] = [{"timestamp": 1000}, {}, {}, {"timestamp": 3000}, {}, {"timestamp": 3010}]
    assert due_times(mixed) == pytest.approx([0, GAP_S, 2 * GAP_S, 2, 2 + GAP_S, 2 + GAP_S])


@given(
    st.lists(
        st.none()
        | st.builds(
            lambda stamp: {"timestamp": stamp},
            st.integers() | st.floats() | st.text() | st.booleans() | st.datetimes().map(str),
        )
    )
)
def test_no_timestamp_turns_time_back(objects: list[dict[str, Any] | None]) -> None:
    dues = due_times(objects)
    assert len(dues) == len(objects)
    assert all(earlier <= later for earlier, later in itertools.pairwise(dues))
