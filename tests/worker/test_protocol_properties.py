"""What holds of every JSON-RPC protocol for any input: it never raises, never calls a tool twice, asks nothing twice,
and writes only whole lines of JSON; every request of the agent has a response once its session is over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrq_worker.process.framing import LineFramer, LineTooLong
from tests.worker.protocol_checks import talk
from tests.worker.recordings import RPC

SETTINGS = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
RECORDED = {recording: recording.read_bytes().split(b"\n") for recording in RPC}
LINES = [line for lines in RECORDED.values() for line in lines if line]


COMMANDS = st.lists(
    st.sampled_from(
        [
            lambda protocol: protocol.prompt("more"),
            lambda protocol: protocol.steer("more"),
            lambda protocol: protocol.interrupt(),
            lambda protocol: protocol.answer("0", "allow"),
            lambda protocol: protocol.answer("0", "deny"),
            lambda protocol: protocol.set_model("m"),
            lambda protocol: protocol.set_permission_mode("plan"),
            lambda protocol: b"",
            lambda protocol: b"",
        ]
    ),
    max_size=80,
)


@st.composite
def troubled(draw: st.DrawFn) -> tuple[Any, list[bytes]]:
    recording = draw(st.sampled_from(RPC))
    lines = list(RECORDED[recording])
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(lines) - 1))
        what = draw(st.sampled_from(["drop", "double", "move", "cut", "garble", "insert", "end"]))
        if what == "drop" and len(lines) > 1:
            del lines[at]
        elif what == "double":
            lines.insert(at, lines[at])
        elif what == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
        elif what == "cut":
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
        elif what == "garble" and lines[at]:
            place = draw(st.integers(0, len(lines[at]) - 1))
            lines[at] = lines[at][:place] + draw(st.binary(min_size=1, max_size=4)) + lines[at][place + 1 :]
        elif what == "end":
            del lines[at + 1 :]
        else:
            lines.insert(at, draw(st.sampled_from(LINES)))
    return recording, lines


@SETTINGS
@given(troubled(), COMMANDS)
def test_trouble_is_survived(case: tuple[Any, list[bytes]], commands: list[Any]) -> None:
    talk(*case, commands)


@pytest.mark.parametrize("recording", RPC, ids=lambda path: path.stem)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_chunks_cut_anywhere_say_the_same(recording: Any, data: st.DataObject) -> None:
    whole = recording.read_bytes()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    framer = LineFramer(1 << 20)
    lines: list[bytes | LineTooLong] = []
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        lines += framer.feed(whole[begin:end])
    lines += framer.close()
    assert lines == [line for line in whole.splitlines(keepends=True) if not line.isspace()]


@SETTINGS
@given(
    st.sampled_from(RPC),
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.fixed_dictionaries(
                {},
                optional={
                    "id": st.one_of(st.integers(0, 4), st.text(max_size=3), st.none(), st.lists(st.integers())),
                    "method": st.sampled_from(
                        [json.loads(line).get("method", "x") for line in LINES] + ["new", "error", "$/cancel_request"]
                    ),
                    "params": st.one_of(
                        st.none(),
                        st.integers(),
                        st.sampled_from([json.loads(line).get("params", {}) for line in LINES]),
                        st.dictionaries(
                            st.sampled_from(["item", "turn", "update", "threadId"]), st.integers() | st.text()
                        ),
                    ),
                    "result": st.one_of(
                        st.none(), st.integers(), st.sampled_from([{}, {"stopReason": 5}, {"turn": 1}])
                    ),
                    "error": st.one_of(st.none(), st.text(), st.fixed_dictionaries({"code": st.integers()})),
                },
            ).map(lambda found: json.dumps(found).encode()),
        ),
        max_size=12,
    ),
    COMMANDS,
)
def test_any_line_is_survived(recording: Any, lines: list[bytes], commands: list[Any]) -> None:
    talk(recording, lines, commands)
