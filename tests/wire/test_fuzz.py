"""Whatever bytes come from Redis: decoded, or refused by the errors that callers expect; never anything else."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from agentrq.errors import InvalidOption
from agentrq.wire.commands import make_options, parse_option
from agentrq.wire.state import read_inner, read_state
from tests.fuzz import targets

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = ["cursor", "sessionId", "id", "type", "timestamp", "content", "status", "commandId", "command", "outcome",
           "parentId", "reason", "text", "mode", "requestId", "answer", "epoch"]  # fmt: skip
near_misses = st.dictionaries(
    st.sampled_from(MEMBERS),
    json_values | st.sampled_from(["1-1", "text", "cost", "prompt", "answer", "stop", "done", "queued", 1, "x" * 201]),
)
payloads = st.binary(max_size=80) | near_misses.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))


@given(st.integers(0, 3), payloads)
def test_stream_entries_of_any_bytes_are_read(field: int, value: bytes) -> None:
    targets.stream_entry(bytes([field]) + value)


@given(payloads)
def test_payloads_of_any_bytes_are_read(payload: bytes) -> None:
    targets.channels(payload)
    targets.inbox(payload)


@given(st.dictionaries(
    st.sampled_from([b"status", b"epoch", b"cursor", b"provider", b"metadata", b"pid", b"costUsd", b"token", b"options",
                     b"recoveries", b"prompted", b"turn", b"createdAt", b"\xff"]),
    st.sampled_from([b"1", b"idle", b"1-1", b"demo", b"{}", b"NaN", b"-1", b"1e999"]) | st.binary(max_size=12),
))  # fmt: skip
def test_states_of_any_bytes_are_read(raw: dict[bytes, bytes]) -> None:
    state = read_state("s", raw)
    assert state is None or state.session_id == "s"
    read_inner(raw)


@given(
    st.dictionaries(st.text(max_size=6) | st.sampled_from(["cwd", "maxTurns", "approvals", "extra_env"]), json_values)
)
def test_options_of_any_value_are_read_or_refused(given: dict[str, object]) -> None:
    try:
        make_options(given)
    except InvalidOption:
        pass


@given(st.sampled_from(["cwd", "max_turns", "metadata", "approvals", "timeout_s", "x"]), st.text(max_size=30))
def test_option_texts_are_read_or_refused(name: str, text: str) -> None:
    try:
        make_options({name: parse_option(name, text)})
    except InvalidOption:
        pass
