"""The recordings of real agents against the messages that a reader has checked line by line.

When an adapter's output changes on purpose, write the golden files anew and review their difference:

    AGENTRQ_UPDATE_GOLDEN=1 pytest tests/worker/test_golden.py && git diff tests/transcripts/golden
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentrq.wire.codec import encode
from agentrq_worker.providers import adapter
from tests.worker.adapter_checks import as_json

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
RECORDINGS = sorted(
    path
    for path in TRANSCRIPTS.glob("*.ndjson")
    if path.name.startswith(("claude-", "claude197-", "codex-")) and not path.name.endswith(".in.ndjson")
)
UPDATE = os.environ.get("AGENTRQ_UPDATE_GOLDEN") == "1"


def provider_of(recording: Path) -> str:
    return "claude" if recording.name.startswith("claude") else "codex"


def test_the_recordings_are_there() -> None:
    assert len(RECORDINGS) == 20
    assert {provider_of(recording) for recording in RECORDINGS} == {"claude", "codex"}


def test_every_golden_file_has_its_recording() -> None:
    named = {path.name.removesuffix(".messages.ndjson") for path in (TRANSCRIPTS / "golden").glob("*.messages.ndjson")}
    assert named == {recording.stem for recording in RECORDINGS}


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_the_recording_gives_its_golden_messages(recording: Path) -> None:
    reader = adapter(provider_of(recording))
    drafts = [draft for line in recording.read_bytes().split(b"\n") for draft in reader.receive(line)]
    written = b"".join(encode(as_json(draft)) + b"\n" for draft in drafts)
    golden = TRANSCRIPTS / "golden" / f"{recording.stem}.messages.ndjson"
    if UPDATE:
        golden.write_bytes(written)
    assert written == golden.read_bytes()
    assert reader.close() == [], "a finished recording leaves no tool call open"
