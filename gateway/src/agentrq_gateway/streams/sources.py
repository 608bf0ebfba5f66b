"""What is sent to a client that follows sessions: one, or several on one connection. Owns the ids of their frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentrq_gateway.streams.frames import Frame, cursors_id
from agentrq_gateway.streams.session_log import CHUNK
from agentrq_gateway.streams.session_reader import SessionReader
from agentrq_gateway.streams.stream_response import Source


class OneSession(Source):
    """The events of one session; each frame's id is its cursor."""

    def __init__(self, reader: SessionReader) -> None:
        self._reader = reader

    async def take(self) -> bytes:
        """What comes next."""
        self._reader.on_news = self.on_news
        notice, frames = await self._reader.take()
        self.over = self._reader.over
        return notice + b"".join([frame.data for frame in frames])

    def close(self) -> None:
        """The client has left."""
        self._reader.close()


class SeveralSessions(Source):
    """The events of several sessions; each frame's id names the places of all, so that the client can come back."""

    def __init__(self, readers: Sequence[SessionReader], cursors: dict[str, str]) -> None:
        """``cursors``: session id → the client's cursor, where it has one."""
        self._readers = {reader.session_id: reader for reader in readers}
        self._cursors = cursors
        self._due = dict.fromkeys(self._readers)
        """Sessions that may have news, in the order in which they are asked."""

    async def take(self) -> bytes:
        """What comes next, of as many sessions as fit into a piece."""
        pieces: list[bytes] = []
        size = 0
        while self._due and size < CHUNK:
            session_id = next(iter(self._due))
            del self._due[session_id]
            reader = self._readers[session_id]
            reader.on_news = self._news_of(session_id)
            notice, frames = await reader.take()
            piece = notice + b"".join([self._with_id(session_id, frame) for frame in frames])
            if reader.over:
                reader.close()
                del self._readers[session_id]
            elif piece:
                self._due[session_id] = None
            pieces.append(piece)
            size += len(piece)
        self.over = not self._readers
        return b"".join(pieces)

    def _news_of(self, session_id: str) -> Callable[[], None]:
        def tell() -> None:
            self._due[session_id] = None
            self.on_news()

        return tell

    def _with_id(self, session_id: str, frame: Frame) -> bytes:
        if frame.cursor is None:
            return frame.data
        self._cursors[session_id] = frame.cursor
        return cursors_id(self._cursors) + frame.body

    def close(self) -> None:
        """The client has left."""
        for reader in self._readers.values():
            reader.close()
