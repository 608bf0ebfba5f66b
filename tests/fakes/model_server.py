"""A scripted model behind four APIs, for tests: what it says is chosen by words in the prompt (model_script.py).

Owns HTTP and the requests that came; shapes are model_apis.py's. ``python -m tests.fakes.model_server [PORT]`` serves
until it is ended. Listens on 127.0.0.1 alone.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from tests.fakes.model_apis import Anthropic, Api, Gemini, Ollama, Responses
from tests.fakes.model_script import ApiError, Script

WAIT_S = 30.0


class Request(NamedTuple):
    """What a client asked: path and JSON body."""

    path: str
    body: dict[str, Any]


class ModelServer:
    """``with ModelServer() as model:`` serves at ``model.url`` (no path)."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        """The requests that the script answered, oldest first."""
        self.over = threading.Event()
        self._news = threading.Condition()
        self._released: set[str] = set()
        self._sockets: set[socket.socket] = set()
        self.script = Script(self._wait_for_release, lambda seconds: not self.over.wait(seconds))
        model = self

        class Handler(_Handler):
            owner = model

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with self._news:
            self._news.notify_all()
            for each in self._sockets:  # handlers that wait for a next request on an idle connection
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def release(self, name: str) -> None:
        """Let ``[[hold:NAME]]`` go on."""
        with self._news:
            self._released.add(name)
            self._news.notify_all()

    def wait_request(self, words: str, timeout: float = WAIT_S) -> Request:
        """The first request whose body has ``words``; fails when none comes."""
        with self._news:
            found: list[Request] = []

            def seen() -> bool:
                found[:] = [request for request in self.requests if words in json.dumps(request.body)]
                return bool(found)

            if not self._news.wait_for(seen, timeout):
                raise AssertionError(f"no request with {words!r} among {len(self.requests)}")
            return found[0]

    def _wait_for_release(self, name: str) -> bool:
        with self._news:
            self._news.wait_for(lambda: name in self._released or self.over.is_set())
            return name in self._released

    def asked(self, request: Request) -> None:
        with self._news:
            self.requests.append(request)
            self._news.notify_all()

    def connected(self, connection: socket.socket, *, gone: bool = False) -> None:
        with self._news:
            (self._sockets.discard if gone else self._sockets.add)(connection)


class _Handler(BaseHTTPRequestHandler):
    owner: ModelServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.owner.connected(self.connection)

    def finish(self) -> None:
        self.owner.connected(self.connection, gone=True)
        try:
            super().finish()
        except OSError:
            pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client went away in the middle of an answer, as an interrupted one does
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._json(200, {})

    def do_GET(self) -> None:
        model = {"name": "scripted", "model": "scripted", "id": "scripted", "object": "model"}
        self._json(200, {"models": [model], "data": [model], "object": "list", "version": "0.30.0"})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            self._json(400, {"error": {"message": "no JSON"}})
            return
        if path.endswith("count_tokens") or path.endswith(":countTokens"):
            self._json(200, {"input_tokens": 100, "totalTokens": 100})
        elif path.endswith("/messages"):
            self._answer(Anthropic(), body, bool(body.get("stream")))
        elif path.endswith("/responses"):
            self._answer(Responses(), body, True)
        elif path.endswith("enerateContent"):
            self._answer(Gemini(), body, path.endswith(":streamGenerateContent"))
        elif path == "/api/chat":
            self._answer(Ollama(), body, True)
        elif path == "/api/show":
            self._json(200, {"details": {}, "model_info": {}, "capabilities": ["completion", "tools", "thinking"]})
        else:
            self._json(404, {"error": {"message": f"no such path: {path}"}})

    def _answer(self, api: Api, body: dict[str, Any], streamed: bool) -> None:
        if isinstance(api, Ollama) and body.get("model") == "missing":
            self._json(404, {"error": "model 'missing' not found"})
            return
        self.owner.asked(Request(self.path, body))
        try:
            blocks = self.owner.script.reply(api.history(body), api.tools(body))
        except ApiError as error:
            self._json(error.status, api.error(error.status))
            return
        if not streamed:
            self._json(200, api.whole(blocks, body))
            return
        self.send_response(200)
        self.send_header("Content-Type", api.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in api.stream(blocks, body):
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status in (429, 529):
            self.send_header("Retry-After", "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


if __name__ == "__main__":
    with ModelServer(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as server:
        print(server.url, flush=True)
        threading.Event().wait()
