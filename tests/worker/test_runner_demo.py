"""The built-in demo, as a real process over real pipes: the protocol, the true figures, the prompt's commands."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq_worker.builtin_runners.demo import directory_tools, prompt_commands
from tests.worker.runner_processes import (
    Line,
    as_line,
    blocks,
    events,
    query,
    run_runner,
    runner_environment,
    talking_runner,
    texts,
)

READY = {"type": "ready", "accepts": ["answer", "interrupt"]}
DEMO = "agentrq_worker.builtin_runners.demo"
NOT_JSON = b"This line is not JSON, on purpose: a demonstration of an error the session survives."


def results(lines: list[Line]) -> list[dict[str, Any]]:
    return [event for event in events(lines) if event["type"] == "result"]


def tool_answers(lines: list[Line]) -> dict[str, dict[str, Any]]:
    """The result block of each tool, by the tool's name."""
    names = {block["id"]: block["name"] for block in blocks(lines) if block["type"] == "tool_use"}
    return {names[block["tool_use_id"]]: block for block in blocks(lines) if block["type"] == "tool_result"}


def demo(stdin: bytes, code: int = 0, **environment: str) -> list[Line]:
    done = run_runner(DEMO, stdin, **environment)
    assert done.returncode == code, done.stderr.decode()
    return [as_line(raw) for raw in done.stdout.splitlines(keepends=True)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory of 3 countable files, 4 newlines and 23 bytes."""
    (tmp_path / "README.md").write_text("# A\nb\n")
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "sub" / "deep" / "x.py").write_text("one\ntwo\nthree")
    (tmp_path / "data.bin").write_bytes(b"\0\1\2\3")
    for skipped in (".git", "node_modules", ".venv"):
        (tmp_path / skipped).mkdir()
        (tmp_path / skipped / "big").write_text("no\n" * 99)
    (tmp_path / "link").symlink_to("README.md")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def test_the_first_turn_keeps_the_protocol_and_shows_every_type(tree: Path) -> None:
    lines = demo(query("look around", cwd=str(tree), model="m1"))
    assert lines[:2] == [READY, {"type": "agent_started"}]
    assert [line for line in lines if isinstance(line, bytes)] == [NOT_JSON]
    told = events(lines)
    assert (told[0]["type"], told[0]["subtype"], told[0]["model"], told[0]["cwd"]) == (
        "system",
        "init",
        "m1",
        str(tree),
    )
    assert told[-1]["type"] == "result"
    assert {(event["type"], event.get("subtype")) for event in told} == {
        ("system", "init"),
        ("system", "status"),
        ("system", "compact_boundary"),
        ("rate_limit_event", None),
        ("stream_event", None),
        ("assistant", None),
        ("user", None),
        ("control_request", None),
        ("control_cancel_request", None),
        ("demo_novelty", None),
        ("result", "success"),
    }
    assert {block["type"] for block in blocks(lines)} == {"thinking", "text", "tool_use", "tool_result"}
    assert "no language model is asked" in texts(lines)[0]


def test_every_id_is_new_and_every_request_is_withdrawn(tree: Path) -> None:
    told = events(demo(query("a", cwd=str(tree)) + query("b") + query("/echo c")))
    identified = [event["uuid"] for event in told if "uuid" in event]
    assert len(identified) == len(set(identified))
    asked = [event for event in told if event["type"] == "control_request"]
    assert [event["request"]["subtype"] for event in asked] == ["can_use_tool", "elicitation"]
    for event in asked:
        following = told[told.index(event) + 1]
        assert following == {"type": "control_cancel_request", "request_id": event["request_id"]}


def test_deltas_come_first_and_make_the_whole(tree: Path) -> None:
    told = events(demo(query("Straße " * 20, cwd=str(tree))))
    pieces: dict[tuple[str, int], str] = {}
    current, wholes = "", 0
    for event in told:
        inner = event.get("event", {})
        if inner.get("type") == "message_start":
            current = inner["message"]["id"]
        elif inner.get("type") == "content_block_delta":
            delta = inner["delta"]
            key = (current, inner["index"])
            pieces[key] = pieces.get(key, "") + (delta.get("text") or delta.get("thinking"))
        elif event["type"] == "assistant" and event["message"]["id"] == current:
            (block,) = event["message"]["content"]
            assert pieces[(current, max(index for name, index in pieces if name == current))] == block[block["type"]]
            wholes += 1
    assert wholes == len(pieces) == 3


def test_the_sub_agent_speaks_under_its_task(tree: Path) -> None:
    told = events(demo(query("x", cwd=str(tree))))
    (spoken,) = [event for event in told if event.get("parent_tool_use_id")]
    answered = told[told.index(spoken) + 1]["message"]["content"][0]
    assert answered["tool_use_id"] == spoken["parent_tool_use_id"]


def test_the_figures_are_true_and_the_prompt_is_quoted(tree: Path) -> None:
    lines = demo(query("how big is it?", cwd=str(tree)))
    answers = tool_answers(lines)
    assert answers["LS"]["content"].split("\n") == [
        ".git/",
        ".venv/",
        "README.md",
        "data.bin",
        "link",
        "node_modules/",
        "pipe",
        "sub/",
    ]
    assert (answers["Read"]["content"], answers["Read"]["is_error"]) == ("# A\nb\n", False)
    assert answers["Count"]["content"] == "3 files, 4 lines, 23 bytes"
    assert all(figure in texts(lines)[-1] for figure in ("how big is it?", "3 files, 4 lines, 23 bytes", str(tree)))
    (result,) = results(lines)
    assert result["result"] == texts(lines)[-1]
    assert (result["total_cost_usd"], result["num_turns"], result["is_error"]) == (0, 1, False)
    assert result["usage"]["input_tokens"] == result["usage"]["output_tokens"] == 0


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (lambda at: (at / "readme.txt").write_bytes(b"\x7fELF\0"), ("This is a binary file.", True)),
        (lambda at: (at / "README").write_bytes(b"\xff\xfe"), ("This is a binary file.", True)),
        (lambda at: (at / "a.bin").write_bytes(b"\0") and (at / "b").write_text("text"), ("text", False)),
        (lambda at: (at / "README").symlink_to("/etc/passwd"), None),
        (lambda at: (at / "README.md").mkdir(), None),
        (lambda at: at.rmdir(), None),
        (lambda at: (at / "long").write_text("x" * 4095 + "é" + "y"), ("x" * 4095, False)),
    ],
)
def test_the_demo_reads_a_text_file_and_nothing_else(
    tmp_path: Path, make: Any, answer: tuple[str, bool] | None
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    make(place)
    lines = demo(query("read", cwd=str(place)))
    found = tool_answers(lines)["Read"]
    if answer is None:
        assert found["is_error"]
    else:
        assert (found["content"], found["is_error"]) == answer
    assert len(results(lines)) == 1


def test_a_file_name_that_is_not_utf8_is_shown_with_question_marks(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("hi")
    answers = tool_answers(demo(query("x", cwd=str(tmp_path))))
    assert (answers["LS"]["content"], answers["Read"]["content"]) == ("caf?.txt", "hi")


def test_counting_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcd":
        (tmp_path / name).write_text("\n\n")
        (tmp_path / f"dir-{name}").mkdir()
    assert directory_tools.count(str(tmp_path)) == (4, 8, 8, [])
    monkeypatch.setattr(directory_tools, "MAX_FILES", 4)
    assert directory_tools.count(str(tmp_path)).bounds == []
    monkeypatch.setattr(directory_tools, "MAX_FILES", 3)
    assert directory_tools.count(str(tmp_path)) == (3, 6, 6, ["stopped after 3 files"])
    monkeypatch.setattr(directory_tools, "MAX_FILES", 9)
    monkeypatch.setattr(directory_tools, "MAX_DIRECTORIES", 4)
    assert directory_tools.count(str(tmp_path)).bounds == ["stopped after 4 directories"]
    monkeypatch.setattr(directory_tools, "MAX_COUNTED", 3)
    assert directory_tools.count(str(tmp_path))[:3] == (4, 3, 8)


def test_prompts_queue_in_order_and_all_are_finished_at_the_end_of_stdin(tree: Path) -> None:
    lines = demo(query("first", cwd=str(tree)) + query("second") + query("/echo third") + query("fourth")[:-1])
    ended = [result["result"] for result in results(lines)]
    assert [next(word for word in ("first", "second", "third", "fourth") if word in text) for text in ended] == [
        "first",
        "second",
        "third",
        "fourth",
    ]
    assert ended[1].startswith("Turn 2: ")
    assert ended[3].startswith("Turn 4: ")
    assert "3 files, 4 lines, 23 bytes" in ended[3]
    inits = [event for event in events(lines) if event.get("subtype") == "init"]
    assert len(inits) == 4
    assert {init["cwd"] for init in inits} == {str(tree)}
    assert len({init["session_id"] for init in inits}) == 1


async def test_a_prompt_in_mid_turn_waits_for_the_turn() -> None:
    async with talking_runner(DEMO) as talk:
        talk.write(query("/sleep 1.2"))
        await talk.until("Working")
        talk.write(query("/echo after"))
        seen = await talk.until("result")
        assert "after" not in texts(seen)
        assert texts(await talk.until("result")) == ["after"]
        talk.command("stop")
        assert await talk.rest() == [{"type": "agent_stopped"}]
        assert await talk.process.wait() == 0


async def test_stop_and_ping_are_heard_in_mid_turn() -> None:
    async with talking_runner(DEMO) as talk:
        talk.write(query("/sleep 3600"))
        await talk.until("Working")
        talk.command("ping")
        await talk.until("pong")
        talk.write(query("/echo never"))
        talk.command("stop")
        seen = await talk.rest()
        assert seen[-1] == {"type": "agent_stopped"}
        assert "never" not in texts(seen)
        assert await talk.process.wait() == 0


def asked(lines: list[Line]) -> dict[str, Any]:
    """The request asked last."""
    return [event for event in events(lines) if event["type"] == "control_request"][-1]


@pytest.mark.parametrize(
    ("answer", "is_error"), [("allow", False), ({"decision": "allow"}, False), ("deny", True), (None, True)]
)
async def test_the_demo_reads_a_file_only_if_it_is_allowed(tree: Path, answer: Any, is_error: bool) -> None:
    async with talking_runner(DEMO) as talk:
        talk.write(query("look", cwd=str(tree), permissionMode="default"))
        lines = await talk.until("control_request")
        request = asked(lines)
        assert (request["request"]["tool_name"], request["request"]["input"]["file_path"]) == (
            "Read", str(tree / "README.md"),
        )  # fmt: skip
        if answer is None:
            talk.command("withdraw", requestId=request["request_id"])
        else:
            talk.command("answer", requestId=request["request_id"], answer=answer)
        lines += await talk.until("control_request")
        assert tool_answers(lines)["Read"]["is_error"] is is_error
        talk.command("answer", requestId=asked(lines)["request_id"], answer={"colour": "green"})
        assert "You chose green." in results(await talk.until("result"))[0]["result"]


@pytest.mark.parametrize("answer", ["allow", "deny"])
async def test_the_demo_asks_whatever_its_mode_when_the_prompt_says_so(tree: Path, answer: str) -> None:
    async with talking_runner(DEMO) as talk:
        talk.write(query("/ask make release", cwd=str(tree), permissionMode="bypassPermissions"))
        lines = await talk.until("control_request")
        assert asked(lines)["request"]["input"]["command"] == "make release"
        talk.command("answer", requestId=asked(lines)["request_id"], answer=answer)
        lines += await talk.until("result")
        assert tool_answers(lines)["Bash"]["is_error"] is (answer == "deny")
        assert results(lines)[0]["result"] == ("Allowed." if answer == "allow" else "Not allowed.")


async def test_an_interrupt_ends_the_demos_turn_while_it_waits_and_while_it_works(tree: Path) -> None:
    async with talking_runner(DEMO) as talk:
        for prompt, shown in (("look", "control_request"), ("/sleep 3600", "Working")):
            talk.write(query(prompt, cwd=str(tree), permissionMode="default"))
            await talk.until(shown)
            talk.command("interrupt")
            (result,) = results(await talk.until("result"))
            assert result["errors"] == ["Interrupted by the user"]
        talk.write(query("/echo on"))
        assert texts(await talk.until("result")) == ["on"]


async def test_a_policy_decides_what_the_demo_reads_and_nobody_has_to_answer_a_question(tree: Path) -> None:
    async with talking_runner(DEMO) as talk:
        talk.write(query("look", cwd=str(tree), approvals="deny"))
        lines = await talk.until("control_request")
        talk.command("answer", requestId=asked(lines)["request_id"], answer="deny")
        lines += await talk.until("result")
        assert tool_answers(lines)["Read"]["is_error"]


def test_a_demo_that_is_not_asked_to_ask_and_one_without_anybody_to_answer_go_on(tree: Path) -> None:
    for mode in ("bypassPermissions", "default"):
        lines = demo(query("look", cwd=str(tree), permissionMode=mode))
        assert results(lines)[0]["is_error"] is False
        assert tool_answers(lines)["Read"]["is_error"] is (mode == "default")


async def test_stop_ends_a_paced_turn() -> None:
    async with talking_runner(DEMO, AGENTRQ_DEMO_PACE="60") as talk:
        talk.write(query("slow"))
        await talk.until("system")
        talk.command("stop")
        assert (await talk.rest())[-1] == {"type": "agent_stopped"}


async def test_term_ends_it_at_once() -> None:
    async with talking_runner(DEMO) as talk:
        talk.write(query("/sleep 3600"))
        await talk.until("Working")
        talk.process.terminate()
        assert await talk.process.wait() == -signal.SIGTERM


async def test_nobody_reading_ends_it_without_a_trace() -> None:
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        DEMO,
        stdin=subprocess.PIPE,
        stdout=write,
        stderr=subprocess.PIPE,
        env=runner_environment(),
    )
    os.close(write)
    async with asyncio.timeout(30):
        _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (-signal.SIGPIPE, b"")


def test_malformed_stdin_is_a_log_line_and_no_more() -> None:
    bad = [b"{nonsense", b"[]", b"\xff\xfe", b'{"type":"query"}', b'{"type":"query","prompt":7}', b'{"type":"novel"}']
    bad += [b'{"type":7}', b'{"a":' * 3000]
    lines = demo(b"\n".join([*bad, b"", query("/echo still here")]))
    assert sum(isinstance(line, dict) and line["type"] == "agent_log" for line in lines) == len(bad)
    assert texts(lines) == ["still here"]


def test_a_demo_without_a_prompt_ends_well() -> None:
    assert demo(b"") == [READY]


def test_a_resumed_demo_says_so() -> None:
    lines = demo(query("go on", resume="old-1"))
    assert "resumed session old-1" in texts(lines)[0]
    assert "no language model is asked" in texts(lines)[0]
    assert events(lines)[0]["session_id"] == "old-1"


@pytest.mark.parametrize("pace", ["soon", "-1", "nan", "inf"])
def test_a_bad_pace_is_a_log_line(pace: str) -> None:
    lines = demo(query("/echo x"), AGENTRQ_DEMO_PACE=pace)
    assert [line["type"] for line in lines if isinstance(line, dict)][:3] == ["ready", "agent_log", "agent_started"]


@pytest.mark.parametrize("text", ["hello  world ", "Zoë \u2028 \U0001f600", "/crash", ""])
def test_echo_is_exactly_one_text(text: str) -> None:
    lines = demo(query(f"/echo {text}"))
    assert texts(lines) == [text]
    assert [event["type"] for event in events(lines)] == ["system", "assistant", "result"]


@pytest.mark.parametrize(("word", "code"), [("/crash", 3), ("/crash 7", 7), ("/crash 0", 0)])
def test_crash_ends_in_mid_turn(word: str, code: int) -> None:
    lines = demo(query(word) + query("/echo never"), code)
    assert texts(lines) == [f"Crashing: exit code {code}."]
    assert results(lines) == []


def test_lines_are_numbered_and_of_their_size() -> None:
    lines = demo(query("/lines 1500 200"))
    assert texts(lines) == [prompt_commands.line_text(number, 1500, 200) for number in range(1, 1501)]
    assert {len(text) for text in texts(lines)} == {200}
    assert len({event["message"]["id"] for event in events(lines) if event["type"] == "assistant"}) == 1500
    assert texts(demo(query("/lines 0"))) == []


def test_huge_is_one_text_of_its_size() -> None:
    assert [len(text) for text in texts(demo(query("/huge 3000000")))] == [3_000_000]


def test_prompt_commands_are_carried_out_in_order() -> None:
    done = run_runner(DEMO, query("please\n/stderr to the log\n/echo a\r\n/echo b\nand thanks"))
    lines = [as_line(raw) for raw in done.stdout.splitlines()]
    assert (done.stderr, texts(lines), len(results(lines))) == (b"to the log\n", ["a", "b"], 1)


@pytest.mark.parametrize("word", ["/crash x", "/crash 256", "/sleep", "/sleep nan", "/lines", "/lines 1 x", "/huge -1"])
def test_a_prompt_command_with_bad_arguments_ends_its_turn_as_an_error(word: str) -> None:
    lines = demo(query(word) + query("/echo on"))
    bad, good = results(lines)
    assert bad["is_error"]
    assert bad["errors"][0].startswith("Usage: " + word.split(maxsplit=1)[0])
    assert (good["is_error"], texts(lines)) == (False, ["on"])


async def test_hang_ignores_stop_and_term() -> None:
    async with talking_runner(DEMO) as talk:
        talk.write(query("/hang"))
        await talk.until("Hanging")
        talk.command("stop")
        talk.process.terminate()
        talk.command("ping")
        assert await talk.read() == {"type": "pong"}
        talk.process.kill()
        assert await talk.process.wait() == -signal.SIGKILL


async def test_spawn_leaves_a_child_in_a_session_of_its_own() -> None:
    async with talking_runner(DEMO) as talk:
        talk.write(query("/spawn 120"))
        child = int(results(await talk.until("result"))[0]["result"])
        try:
            assert os.getsid(child) == child
            watch = os.pidfd_open(talk.process.pid)
            talk.command("stop")
            await talk.until("agent_stopped")
            # Not process.wait(): it waits for the pipes' end, and the child holds them.
            ended = asyncio.Event()
            asyncio.get_running_loop().add_reader(watch, ended.set)
            await ended.wait()
            asyncio.get_running_loop().remove_reader(watch)
            os.close(watch)
            assert os.getsid(child) == child
        finally:
            os.kill(child, signal.SIGKILL)


@given(st.integers(1, 9999), st.integers(1, 9999), st.integers(0, 300))
def test_a_numbered_text_has_its_size_or_just_its_numbers(number: int, count: int, size: int) -> None:
    text = prompt_commands.line_text(number, count, size)
    assert text.startswith(f"{number}/{count} ")
    assert len(text) == max(size, len(prompt_commands.line_text(number, count, 0)))
