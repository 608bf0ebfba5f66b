"""The shapes of four model APIs, as far as agents read them: Anthropic Messages, OpenAI Responses, Gemini, Ollama chat.

Owns how a request's history is read and how blocks are streamed. Not what is said (model_script.py).
"""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from tests.fakes.model_script import Block, Turn

INPUT_TOKENS = 100
OUTPUT_TOKENS = 5
"""The usage of every answer: figures that a test can reckon with."""

_number = itertools.count(1)
Json = dict[str, Any]


def _id(prefix: str) -> str:
    return f"{prefix}{next(_number):024d}"


def _sse(data: Json, event: str | None = None) -> bytes:
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def _line(data: Json) -> bytes:
    return json.dumps(data).encode() + b"\n"


class Api(ABC):
    """One API: reading its requests, writing its answers."""

    content_type = "text/event-stream"

    @abstractmethod
    def history(self, body: Json) -> list[Turn]:
        """The conversation that a request carries."""

    def tools(self, body: Json) -> list[str]:
        """The names of the tools that it offers."""
        return [tool["name"] for tool in body.get("tools") or [] if "name" in tool]

    @abstractmethod
    def stream(self, blocks: list[Block], body: Json) -> Iterator[bytes]:
        """The pieces of a streamed answer."""

    def whole(self, blocks: list[Block], body: Json) -> Json:
        """An answer in one object."""
        raise NotImplementedError

    def error(self, status: int) -> Json:
        """The body of an error."""
        return {"error": {"code": status, "type": "scripted", "message": f"scripted error {status}", "status": "ERROR"}}


def _turns(role: str, content: Any) -> list[Turn]:
    """One message; a user's has a turn for each of its texts, as agents put several prompts into one."""
    texts = [content] if isinstance(content, str) else [str(part["text"]) for part in content or () if "text" in part]
    if role in ("assistant", "model"):
        return [Turn("assistant", "".join(texts))]
    return [Turn("user", text) for text in texts]


class Anthropic(Api):
    """``POST /v1/messages``."""

    def history(self, body: Json) -> list[Turn]:
        return [turn for message in body["messages"] for turn in _turns(message["role"], message["content"])]

    def error(self, status: int) -> Json:
        kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
        message = f"scripted error {status}"
        return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}}

    def _message(self, body: Json, content: list[Json], stop: str | None) -> Json:
        usage = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS if stop else 1}
        usage |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        return {"id": _id("msg_"), "type": "message", "role": "assistant", "model": body.get("model"),
                "content": content, "stop_reason": stop, "stop_sequence": None, "usage": usage}  # fmt: skip

    def _stop(self, blocks: list[Block]) -> str:
        return "tool_use" if any(block.kind == "tool" for block in blocks) else "end_turn"

    def stream(self, blocks: list[Block], body: Json) -> Iterator[bytes]:
        yield self._event("message_start", message=self._message(body, [], None))
        for index, block in enumerate(blocks):
            if block.kind == "tool":
                start: Json = {"type": "tool_use", "id": _id("toolu_"), "name": block.name, "input": {}}
                pieces: Iterator[Json] = iter(
                    [{"type": "input_json_delta", "partial_json": json.dumps(block.arguments)}]
                )
            elif block.kind == "thinking":
                start = {"type": "thinking", "thinking": "", "signature": ""}
                pieces = itertools.chain(
                    ({"type": "thinking_delta", "thinking": piece} for piece in block.pieces),
                    [{"type": "signature_delta", "signature": "c2lnbmVk"}],
                )
            else:
                start = {"type": "text", "text": ""}
                pieces = ({"type": "text_delta", "text": piece} for piece in block.pieces)
            yield self._event("content_block_start", index=index, content_block=start)
            for piece in pieces:
                yield self._event("content_block_delta", index=index, delta=piece)
            yield self._event("content_block_stop", index=index)
        stop = {"stop_reason": self._stop(blocks), "stop_sequence": None}
        yield self._event("message_delta", delta=stop, usage={"output_tokens": OUTPUT_TOKENS})
        yield self._event("message_stop")

    def _event(self, kind: str, **members: Any) -> bytes:
        return _sse({"type": kind, **members}, kind)

    def whole(self, blocks: list[Block], body: Json) -> Json:
        content: list[Json] = []
        for block in blocks:
            if block.kind == "tool":
                content.append({"type": "tool_use", "id": _id("toolu_"), "name": block.name, "input": block.arguments})
            elif block.kind == "text":
                content.append({"type": "text", "text": "".join(block.pieces)})
        return self._message(body, content, self._stop(blocks))


