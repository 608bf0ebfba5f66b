"""A conversation with a JSON-RPC protocol, and checks of all that it writes and publishes."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import (
    Background,
    CommandRefused,
    Ended,
    Late,
    Log,
    Ready,
    Reply,
    TurnSeemsOver,
    TurnStarted,
    Write,
)
from tests.worker.parser_checks import check, contents
from tests.worker.rpc_player import data_of, protocol_of


def talk(recording: Any, lines: list[bytes], commands: list[Any]) -> None:
    """Feed the lines, give the commands in between, and check all that is written and said."""
    protocol = protocol_of(recording)
    written: list[bytes] = [protocol.open(), protocol.prompt("go")]
    drafts: list[DraftMessage] = []
    for at, line in enumerate(lines):
        for said in protocol.receive(line):
            if isinstance(said, DraftMessage):
                drafts.append(said)
            elif isinstance(said, Write):
                written.append(said.data)
            else:
                assert isinstance(said, Background | Ended | Late | Log | Ready | Reply | TurnSeemsOver | TurnStarted)
        for command in commands[at : at + 1]:
            with contextlib.suppress(CommandRefused):
                written.append(data_of(command(protocol)))
    written.append(protocol.stop())
    written += [protocol.withdraw(found["requestId"]) for found in contents(drafts, "approval_request", "question")]
    drafts += protocol.close("Interrupted")
    for data in written:
        assert not data or data.endswith(b"\n")
        assert all(isinstance(json.loads(line), dict) for line in data.splitlines())
    for draft in drafts:
        check(draft)
    calls = [found["toolUseId"] for found in contents(drafts, "tool_call")]
    results = [found["toolUseId"] for found in contents(drafts, "tool_result")]
    assert len(calls) == len(set(calls))
    assert len(results) == len(set(results))
    assert set(calls) <= set(results)
    sent = [json.loads(line) for data in written for line in data.splitlines()]
    ids = [line["id"] for line in sent if "method" in line and "id" in line]
    assert len(ids) == len(set(ids))
    responded = [json.dumps(line["id"]) for line in sent if "method" not in line]
    asked = [json.dumps(request["id"]) for request in map(request_of, lines) if request is not None]
    if b"serverRequest/resolved" not in b"".join(lines):  # codex resolves what was answered elsewhere
        assert set(asked) <= set(responded)


def request_of(line: bytes) -> dict[str, Any] | None:
    """The agent's request that a line is; None for anything else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_request = isinstance(found, dict) and isinstance(found.get("method"), str) and found.get("id") is not None
    return found if is_request else None
