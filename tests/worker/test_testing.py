"""The conformance test that others run: it passes what is right, and names each fault."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec import Raw

from agentrq.wire.commands import Options
from agentrq.wire.messages import Cost, SessionTotal, Text, ToolCall, ToolResult
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.registry import make_parser, make_protocol
from agentrq_worker.testing import conform, main
from tests.worker.made_lines import MADE
from tests.worker.recordings import ONE_WAY, RECORDINGS, RPC, TRANSCRIPTS, provider_of

CALL = DraftMessage("tool_call", ToolCall("t", "n", {}))
RESULT = DraftMessage("tool_result", ToolResult("t", "", False))
COST = DraftMessage("cost", Cost(0.0, 0, 0, 0, 1, False))


class Wrong:
    """A reader that says the same of every line."""

    def __init__(self, *says: DraftMessage, error: Exception | None = None) -> None:
        self.says = says
        self.error = error

    def receive(self, line: bytes) -> list[DraftMessage]:
        if self.error is not None:
            raise self.error
        return list(self.says)

    def close(self, reason: str) -> list[DraftMessage]:
        return []


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_our_own_parsers_conform(recording: Path) -> None:
    messages = conform(lambda: make_parser(provider_of(recording)), recording, trouble=20)
    golden = (TRANSCRIPTS / "golden" / f"{recording.stem}.messages.ndjson").read_bytes().splitlines()
    if recording in ONE_WAY:
        assert messages == [json.loads(line) for line in golden]


class Prompting:
    """A protocol that has prompted as often as the recorded client: it awaits every response of the recording."""

    def __init__(self, recording: Path) -> None:
        self._protocol = make_protocol("jsonrpc", "s", Options(), provider_of(recording), SessionTotal(), 1)
        self._protocol.open()

    def receive(self, line: bytes) -> Sequence[Any]:
        said = self._protocol.receive(line)
        if self._protocol.is_ready:
            self._protocol.prompt("go")
        return said

    def close(self, reason: str) -> Sequence[DraftMessage]:
        return self._protocol.close(reason)


@pytest.mark.parametrize("recording", RPC, ids=lambda path: path.stem)
def test_our_own_protocols_conform(recording: Path) -> None:
    assert conform(lambda: Prompting(recording), recording, trouble=20)


@pytest.mark.parametrize("name", sorted(MADE))
def test_made_lines_conform(name: str) -> None:
    assert conform(lambda: make_parser(name), b"\n".join(MADE[name]), trouble=50)[0]["type"] == "init"


@pytest.mark.parametrize(
    ("reader", "lines", "fault"),
    [
        (Wrong(COST, error=KeyError("x")), b"{}", r"receive raised KeyError\('x'\) on b'{}'"),
        (Wrong(CALL, RESULT, COST), b"{}\n{}", r"more than one tool_call of \['t'\]"),
        (Wrong(CALL, COST), b"{}", r"close left calls without a result: {'t'}"),
        (Wrong(DraftMessage("text", Text("x"))), b"{}", "no cost message"),
        (Wrong(DraftMessage("text", Text(5))), b"{}", "the content of a text is not its own"),  # type: ignore[arg-type]
        (Wrong(DraftMessage("novel", Text("x"))), b"{}", "novel is no type of message"),
        (Wrong(DraftMessage("unknown", Raw(b"[1]"))), b"{}", "the content of a unknown is no object"),
        (Wrong(), b"\n", "the transcript is empty"),
    ],
)
def test_faults_are_named(reader: Any, lines: bytes, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        conform(lambda: reader, lines)


def test_the_command(tmp_path: Path) -> None:
    recording = TRANSCRIPTS / "gemini-tool.ndjson"
    done = CliRunner().invoke(main, ["--parser", "gemini", str(recording)])
    assert done.exit_code == 0, done.output
    golden = (TRANSCRIPTS / "golden" / "gemini-tool.messages.ndjson").read_text().splitlines()
    assert [json.loads(line) for line in done.output.splitlines()] == [json.loads(line) for line in golden]
    said = tmp_path / "runner.ndjson"
    wrapped = [f'{{"type":"agent_event","event":{line}}}' for line in recording.read_text().splitlines()]
    said.write_text("\n".join(['{"type":"ready"}', '{"type":"agent_started","adapter":"gemini"}', *wrapped]))
    assert CliRunner().invoke(main, ["--runner", str(said)]).output == done.output
    said.write_text("{}")
    failed = CliRunner().invoke(main, [str(said)])
    assert failed.exit_code == 1
    assert "no cost message" in failed.output
    assert CliRunner().invoke(main, ["--adapter", "none", str(said)]).exit_code == 2
