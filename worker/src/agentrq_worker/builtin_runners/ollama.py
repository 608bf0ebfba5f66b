"""The built-in Ollama runner: ``python -m agentrq_worker.builtin_runners.ollama``.

Each prompt is one `POST /api/chat` with the whole conversation, streamed; the chunks go out as they come, in
``agent_event`` (parser ``ollama``). From the first query: ``model`` (needed), ``systemPrompt``, ``resume``. From the
environment: ``OLLAMA_HOST`` (default 127.0.0.1:11434), ``AGENTRQ_OLLAMA_OPTIONS`` (JSON: temperature, num_ctx, …) and
``AGENTRQ_OLLAMA_THINK`` (true, false, low, medium, high).

Owns the conversation and its requests. Does not own the protocol's pipes, nor the meaning of chunks.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from agentrq_worker.builtin_runners.ollama_http import OllamaError, Server
from agentrq_worker.builtin_runners.protocol import Query, Runner, RunnerError, displayable, run
from agentrq_worker.builtin_runners.state_files import state_file, write_whole

_THINK = {"true": True, "false": False}


class Ollama:
    """One session: the first query brings the model; the conversation is kept over turns and, on disk, processes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._session = ""
        self._model = ""
        self._messages: list[dict[str, str]] = []
        self._answered = False
        self._extra = _extra()

    def turn(self, runner: Runner, query: Query) -> None:
        """Answers one prompt. Raises `RunnerError` when there is no server or no model."""
        if not self._model:
            self._begin(runner, query)
        else:
            runner.send("agent_started")
        self._messages.append({"role": "user", "content": query.prompt})
        body = {"model": self._model, "messages": self._messages, "stream": True, **self._extra}
        try:
            self._messages.append({"role": "assistant", "content": self._stream(runner, body)})
        except OllamaError as error:
            self._messages.pop()
            if not self._answered:
                raise RunnerError(displayable(str(error))) from None
            _event(runner, {"error": displayable(str(error))})
            return
        self._answered = True
        self._save(runner)

    def _begin(self, runner: Runner, query: Query) -> None:
        model = query.text("model")
        if model is None:
            try:
                names = ", ".join(self._server.models()) or "none: pull one first"
            except OllamaError as error:
                raise RunnerError(displayable(str(error))) from None
            raise RunnerError(f"No model given: start with the option model; this server has {names}")
        self._model = model
        if system := query.text("systemPrompt"):
            self._messages.append({"role": "system", "content": system})
        resume = query.text("resume")
        self._session = resume or query.session_id
        runner.send("agent_started", parser="ollama")
        init = {"session_id": self._session, "model": model, "cwd": os.path.abspath(query.text("cwd") or ".")}
        _event(runner, {"type": "init", **init})
        if resume is not None and not self._load():
            message = f"The conversation {resume} is not on this machine: a new one begins"
            _event(runner, {"type": "notice", "code": "not_resumed", "message": message})

    def _stream(self, runner: Runner, body: dict[str, Any]) -> str:
        """Asks the model and passes on its lines; returns the whole text. Raises `OllamaError`."""
        text: list[str] = []
        for line in self._server.chat(body):
            try:
                chunk = msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                runner.write(line + b"\n")  # the worker says what is wrong with it
                continue
            if "error" in chunk:
                raise OllamaError(chunk["error"] if isinstance(chunk["error"], str) else "unknown error")
            runner.write(b'{"type":"agent_event","event":%b}\n' % line)
            message = chunk.get("message")
            if isinstance(message, dict) and isinstance(message.get("content"), str):
                text.append(message["content"])
            if chunk.get("done") is True:
                return "".join(text)
        raise OllamaError("Ollama ended in the middle of its answer")

    def _load(self) -> bool:
        file = state_file("ollama", self._session, ".json")
        try:
            kept = msgspec.json.decode(file.read_bytes() if file else b"", type=list[dict[str, str]])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return False
        self._messages = self._messages + [message for message in kept if message.get("role") != "system"]
        self._answered = True
        return True

    def _save(self, runner: Runner) -> None:
        file = state_file("ollama", self._session, ".json")
        try:
            if file is not None:
                write_whole(file, msgspec.json.encode(self._messages))
        except OSError as error:
            runner.send("agent_log", message=f"The conversation could not be kept: {error}")


def _event(runner: Runner, event: dict[str, Any]) -> None:
    runner.send("agent_event", event=event)


def _extra() -> dict[str, Any]:
    """The request's members that the environment sets. Raises `RunnerError` naming a bad one."""
    extra: dict[str, Any] = {}
    if given := os.environ.get("AGENTRQ_OLLAMA_OPTIONS"):
        try:
            extra["options"] = msgspec.json.decode(given, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise RunnerError(f"AGENTRQ_OLLAMA_OPTIONS is not a JSON object: {error}") from None
    if given := os.environ.get("AGENTRQ_OLLAMA_THINK"):
        extra["think"] = _THINK.get(given, given)
    return extra


class _Session:
    """Made at the first query, so that a bad environment is reported as any error is."""

    def __init__(self) -> None:
        self._ollama: Ollama | None = None

    def turn(self, runner: Runner, query: Query) -> None:
        if self._ollama is None:
            self._ollama = Ollama(Server(os.environ.get("OLLAMA_HOST", "")))
        self._ollama.turn(runner, query)


if __name__ == "__main__":
    run(_Session().turn)
