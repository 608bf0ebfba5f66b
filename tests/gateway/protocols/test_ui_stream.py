"""The UI message stream of Vercel AI SDK: what a session's events become, by the rules of the client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agentrq import Event
from agentrq.wire.ids import ORIGIN, Cursor
from agentrq_gateway.protocols.run import Run, RunPlace
from agentrq_gateway.protocols.ui_stream import UIMessageStream
from tests.gateway.protocols.made_sessions import GOLDEN, SID, MadeSession, from_recording
from tests.gateway.protocols.ui_client import Chat, Chunk

FIRST = RunPlace(SID, ORIGIN, "first")


def chunks_of(events: list[Event], place: RunPlace = FIRST) -> list[Chunk]:
    stream = UIMessageStream(Run(place))
    return [chunk for event in events for chunk in stream.see(event)]


def continued(events: list[Event], after: str, answers: int = 1) -> list[Chunk]:
    return chunks_of(events, RunPlace(SID, ORIGIN, None, Cursor.parse(after), answers))


def kept(events: list[Event]) -> list[Event]:
    return [event for event in events if event.cursor is not None]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name.split(".")[0])
def test_every_recording_is_a_response_that_the_client_takes(path: Path) -> None:
    turns = from_recording(path)
    assert turns
    for events in turns:
        if any(getattr(event, "status", "") == "waiting" for event in events):
            continue  # by parts: test_every_recording_with_a_request_goes_on
        chat = Chat().read(chunks_of(events))
        assert not [call for call, state in chat.calls.items() if state == "input-available"]
        assert chat.finished in ("stop", "error")
        if chat.finished == "stop":
            assert chat.texts == Chat().read(chunks_of(kept(events))).texts, "pieces make the whole texts"


def test_every_recording_with_a_request_goes_on() -> None:
    found = 0
    for path in GOLDEN:
        for events in from_recording(path):
            waits = [event for event in events if getattr(event, "status", "") == "waiting"]
            if not waits:
                continue
            found += 1
            chat = Chat().read(chunks_of(events))
            for event in waits:
                assert chat.finished == "tool-calls"
                chat.answer_all()
                assert chat.sends_by_itself()
                chat.read(continued(events, str(event.cursor)))
            assert chat.finished in ("stop", "error")
            assert set(chat.calls.values()) <= {"output-available", "output-error", "output-denied"}
    assert found >= 5


def ask(made: MadeSession, request: str, call: str) -> None:
    made.message("approval_request", requestId=request, name="Bash", input={"command": "ls"}, toolUseId=call)


def test_calls_beside_one_that_is_asked_about_do_not_keep_its_answer_back() -> None:
    made = MadeSession()
    made.begin()
    for call in ("a", "b", "c"):
        made.message("tool_call", toolUseId=call, name="Bash", input={})
    ask(made, "r1", "a")
    made.status("waiting")
    paused = len(made.events)
    chat = Chat().read(chunks_of(made.events))
    assert chat.calls == {"a": "approval-requested"}
    chat.answer_all()
    assert chat.sends_by_itself()
    made.receipt("x", "answer")
    made.message("approval_resolved", requestId="r1", decision="allow", by="client")
    made.status("running")
    made.message("tool_result", toolUseId="a", output="done", isError=False)
    made.message("tool_result", toolUseId="b", output="done", isError=False)
    ask(made, "r2", "c")
    made.status("waiting")
    chat.read(continued(made.events, str(made.events[paused - 1].cursor)))
    assert chat.calls == {"a": "output-available", "b": "output-available", "c": "approval-requested"}
    chat.answer_all()
    assert chat.sends_by_itself()


def test_two_requests_at_once_are_answered_together() -> None:
    made = MadeSession()
    made.begin()
    for call in ("a", "b"):
        made.message("tool_call", toolUseId=call, name="Bash", input={})
    ask(made, "r1", "a")
    ask(made, "r2", "b")
    made.status("waiting")
    after = str(made.events[-1].cursor)
    chat = Chat().read(chunks_of(made.events))
    assert set(chat.calls.values()) == {"approval-requested"}
    chat.answer_all()
    assert chat.sends_by_itself()
    for request in ("r1", "r2"):
        made.message("approval_resolved", requestId=request, decision="deny", by="client")
    made.status("running")
    for call in ("a", "b"):
        made.message("tool_result", toolUseId=call, output="denied", isError=True)
    made.end_turn()
    chat.read(continued(made.events, after, answers=2))
    assert chat.calls == {"a": "output-denied", "b": "output-denied"}
    assert not chat.sends_by_itself()


def test_an_answer_to_one_of_two_requests_leaves_the_other_to_be_answered() -> None:
    made = MadeSession()
    made.begin()
    ask(made, "r1", "a")
    ask(made, "r2", "b")
    made.status("waiting")
    after = str(made.events[-1].cursor)
    made.message("approval_resolved", requestId="r1", decision="allow", by="client")
    rest = continued(made.events, after)
    assert rest[-1]["finishReason"] == "tool-calls"
    chat = Chat().read(chunks_of(made.events)).read(rest)
    chat.answer_all()
    assert chat.sends_by_itself()


def test_calls_of_a_sub_agent_are_shown_while_its_call_runs() -> None:
    made = MadeSession()
    made.begin()
    made.message("tool_call", toolUseId="task", name="Task", input={})
    made.message("tool_call", parent="task", toolUseId="inner", name="Read", input={})
    shown = [chunk["toolCallId"] for chunk in chunks_of(made.events) if chunk["type"] == "tool-input-available"]
    assert shown == ["task", "inner"]


def test_what_ends_a_turn_badly_is_told() -> None:
    def last(end: Any) -> list[Chunk]:
        made = MadeSession()
        made.begin()
        end(made)
        return [chunk for chunk in chunks_of(made.events) if chunk["type"] in ("error", "abort", "finish")]

    failed = last(lambda made: made.end_turn(is_error=True, errors=["no model"]))
    assert failed[0] == {"type": "error", "errorText": "no model"}
    lost = last(lambda made: made.status("error", error="Exit code: 3", reason="failed"))
    assert [chunk["type"] for chunk in lost] == ["error", "finish"]
    stopped = last(lambda made: made.status("done", reason="stopped"))
    assert [chunk["type"] for chunk in stopped] == ["abort", "finish"]

    def interrupt(made: MadeSession) -> None:
        made.receipt("x", "interrupt")
        made.end_turn(is_error=True)

    assert [chunk["type"] for chunk in last(interrupt)] == ["abort", "finish"]


def test_a_refused_prompt_is_an_error() -> None:
    made = MadeSession()
    made.begin("other")
    made.receipt("first", "prompt", "rejected", reason="this agent does not support it")
    assert chunks_of(made.events)[1] == {"type": "error", "errorText": "this agent does not support it"}


def test_an_abandoned_text_is_marked_and_begun_again() -> None:
    made = MadeSession()
    made.begin()
    made.piece("text_delta", "Hel", "b1", 0)
    made.piece("text_delta", "", "b1", 3, abandoned=True)
    made.piece("text_delta", "Hello", "b2", 0)
    made.message("text", text="Hello you", blockId="b2")
    made.end_turn()
    chat = Chat().read(chunks_of(made.events))
    texts = [part for part in chat.parts if part["type"] == "text"]
    assert [(part["text"], part["end"]) for part in texts] == [
        ("Hel", {"agentrq": {"abandoned": True}}),
        ("Hello you", None),
    ]


@given(some.text(min_size=1, max_size=40), some.lists(some.tuples(some.integers(0, 40), some.integers(1, 20))))
def test_any_pieces_make_the_whole_text(text: str, pieces: list[tuple[int, int]]) -> None:
    """Pieces may be lost, doubled and overlap."""
    made = MadeSession()
    made.begin()
    for offset, size in pieces:
        if offset < len(text):
            made.piece("text_delta", text[offset : offset + size], "b", offset)
    made.message("text", text=text, blockId="b")
    made.end_turn()
    assert Chat().read(chunks_of(made.events)).texts == [text]


@pytest.mark.parametrize(
    "place",
    [FIRST, RunPlace("a-B_9", Cursor(3, 4), None, Cursor(5, 6), 2), FIRST._replace(live=True)],
)
def test_a_run_id_names_its_place(place: RunPlace) -> None:
    assert RunPlace.parse(str(place)) == place


@pytest.mark.parametrize(
    "text", ["", "chat", "a.1-2", "a.1-2.p.", "a.1-2.a.1", "a.1-2.p.x.dead", "a.99999999999999999999999-1.p.x"]
)
def test_what_is_no_run_id_is_none(text: str) -> None:
    assert RunPlace.parse(text) is None
