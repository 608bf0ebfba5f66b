"""A client of a stream that calls the ASGI app itself: it takes what it wants, when it wants, and leaves."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from agentrq_gateway import Gateway


class Frame(NamedTuple):
    """One frame as an EventSource sees it."""

    id: str | None
    event: str | None
    data: Any
    retry: int | None = None
    comment: bool = False


def parse(text: str) -> Frame:
    """One frame. Fails for a line that is none of an event stream."""
    members: dict[str, str] = {}
    comment = False
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        assert colon, text
        if not name:
            comment = True
            continue
        assert name in ("id", "event", "data", "retry"), text
        assert name not in members, text
        members[name] = value.removeprefix(" ")
    data = members.get("data")
    return Frame(
        members.get("id"), members.get("event"), None if data is None else json.loads(data),
        int(members["retry"]) if "retry" in members else None, comment,
    )  # fmt: skip


class Listener:
    """One connection. ``async with`` opens it; `status` and `headers` are those of the answer."""

    def __init__(
        self, gateway: Gateway, path: str, *, body: Any = None, client: str = "127.0.0.1", **headers: str
    ) -> None:
        self._gateway = gateway
        path, _, query = path.partition("?")
        self._body = b"" if body is None else json.dumps(body).encode()
        named = {"host": "localhost"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            named["content-type"] = "application/json"
        self._scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": "GET" if body is None else "POST", "scheme": "http", "path": path,
            "raw_path": quote(path).encode(),
            "query_string": query.encode(), "root_path": "", "client": (client, 1), "server": ("127.0.0.1", 80),
            "headers": [(name.lower().encode(), value.encode()) for name, value in named.items()],
        }  # fmt: skip
        self.status = 0
        self.headers: dict[str, str] = {}
        self.closed = False
        self.taken = 0
        """Bytes of the body."""
        self._text = ""
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._began = asyncio.Event()
        self._left = asyncio.Event()
        self.taking = asyncio.Event()
        self.taking.set()
        self._asked = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._task = self._group.create_task(self._gateway(self._scope, self._receive, self._send))
        self._task.add_done_callback(self._done)
        async with asyncio.timeout(30):
            await self._began.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        async with asyncio.timeout(30):
            await self._group.__aexit__(None, None, None)

    def leave(self) -> None:
        """Cut the connection."""
        self._left.set()
        self.taking.set()

    def cancel(self) -> None:
        """The server gives the request up."""
        assert self._task is not None
        self._task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._began.set()
        self._frames.put_nowait(None)

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self._began.set()
            return
        await self.taking.wait()
        if self._left.is_set():
            return
        self.taken += len(message["body"])
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            return
        self._text += message["body"].decode()
        *frames, self._text = self._text.split("\n\n")
        for frame in frames:
            self._frames.put_nowait(parse(frame))
        if not message.get("more_body"):
            assert self._text == ""
            self.closed = True

    async def next(self) -> Frame | None:
        """The next frame; None at the end."""
        async with asyncio.timeout(30):
            return await self._frames.get()

    async def until(self, event: str, **members: Any) -> list[Frame]:
        """The frames up to the first of a name whose data has these members."""
        found: list[Frame] = []
        while (frame := await self.next()) is not None:
            found.append(frame)
            if frame.event == event and all(frame.data.get(name) == value for name, value in members.items()):
                return found
        raise AssertionError(f"the stream ended without {event} {members}: {found}")

    async def rest(self) -> list[Frame]:
        """All frames up to the end."""
        found: list[Frame] = []
        while (frame := await self.next()) is not None:
            found.append(frame)
        return found
