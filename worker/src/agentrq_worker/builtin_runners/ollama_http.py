"""Ollama's HTTP API, as far as the runner needs it: the list of models and the chat stream. Standard library only.

Owns the address, the connection and the error texts. Does not own a conversation (ollama.py).
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

PORT = 11434
CONNECT_S = 10.0
_ALL = "0.0.0.0"  # noqa: S104 - what a server may be told, not bound to here


class OllamaError(Exception):
    """A request failed; the text is for the person who started the session."""


class Server:
    """One server, by what ``OLLAMA_HOST`` may hold: ``HOST``, ``HOST:PORT`` or a URL; empty for this machine."""

    def __init__(self, address: str) -> None:
        """Raises `OllamaError` for an address that is not valid."""
        address = address.strip() or "127.0.0.1"
        try:
            url = urlsplit(address if "://" in address else f"http://{address}")
            self._port = url.port or {"https": 443}.get(url.scheme, 80 if "://" in address else PORT)
        except ValueError as error:
            raise OllamaError(f"OLLAMA_HOST is not a valid address: {error}") from None
        self._https = url.scheme == "https"
        # A server that listens on all addresses is reached on this machine's own.
        self._host = "127.0.0.1" if url.hostname in (_ALL, None) else str(url.hostname)
        self._path = url.path.rstrip("/")
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"{url.scheme}://{shown}:{self._port}{self._path}"

    def models(self) -> list[str]:
        """The names of the models that the server has. Raises `OllamaError`."""
        with self._ask("GET", "/api/tags") as answer:
            try:
                found = json.loads(answer.read())["models"]
                return sorted(str(model["name"]) for model in found)
            except (ValueError, KeyError, TypeError, http.client.HTTPException, OSError):
                raise OllamaError(f"{self.url} is not an Ollama server: its list of models cannot be read") from None

    def chat(self, body: dict[str, Any]) -> Iterator[bytes]:
        """The lines of one answer, without their newlines. Raises `OllamaError`, also between lines."""
        with self._ask("POST", "/api/chat", body) as answer:
            try:
                while line := answer.readline():
                    if line.strip():
                        yield line.strip()
            except (OSError, http.client.HTTPException) as error:
                raise OllamaError(f"The connection to Ollama at {self.url} was lost: {_why(error)}") from None

    @contextlib.contextmanager
    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_S)
        try:
            try:
                connection.connect()
                # A model may take minutes to load and to think: only the session's own limits end that.
                connection.sock.settimeout(None)
                data = None if body is None else json.dumps(body).encode()
                connection.request(method, self._path + path, data, {"Content-Type": "application/json"})
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise OllamaError(
                    f"Ollama is not reachable at {self.url}: {_why(error)} (is `ollama serve` running? "
                    "Its address is OLLAMA_HOST in the provider's env)"
                ) from None
            if answer.status != 200:
                raise OllamaError(self._refusal(answer, body))
            yield answer
        finally:
            connection.close()

    def _refusal(self, answer: http.client.HTTPResponse, body: dict[str, Any] | None) -> str:
        said = ""
        with contextlib.suppress(ValueError, OSError, http.client.HTTPException):
            found = json.loads(answer.read(65536))
            said = str(found.get("error", "")) if isinstance(found, dict) else ""
        text = f"Ollama answered {answer.status}: {said or answer.reason}"
        if answer.status == 404 and body is not None:
            with contextlib.suppress(OllamaError):
                text += f"; this server has {', '.join(self.models()) or 'no models'}"
        return text


def _why(error: Exception) -> str:
    reason = getattr(error, "strerror", None)
    return reason if isinstance(reason, str) and reason else str(error) or type(error).__name__
