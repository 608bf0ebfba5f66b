"""The recordings of real agents against the messages that a reader has checked line by line.

When a parser's output changes on purpose, write the golden files anew and review their difference:

    AGENTRQ_UPDATE_GOLDEN=1 pytest tests/worker/test_golden.py && git diff tests/transcripts/golden
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrq.wire.codec import encode
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.registry import make_parser
from tests.worker.parser_checks import as_json
from tests.worker.recordings import ONE_WAY, RECORDINGS, RPC, TRANSCRIPTS, provider_of
from tests.worker.rpc_player import Player

UPDATE = os.environ.get("AGENTRQ_UPDATE_GOLDEN") == "1"


def test_the_recordings_are_there() -> None:
    assert len(RECORDINGS) == 30
    assert {provider_of(recording) for recording in RECORDINGS} == {"acp", "claude", "codex", "gemini", "opencode"}
    assert len(RPC) == 6


def test_every_golden_file_has_its_recording() -> None:
    named = {path.name.removesuffix(".messages.ndjson") for path in (TRANSCRIPTS / "golden").glob("*.messages.ndjson")}
    assert named == {recording.stem for recording in RECORDINGS}


def compare(recording: Path, drafts: Sequence[DraftMessage]) -> None:
    written = b"".join(encode(as_json(draft)) + b"\n" for draft in drafts)
    golden = TRANSCRIPTS / "golden" / f"{recording.stem}.messages.ndjson"
    if UPDATE:
        golden.write_bytes(written)
    assert written == golden.read_bytes()


@pytest.mark.parametrize("recording", ONE_WAY, ids=lambda path: path.stem)
def test_the_recording_gives_its_golden_messages(recording: Path) -> None:
    reader = make_parser(provider_of(recording))
    drafts = [draft for line in recording.read_bytes().split(b"\n") for draft in reader.receive(line)]
    compare(recording, drafts)
    assert reader.close() == [], "a finished recording leaves no tool call open"


@pytest.mark.parametrize("recording", RPC, ids=lambda path: path.stem)
def test_the_conversation_gives_its_golden_messages(recording: Path) -> None:
    player = Player(recording).play()
    assert player.ended == []
    compare(recording, player.drafts)
    assert player.drafts[-1].type == "cost", "nothing was left open"


@pytest.mark.parametrize("recording", RPC, ids=lambda path: path.stem)
def test_the_protocol_writes_what_the_recorded_client_wrote(recording: Path) -> None:
    player = Player(recording).play()
    for ours, theirs in zip(player.written, player.client, strict=True):
        assert ("jsonrpc" in ours) == (provider_of(recording) == "acp")  # codex's own clients leave it out
        assert (ours.get("id"), ours.get("method")) == (theirs.get("id"), theirs.get("method"))
        assert ours.get("result") == theirs.get("result")
        assert set(shape(theirs.get("params"))) <= set(shape(ours.get("params")))


def shape(value: Any, way: str = "") -> list[str]:
    """The way to every member and what kind it is."""
    if isinstance(value, dict):
        return [path for name, inner in value.items() for path in shape(inner, f"{way}.{name}")]
    if isinstance(value, list):
        return [path for inner in value for path in shape(inner, f"{way}[]")]
    return [f"{way}: {type(value).__name__}"]


@pytest.mark.parametrize("recording", RPC, ids=lambda path: path.stem)
def test_a_replay_without_the_client_says_the_same(recording: Path) -> None:
    reader = make_parser(provider_of(recording))
    replayed = [draft for line in recording.read_bytes().split(b"\n") for draft in reader.receive(line)]

    def comparable(drafts: Sequence[DraftMessage]) -> list[dict[str, Any]]:
        # Only the client knows the directory of an ACP session, and that it has answered.
        found = [as_json(draft) for draft in drafts if draft.type != "approval_resolved"]
        for message in found:
            if message["type"] == "init":
                message["content"].pop("cwd", None)
        return sorted(found, key=lambda message: message["type"] == "init")

    assert comparable(replayed) == comparable(Player(recording).play().drafts)
    assert reader.close() == []
