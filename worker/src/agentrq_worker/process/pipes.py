"""Reads and writes a runner's three pipes, straight from the loop's readiness callbacks. Nothing here blocks.

Owns what is unsent, pausing, and the end of stderr that is kept. Does not own lines (framing.py), nor the process.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import IO

from agentrq_worker.process.output_poller import Watcher

READ_SIZE = 65536
"""Bytes a read: what a pipe holds by default; larger reads cost an allocation and bring no more."""
_LEAST_READ = 1024
_SMALL_READ = 4096
"""Where little comes, reads become as small as this: to make and to cut a large buffer costs as much as the read."""
_TURN_S = 0.02
"""What is read at once should be dealt with in about this time: others wait for the loop meanwhile. A read of short
lines that each make a message takes ten times as long, so the next ones are smaller."""

STDERR_LINE = 8192
"""Bytes of a stderr line handed on; the rest of the line is dropped."""

STDERR_TAIL = 4096
"""Bytes of stderr kept for error texts."""

_LARGEST_PIPE = 1 << 20  # /proc/sys/fs/pipe-max-size


class Stdin:
    """What is sent to the runner, now or as it reads."""

    def __init__(self, pipe: IO[bytes], loop: asyncio.AbstractEventLoop, on_broken: Callable[[], None]) -> None:
        """``on_broken`` is told, once, that the runner has closed its end and what was written is lost."""
        self._pipe: IO[bytes] | None = pipe
        self._loop = loop
        self._on_broken = on_broken
        self._unsent: list[memoryview] = []
        self._ending = False
        self.broken = False
        """Whether the runner closed its end before all was sent."""
        self.unsent = 0
        """Bytes that the runner has not read yet, what its pipe holds not counted."""

    def begin(self) -> None:
        """Make it ready for use."""
        assert self._pipe
        os.set_blocking(self._pipe.fileno(), False)

    def write(self, data: bytes) -> None:
        """Send ``data`` to stdin, now or as the runner reads; never blocks. A runner that stopped reading is fine."""
        if self._pipe is None or self._ending or not data:
            return
        self._unsent.append(memoryview(data))
        self.unsent += len(data)
        if len(self._unsent) == 1:
            self._send()
            if self._unsent:
                self._loop.add_writer(self._pipe.fileno(), self._send)

    def close(self) -> None:
        """End stdin once all that was written has been sent."""
        self._ending = True
        if not self._unsent:
            self.drop()

    def _send(self) -> None:
        assert self._pipe
        try:
            while self._unsent:
                sent = os.write(self._pipe.fileno(), self._unsent[0])
                self.unsent -= sent
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                    return
                self._unsent.pop(0)
        except BlockingIOError:
            return
        except OSError:  # broken pipe: as a rule its exit tells the rest
            self.drop()
            self.broken = True
            self._on_broken()
            return
        self._loop.remove_writer(self._pipe.fileno())
        if self._ending:
            self.drop()

    def drop(self) -> None:
        """Close it now; what was not sent is lost."""
        self._unsent.clear()
        self.unsent = 0
        if self._pipe:
            self._loop.remove_writer(self._pipe.fileno())
            self._pipe.close()
            self._pipe = None


class Stdout:
    """What the runner says, handed on in chunks as it comes; reading can be held back."""

    def __init__(
        self,
        pipe: IO[bytes],
        watcher: Watcher,
        on_chunk: Callable[[bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        self._pipe: IO[bytes] | None = pipe
        self._watcher = watcher
        self._on_chunk, self._on_end = on_chunk, on_end
        self._fd = pipe.fileno()
        self._paused = False
        self._size = READ_SIZE
        # Made when something waits for it: an event takes 0.8 KiB.
        self._resumed: asyncio.Event | None = None
        self._ended: asyncio.Event | None = None

    @property
    def paused(self) -> bool:
        """Whether nothing is read for now."""
        return self._paused

    def begin(self) -> None:
        """Read from now on."""
        assert self._pipe
        os.set_blocking(self._fd, False)
        self._watcher.add_reader(self._fd, self._read)

    def pause(self) -> None:
        """Read no more of stdout until `resume`; the runner blocks once the pipe is full. Idempotent."""
        if not self._paused:
            self._paused = True
            if self._pipe:
                self._watcher.remove_reader(self._fd)

    def resume(self) -> None:
        """Undo `pause`. Idempotent."""
        if self._paused:
            self._paused = False
            if self._resumed is not None:
                self._resumed.set()
            if self._pipe:
                self._watcher.add_reader(self._fd, self._read)

    def _read(self) -> bool:
        """Hand on what one read gives; True if it was all that a read may take: there may be more."""
        if self._pipe is None:
            return False
        size = self._size
        try:
            data = os.read(self._fd, size)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.end()
        elif len(data) <= _LEAST_READ:  # too little to take long
            if size > _SMALL_READ:
                self._size = size // 2
            self._on_chunk(data)
        else:
            began = time.monotonic()
            self._on_chunk(data)
            took = time.monotonic() - began
            if took > _TURN_S:
                self._size = max(_LEAST_READ, int(len(data) * _TURN_S / took))
            elif len(data) == size < READ_SIZE:
                self._size = min(2 * size, READ_SIZE)
        return len(data) == size

    def end(self) -> None:
        """Close our end; what is still in it is lost."""
        if self._pipe:
            self._watcher.remove_reader(self._fd)
            self._pipe.close()
            self._pipe = None
            if self._ended is not None:
                self._ended.set()
            self._on_end()

    async def drain(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the end of stdout; True when it came by itself.

        For after the exit: what is still held open then belongs to a survivor. What the runner itself wrote is in the
        pipe by then and is handed on before our end is closed. While reading is paused the clock stands still: output
        that we ourselves keep waiting is never thrown away.
        """
        ended = self._ended = self._ended or asyncio.Event()
        while self._pipe is not None:
            try:
                async with asyncio.timeout(timeout):
                    await ended.wait()
            except TimeoutError:
                if not self._paused:
                    break
                self._resumed = self._resumed or asyncio.Event()
                self._resumed.clear()
                await self._resumed.wait()
        if self._pipe is None:
            return True
        self._size = READ_SIZE
        for _ in range(_LARGEST_PIPE // READ_SIZE):
            if not self._read():
                break
        self.end()
        return False


class Stderr:
    """The runner's log: always read, handed on by lines, its tail kept."""

    def __init__(self, pipe: IO[bytes], loop: asyncio.AbstractEventLoop, on_line: Callable[[str], None]) -> None:
        self._pipe: IO[bytes] | None = pipe
        self._loop = loop
        self._on_line = on_line
        self._line = b""  # the unfinished line, cut to STDERR_LINE
        self._tail = b""

    def begin(self) -> None:
        """Read from now on."""
        assert self._pipe
        os.set_blocking(self._pipe.fileno(), False)
        self._loop.add_reader(self._pipe.fileno(), self._read)

    @property
    def tail(self) -> str:
        """The last `STDERR_TAIL` bytes."""
        return self._tail.decode(errors="replace")

    def read_rest(self) -> None:
        """Read what is there now."""
        for _ in range(_LARGEST_PIPE // READ_SIZE):
            if not self._read():
                break

    def _read(self) -> bool:
        if self._pipe is None:
            return False
        try:
            data = os.read(self._pipe.fileno(), READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.end()
            return False
        self._tail = (self._tail + data[-STDERR_TAIL:])[-STDERR_TAIL:]
        first, *others = data.split(b"\n")
        unfinished = (self._line + first[:STDERR_LINE])[:STDERR_LINE]
        for line in others:
            self._hand_on(unfinished)
            unfinished = line[:STDERR_LINE]
        self._line = unfinished
        return True

    def _hand_on(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self._on_line(text)

    def end(self) -> None:
        """Close our end; the unfinished line is handed on."""
        if self._pipe:
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()
            self._pipe = None
            self._hand_on(self._line)
            self._line = b""
