"""An HTTP server that receives webhooks, checks them by the library of Standard Webhooks, and answers as told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver:
    """What has been received: ``messages`` in order of arrival; ``answers`` are the statuses to come, then 200."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.attempts: list[str] = []
        self.answers: list[int] = []
        self.statuses: dict[str, int] = {}
        """A status for each message whose id has this in it."""
        self.location: str | None = None
        self.arrived = threading.Condition()
        self.url = ""

    def wait_for(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.messages) >= count, 30), self.attempts

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """The status that the endpoint answers."""
        verified = Webhook(SECRET).verify(body, headers)
        with self.arrived:
            found = headers["webhook-id"]
            self.attempts.append(found)
            status = next((status for part, status in self.statuses.items() if part in found), None)
            status = status or (self.answers.pop(0) if self.answers else 200)
            if 200 <= status < 300:
                self.messages.append(verified)
                self.ids.append(found)
            self.arrived.notify_all()
        return status


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a port of loopback."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = receiver.take({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            if receiver.location is not None:
                self.send_header("Location", receiver.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/hooks?from=agentrq"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
