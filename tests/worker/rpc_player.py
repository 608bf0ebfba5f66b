"""Plays a recorded JSON-RPC conversation through its protocol: the recorded agent answers what the protocol writes.

The recording's own client (``NAME.in.ndjson``) tells what was prompted, interrupted and answered, and when: a line of
the agent that answers a request is only played once the protocol has made that request.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentrq.wire.commands import Options, make_options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import AgentProtocol, Ended, Sent, Write
from agentrq_worker.providers.registry import make_protocol

PROMPTS = ("turn/start", "session/prompt")
HANDSHAKE = ("initialize", "initialized", "thread/start", "session/new")


def protocol_of(recording: Path, **options: Any) -> AgentProtocol:
    """The protocol that spoke, or could have spoken, with the recorded agent; it asks for permissions."""
    parser = "codex" if recording.name.startswith("codexapp") else "acp"
    chosen: Options = make_options({"permission_mode": "default", "cwd": "/srv/work"} | options)
    return make_protocol("jsonrpc", "s1", chosen, parser, SessionTotal(), 1)


class Player:
    """One recording, played to its end by `play`."""

    def __init__(self, recording: Path) -> None:
        self.protocol = protocol_of(recording)
        self.drafts: list[DraftMessage] = []
        self.ended: list[Ended] = []
        self.written: list[dict[str, Any]] = []
        self._agent = recording.read_bytes().split(b"\n")
        asked = recording.with_name(f"{recording.stem}.in.ndjson")
        self.client = [json.loads(line) for line in asked.read_text().splitlines()]
        self._commands = [line for line in self.client if line.get("method") not in HANDSHAKE]

    def play(self) -> Player:
        self._write(self.protocol.open())
        self._command()  # the session hands over its first prompt at once
        for line in self._agent:
            found = json.loads(line) if line else {}
            while "method" not in found and found.get("id", 0) not in self._request_ids():
                self._command()
            before = len(self.drafts)
            self._receive(line)
            turn_over = any(draft.type == "cost" for draft in self.drafts[before:])
            prompted = bool(self._commands) and self._commands[0].get("method") in PROMPTS
            asks = "id" in found and "method" in found  # its client answers
            if (turn_over and prompted) or asks:
                self._command()
        while self._commands:
            self._command()
        self.drafts += self.protocol.close("Interrupted: the recording ended")
        return self

    def _request_ids(self) -> set[Any]:
        return {0} | {line["id"] for line in self.written if "method" in line and "id" in line}

    def _command(self) -> None:
        command = self._commands.pop(0)
        method = command.get("method")
        if method in PROMPTS:
            params = command["params"]
            (said,) = params.get("input") or params["prompt"]
            self._write(self.protocol.prompt(said["text"]))
        elif method == "turn/interrupt":
            self._write(self.protocol.interrupt().data)
        else:
            self._write(self.protocol.answer(str(command["id"]), answer_of(command["result"])))

    def _receive(self, line: bytes) -> None:
        for said in self.protocol.receive(line):
            if isinstance(said, DraftMessage):
                self.drafts.append(said)
            elif isinstance(said, Write):
                self._write(said.data)
            elif isinstance(said, Ended):
                self.ended.append(said)

    def _write(self, data: bytes) -> None:
        self.written += [json.loads(line) for line in data.splitlines()]


def answer_of(result: dict[str, Any]) -> Any:
    """The answer of a person that gave this result."""
    if "decision" in result:
        return "allow" if result["decision"] == "accept" else "deny"
    option = result["outcome"]["optionId"]
    return {"decision": "deny" if option == "reject" else "allow", "suggestion": option}


def data_of(sent: Sent | bytes) -> bytes:
    """What a command writes, whether it waits for a confirmation or not."""
    return sent.data if isinstance(sent, Sent) else sent
