"""A gateway that is a script: it speaks the HTTP of the real one, and misbehaves as the first part of the path says.

It serves three sessions of made events, without Redis. What it was asked is kept, and given by ``GET /asked``.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COUNT = 400
"""Durable events of a session; ``long`` has `LONG`."""
LONG = 12_000
REFUSED = {"error": {"code": "redis_unavailable", "message": "Redis is away"}}


def made_event(session: str, number: int) -> dict[str, Any]:
    """Durable event ``number`` of a session: two epochs, texts beyond ASCII, a status at each end."""
    epoch, seq = (1, number) if number <= COUNT // 2 else (2, number - COUNT // 2)
    about = {"cursor": f"{epoch}-{seq}", "sessionId": session, "timestamp": 1_700_000_000_000 + number}
    last = LONG if session == "long" else COUNT
    if number in (1, last):
        return about | {"status": "running" if number == 1 else "done"}
    return about | {"id": str(number), "type": "text", "content": {"text": f"{number} é 🦊 {'x' * (number % 90)}"}}


def events_after(session: str, cursor: str | None) -> list[dict[str, Any]]:
    last = LONG if session == "long" else COUNT
    place = tuple(map(int, (cursor or "0-0").split("-")))
    made = (made_event(session, number) for number in range(1, last + 1))
    return [event for event in made if tuple(map(int, event["cursor"].split("-"))) > place]


def frame(event: str, data: dict[str, Any], cursor: str = "") -> bytes:
    head = f"id: {cursor}\n" if cursor else ""
    return f"{head}event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def durable(event: dict[str, Any]) -> bytes:
    return frame("status" if "status" in event else "message", event, f"{event['sessionId']}={event['cursor']}")


class ScriptedGateway:
    """Serves on loopback while it is entered."""

    def __enter__(self) -> ScriptedGateway:
        self.asked: list[dict[str, Any]] = []
        self.dice = random.Random(7)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def times(self, script: str, path: str) -> int:
        """How often a path was asked for."""
        return sum(asked["script"] == script and asked["path"] == path for asked in self.asked)

    def stream(self, script: str, asked: dict[str, Any]) -> Iterator[bytes]:
        """The pieces of a stream's body; it ends where they end."""
        yield b"retry: 1\n\n: hello\n\n"
        sessions: dict[str, str | None] = asked["body"]["sessions"]
        frames = []
        left = {session: events_after(session, self._before(script, cursor)) for session, cursor in sessions.items()}
        while any(left.values()):  # as several sessions come: interleaved, each in order
            session = self.dice.choice([name for name, events in left.items() if events])
            frames.append(durable(left[session].pop(0)))
            if not left[session]:
                frames.append(frame("end", {"sessionId": session}))
        body = b"".join(frames)
        if script == "cuts":
            body = body[: self.dice.randrange(len(body) // 3 + 2000)]
            step = self.dice.choice([1, 7, 1000]) if len(body) < 5000 else 3001  # in the middle of a character, too
            yield from (body[at : at + step] for at in range(0, len(body), step))
        elif script == "gone":
            yield frame("reset", {"sessionId": "a", "reason": "gone"})
            yield body
        elif script == "trimmed" and sessions["a"] == "1-5":
            yield frame("reset", {"sessionId": "a", "reason": "trimmed", "oldest": "1-100"})
            yield b"".join(durable(event) for event in events_after("a", "1-99"))
            yield frame("end", {"sessionId": "a"})
        elif script == "deltas":
            pieces = [("half", 0), (" wri", 4), ("itten", 7), ("lost", 99)]
            for text, offset in pieces if asked["body"].get("deltas") else ():
                content = {"text": text, "offset": offset, "blockId": "b"}
                yield frame("delta", {"sessionId": "a", "type": "text_delta", "id": "d", "content": content})
            yield body
        else:
            yield body

    def _before(self, script: str, cursor: str | None) -> str | None:
        """A gateway that says some events again is not what the contract allows; a reader bears it."""
        if script != "cuts" or not cursor:
            return cursor
        epoch, seq = map(int, cursor.split("-"))
        return f"{epoch}-{max(0, seq - 3)}"


def make_handler(gateway: ScriptedGateway) -> type[BaseHTTPRequestHandler]:
    """The handler of one gateway's requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def do_DELETE(self) -> None:
            self._serve()

        def _serve(self) -> None:
            _, script, path = self.path.split("/", 2)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = {
                "script": script,
                "method": self.command,
                "path": path,
                "body": json.loads(body) if body else None,
                "headers": dict(self.headers),
            }
            if path == "asked":
                self._json(200, [one for one in gateway.asked if one["script"] == script])
                return
            gateway.asked.append(asked)
            times = gateway.times(script, path)
            if script == "busy" and times < 3:
                self._json(503, REFUSED, {"Retry-After": "0"})
            elif script == "dropped" and times < 3:
                self.close_connection = True  # not a byte of an answer
            elif script == "expired" and self.headers["Authorization"] != "Bearer second":
                if times == 1:
                    self._stream([frame("expired", {})])
                else:
                    self._json(401, {"error": {"code": "unauthorized", "message": "The token has expired"}})
            elif path == "stream":
                self._stream(gateway.stream(script, asked))
            elif path == "stream?feed=status":
                self._stream([frame("ready", {}), frame("status", {"sessionId": "a", "status": "idle"})])
            elif path == "sessions":
                self._json(201, {"sessionId": "a"})
            elif path.startswith("sessions/none"):
                error = {"code": "session_not_found", "message": "There is no session none", "field": "id"}
                self._json(404, {"error": error})
            elif self.command == "DELETE":
                self.send_response(204)
                self.end_headers()
            else:
                self._json(202, {"commandId": self.headers.get("Idempotency-Key") or "made"})

        def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, pieces: Any) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                for piece in pieces:
                    self.wfile.write(piece)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the reader has gone
            self.close_connection = True

    return Handler
