"""AG-UI's events of a session, by the rules of the client, cut at any place and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agentrq import Event
from agentrq.wire.ids import ORIGIN, Cursor
from agentrq_gateway.protocols.agui_stream import AgUiStream, Frame, Place, to_messages
from agentrq_gateway.protocols.run import Run, RunPlace
from tests.gateway.protocols.agui_client import Thread
from tests.gateway.protocols.made_sessions import GOLDEN, SID, MadeSession, from_recording

FIRST = RunPlace(SID, ORIGIN, "first")


def frames_of(events: list[Event], run: RunPlace = FIRST) -> list[Frame]:
    stream = AgUiStream(Run(run), "thread", "run")
    return [*stream.begin(), *(frame for event in events for frame in stream.see(event))]


def resumed(events: list[Event], frame_id: str, seen: int) -> list[Frame]:
    """The stream that a reader gets who names an id; of the events, ``seen`` were before, whose pieces are gone."""
    place = Place.parse(frame_id)
    stream = AgUiStream(Run(RunPlace(SID, ORIGIN, None, place.cursor)), "thread", "again", place)
    frames = stream.begin()
    for number, event in enumerate(events):
        if event.cursor is not None or number >= seen:
            frames += stream.see(event)
    return frames


def with_cuts(events: list[Event]) -> list[tuple[Frame, int]]:
    """Every frame of a run, and how many events had been seen then."""
    stream = AgUiStream(Run(FIRST), "thread", "run")
    found = [(frame, 0) for frame in stream.begin()]
    for seen, event in enumerate(events, 1):
        found += [(frame, seen) for frame in stream.see(event)]
    return found


def check_cuts(events: list[Event]) -> None:
    cuts = with_cuts(events)
    whole = Thread().read(frame.event for frame, _ in cuts)
    for place in range(1, len(cuts)):
        had = Thread().read((frame.event for frame, _ in cuts[:place]), whole=False)
        frame, seen = cuts[place - 1]
        if frame.event["type"] in ("RUN_STARTED", "RUN_FINISHED", "RUN_ERROR"):
            continue  # before the run began: the client posts again; after it: nothing is left
        again = had.read(each.event for each in resumed(events, frame.id, seen))
        assert again.messages == whole.messages, frame
        assert (again.outcome, again.error) == (whole.outcome, whole.error)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name.split(".")[0])
def test_every_recording_cut_anywhere_makes_the_same_messages(path: Path) -> None:
    for events in from_recording(path):
        check_cuts(events[:400])


@given(
    some.text(min_size=1, max_size=30),
    some.lists(some.tuples(some.sampled_from("ab"), some.integers(0, 30), some.integers(1, 9)), max_size=12),
)
def test_texts_in_any_pieces_cut_anywhere_make_the_same_messages(text: str, pieces: list[tuple[str, int, int]]) -> None:
    made = MadeSession()
    made.begin()
    for block, offset, size in pieces:
        if offset < len(text):
            made.piece("text_delta" if block == "a" else "thinking_delta", text[offset : offset + size], block, offset)
    made.message("text", text=text, blockId="a")
    made.message("tool_call", toolUseId="call", name="Read", input={"path": text})
    made.message("tool_result", toolUseId="call", output=[{"type": "text", "text": text}], isError=False)
    made.message("thinking", text=text, blockId="b")
    made.end_turn()
    check_cuts(made.events)


def test_a_request_is_an_interrupt_and_its_answer_goes_on() -> None:
    made = MadeSession()
    made.begin()
    made.message("tool_call", toolUseId="a", name="Bash", input={})
    made.message("approval_request", requestId="r", name="Bash", input={"command": "ls"}, toolUseId="a")
    made.status("waiting")
    after = Cursor.parse(str(made.events[-1].cursor))
    thread = Thread().read(frame.event for frame in frames_of(made.events))
    assert thread.outcome is not None
    (interrupt,) = thread.outcome["interrupts"]
    assert (interrupt["id"], interrupt["toolCallId"], interrupt["reason"]) == ("r", "a", "tool_call")
    made.message("approval_resolved", requestId="r", decision="allow", by="client")
    made.status("running")
    made.message("tool_result", toolUseId="a", output="x", isError=False)
    made.end_turn()
    thread.read(frame.event for frame in frames_of(made.events, RunPlace(SID, ORIGIN, None, after, 1)))
    assert thread.outcome == {"type": "success"}
    assert [message["role"] for message in thread.messages.values()] == ["assistant", "tool"]


def test_an_interrupted_turn_is_cancelled_and_a_lost_one_an_error() -> None:
    made = MadeSession()
    made.begin()
    made.receipt("x", "interrupt")
    made.end_turn(is_error=True)
    assert Thread().read(frame.event for frame in frames_of(made.events)).outcome == {"type": "cancelled"}
    made = MadeSession()
    made.begin()
    made.piece("text_delta", "half", "b", 0)
    made.status("error", error="Exit code: 3", reason="failed")
    assert Thread().read(frame.event for frame in frames_of(made.events)).error == "Exit code: 3"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name.split(".")[0])
def test_a_snapshot_has_the_messages_that_the_stream_makes(path: Path) -> None:
    for events in from_recording(path):
        if any(getattr(event, "status", "") == "waiting" for event in events):
            continue  # its run ends before its turn
        streamed = Thread().read((frame.event for frame in frames_of(events)), whole=False).messages
        kept = [event for event in events if event.cursor is not None]
        snapshot = {"type": "MESSAGES_SNAPSHOT", "messages": to_messages(kept)}
        taken = Thread().read([{"type": "RUN_STARTED"}, snapshot], whole=False).messages
        del taken["first"]  # the prompt, which its client has
        abandoned = {name for name in streamed if name not in taken}
        assert {name: streamed[name] for name in streamed if name not in abandoned} == taken


@given(some.integers(0, 2**40), some.dictionaries(some.text(min_size=1), some.integers(0, 10**9), max_size=5))
def test_a_place_is_read_as_it_was_written(seq: int, sent: dict[str, int]) -> None:
    place = Place(Cursor(1, seq), sent)
    written = str(place)
    assert written.isascii()
    assert written.isprintable()
    assert Place.parse(written) == place


@pytest.mark.parametrize("text", ["", "x", "1-2,", "1-2,a", "1-2,a:", "1-2,a:-1", "1-2,:3", "1-2" + ",a:1" * 65])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Place.parse(text)
