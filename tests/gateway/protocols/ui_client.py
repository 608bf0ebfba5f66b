"""What Vercel AI SDK's client does with chunks, in Python: what it would throw at, and what becomes of the parts.

Rules of the npm package `ai`, 6 and 7: `process-ui-message-stream.ts`, `ui-message-chunks.ts`, and the stock
`lastAssistantMessageIsCompleteWithApprovalResponses`. The package itself is run by test_front_end_clients.py.
"""

from __future__ import annotations

from typing import Any

Chunk = dict[str, Any]
FINISH_REASONS = {"stop", "length", "content-filter", "tool-calls", "error", "other"}
DONE = ("output-available", "output-error", "output-denied", "approval-responded")


class Chat:
    """An assistant message as the client builds it, over one run or several."""

    def __init__(self) -> None:
        self.parts: list[Chunk] = []
        self.errors: list[str] = []
        self.finished: str | None = None
        self.id: str | None = None
        self._open: dict[str, Chunk] = {}

    def read(self, chunks: list[Chunk]) -> Chat:
        """One response, from its start to its finish."""
        assert chunks[0]["type"] == "start"
        assert [chunk["type"] for chunk in chunks].count("finish") == 1
        assert chunks[-1]["type"] == "finish"
        self._open = {}
        for chunk in chunks:
            self._see(chunk)
        return self

    def _see(self, chunk: Chunk) -> None:
        kind = chunk["type"]
        if kind == "start":
            assert self.id in (None, chunk["messageId"]), "a continued message keeps its id"
            self.id = chunk["messageId"]
        elif kind in ("text-start", "reasoning-start"):
            assert chunk["id"] not in self._open, "opened twice"
            part = {"type": kind.removesuffix("-start"), "text": "", **chunk.get("providerMetadata", {})}
            self._open[chunk["id"]] = part
            self.parts.append(part)
        elif kind in ("text-delta", "reasoning-delta"):
            self._open[chunk["id"]]["text"] += chunk["delta"]
        elif kind in ("text-end", "reasoning-end"):
            self._open.pop(chunk["id"])["end"] = chunk.get("providerMetadata")
        elif kind == "start-step":
            self.parts.append({"type": "step-start"})
        elif kind == "finish-step":
            self._open = {}
        elif kind == "tool-input-available":
            self.parts.append(
                {
                    "type": "dynamic-tool",
                    "call": chunk["toolCallId"],
                    "name": chunk["toolName"],
                    "state": "input-available",
                }
            )
        elif kind == "tool-approval-request":
            self.call(chunk["toolCallId"]).update(state="approval-requested", approval=chunk["approvalId"])
        elif kind.startswith("tool-output-"):
            self.call(chunk["toolCallId"]).update(state=kind.removeprefix("tool-"), output=chunk.get("output"))
        elif kind == "error":
            self.errors.append(chunk["errorText"])
        elif kind == "finish":
            assert chunk["finishReason"] in FINISH_REASONS
            self.finished = chunk["finishReason"]
            assert not self._open
        else:
            assert kind in ("abort", "message-metadata") or kind.startswith("data-"), kind

    def call(self, call_id: str) -> Chunk:
        """The part of a call: the client takes the latest."""
        return [part for part in self.parts if part.get("call") == call_id][-1]

    @property
    def calls(self) -> dict[str, str]:
        """Call → the state of its part."""
        return {part["call"]: part["state"] for part in self.parts if "call" in part}

    @property
    def texts(self) -> list[str]:
        return [part["text"] for part in self.parts if part["type"] == "text"]

    def answer_all(self) -> None:
        """As a person who answers every request."""
        for part in self.parts:
            if part.get("state") == "approval-requested":
                part["state"] = "approval-responded"

    def sends_by_itself(self) -> bool:
        """Whether the stock helper posts the answers now."""
        starts = [place for place, part in enumerate(self.parts) if part["type"] == "step-start"]
        last = [part for part in self.parts[starts[-1] if starts else 0 :] if "call" in part]
        return any(part["state"] == "approval-responded" for part in last) and all(
            part["state"] in DONE for part in last
        )