class Responses(Api):
    """``POST /v1/responses`` of OpenAI."""

    def history(self, body: Json) -> list[Turn]:
        if isinstance(body["input"], str):
            return [Turn("user", body["input"])]
        turns = []
        for item in body["input"]:
            kind = item.get("type", "message")
            if kind == "message":
                turns += _turns(item["role"], item["content"])
            elif kind.endswith("_call"):
                turns.append(Turn("assistant", ""))
        return turns

    def stream(self, blocks: list[Block], body: Json) -> Iterator[bytes]:
        response: Json = {"id": _id("resp_"), "object": "response", "created_at": 0, "model": body.get("model"),
                          "status": "in_progress", "output": []}  # fmt: skip
        yield self._event("response.created", response=response)
        for index, block in enumerate(blocks):
            yield from self._item(index, block, response["output"])
        usage = {"input_tokens": INPUT_TOKENS, "input_tokens_details": {"cached_tokens": 0},
                 "output_tokens": OUTPUT_TOKENS, "output_tokens_details": {"reasoning_tokens": 0},
                 "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS}  # fmt: skip
        yield self._event("response.completed", response={**response, "status": "completed", "usage": usage})

    def _item(self, index: int, block: Block, output: list[Json]) -> Iterator[bytes]:
        place: Json = {"output_index": index}
        if block.kind == "tool":
            item: Json = {"type": "function_call", "id": _id("fc_"), "call_id": _id("call_"), "name": block.name}
            if block.namespace:
                item["namespace"] = block.namespace
            arguments = json.dumps(block.arguments)
            yield self._event("response.output_item.added", **place, item={**item, "arguments": ""})
            yield self._event("response.function_call_arguments.delta", **place, item_id=item["id"], delta=arguments)
            yield self._event("response.function_call_arguments.done", **place, item_id=item["id"], arguments=arguments)
            item |= {"arguments": arguments, "status": "completed"}
        elif block.kind == "thinking":
            item = {"type": "reasoning", "id": _id("rs_"), "summary": []}
            yield self._event("response.output_item.added", **place, item=item)
            part = {**place, "item_id": item["id"], "summary_index": 0}
            yield self._event("response.reasoning_summary_part.added", **part, part=_summary(""))
            said = ""
            for piece in block.pieces:
                said += piece
                yield self._event("response.reasoning_summary_text.delta", **part, delta=piece)
            yield self._event("response.reasoning_summary_text.done", **part, text=said)
            yield self._event("response.reasoning_summary_part.done", **part, part=_summary(said))
            item = {**item, "summary": [_summary(said)]}
        else:
            item = {"type": "message", "id": _id("msg_"), "role": "assistant", "status": "in_progress", "content": []}
            yield self._event("response.output_item.added", **place, item=item)
            part = {**place, "item_id": item["id"], "content_index": 0}
            yield self._event("response.content_part.added", **part, part=_output_text(""))
            said = ""
            for piece in block.pieces:
                said += piece
                yield self._event("response.output_text.delta", **part, delta=piece)
            yield self._event("response.output_text.done", **part, text=said)
            yield self._event("response.content_part.done", **part, part=_output_text(said))
            item = {**item, "status": "completed", "content": [_output_text(said)]}
        output.append(item)
        yield self._event("response.output_item.done", **place, item=item)

    def _event(self, kind: str, **members: Any) -> bytes:
        return _sse({"type": kind, **members}, kind)


def _summary(text: str) -> Json:
    return {"type": "summary_text", "text": text}


def _output_text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": []}


class Gemini(Api):
    """``POST /v1beta/models/MODEL:streamGenerateContent?alt=sse`` and ``:generateContent``."""

    def history(self, body: Json) -> list[Turn]:
        return [turn for each in body["contents"] for turn in _turns(each.get("role", "user"), each["parts"])]

    def tools(self, body: Json) -> list[str]:
        return [each["name"] for tool in body.get("tools") or [] for each in tool.get("functionDeclarations", [])]

    def stream(self, blocks: list[Block], body: Json) -> Iterator[bytes]:
        for block in blocks:
            for part in self._parts(block):
                yield _sse({"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}]})
        yield _sse(self._answer([{"text": ""}]))

    def whole(self, blocks: list[Block], body: Json) -> Json:
        return self._answer([part for block in blocks for part in self._parts(block)])

    def _parts(self, block: Block) -> Iterator[Json]:
        if block.kind == "tool":
            yield {"functionCall": {"name": block.name, "args": block.arguments}}
        for piece in block.pieces:
            yield {"text": piece, "thought": True} if block.kind == "thinking" else {"text": piece}

    def _answer(self, parts: list[Json]) -> Json:
        usage = {"promptTokenCount": INPUT_TOKENS, "candidatesTokenCount": OUTPUT_TOKENS,
                 "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS}  # fmt: skip
        content = {"role": "model", "parts": parts}
        return {"candidates": [{"index": 0, "finishReason": "STOP", "content": content}], "usageMetadata": usage}


class Ollama(Api):
    """``POST /api/chat``: JSON lines."""

    content_type = "application/x-ndjson"

    def history(self, body: Json) -> list[Turn]:
        return [
            turn
            for message in body["messages"]
            if message["role"] in ("user", "assistant")
            for turn in _turns(message["role"], message["content"])
        ]

    def tools(self, body: Json) -> list[str]:
        return [tool["function"]["name"] for tool in body.get("tools") or []]

    def stream(self, blocks: list[Block], body: Json) -> Iterator[bytes]:
        for block in blocks:
            if block.kind == "tool":
                function = {"name": block.name, "arguments": block.arguments}
                yield self._part(body, content="", tool_calls=[{"function": function}])
            for piece in block.pieces:
                words = {"content": "", "thinking": piece} if block.kind == "thinking" else {"content": piece}
                yield self._part(body, **words)
        yield _line({**self._head(body), "message": {"role": "assistant", "content": ""}, "done": True,
                     "done_reason": "stop", "total_duration": 5_000_000, "load_duration": 1_000_000,
                     "prompt_eval_count": INPUT_TOKENS, "prompt_eval_duration": 1_000_000,
                     "eval_count": OUTPUT_TOKENS, "eval_duration": 1_000_000})  # fmt: skip

    def _head(self, body: Json) -> Json:
        return {"model": body.get("model"), "created_at": "2026-11-22T00:00:00.000000Z"}

    def _part(self, body: Json, **message: Any) -> bytes:
        return _line({**self._head(body), "message": {"role": "assistant", **message}, "done": False})

    def error(self, status: int) -> Json:
        return {"error": f"scripted error {status}"}
