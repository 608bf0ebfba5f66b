"""One runner as a process. Owns: spawning, its three pipes, its exit, the ladder that stops it, the end of its tree.
Does NOT own: lines (framing.py), what is said on the pipes (providers), which variables it gets (environment.py).

A runner leads a session and process group of its own. Its exit is told by a pidfd, not by the end of its pipes, which a
grandchild may hold open. It stays an unreaped zombie until its tree has been ended, so its pid, which is also its
group's and session's number, cannot meanwhile become another's. Pipes are read straight from the loop's readiness
callbacks: as fast as a transport with the right read size, and nothing is awaited between spawn and registration.
"""

import asyncio
import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Self

from agentrq_worker.runner import proc

log = logging.getLogger(__name__)

READ_SIZE = 65536
"""Bytes a read: what a pipe holds by default; larger reads cost an allocation and bring no more."""

STDERR_LINE = 8192
"""Bytes of a stderr line handed on; the rest of the line is dropped."""

STDERR_TAIL = 4096
"""Bytes of stderr kept for error texts."""

_LARGEST_PIPE = 1 << 20  # /proc/sys/fs/pipe-max-size
_ROUNDS = 60  # of ending a tree: some 5 s
_KILLED = 5.0  # seconds for a killed runner to be gone; it can be longer only inside a system call that hangs
_POLL = 0.02  # seconds between looks where the system has no pidfd


def _nothing(_: object) -> None:
    pass


class RunnerProcess:
    """A spawned runner. Made by `spawn`; every one needs `aclose` in the end (safe at any time, and repeated).

    The usual life: ``spawn``, then ``wait`` (or ``stop``), then ``drain_output``, then ``end_tree``, then ``aclose``.
    """

    pid: int
    returncode: int | None
    """None while it runs; negative for a signal, as `subprocess.Popen` has it; 255 when somebody else reaped it."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        mark: str,
        on_chunk: Callable[[bytes], None],
        on_stdout_end: Callable[[], None],
        on_stderr_line: Callable[[str], None],
        on_exit: Callable[[int], None],
    ) -> None:
        self.pid = popen.pid
        self.returncode = None
        self.mark = mark
        self.starttime = proc.starttime(popen.pid)
        self._popen = popen
        self._on_chunk, self._on_stdout_end = on_chunk, on_stdout_end
        self._on_stderr_line, self._on_exit = on_stderr_line, on_exit
        self._loop = asyncio.get_running_loop()
        self._stdin: IO[bytes] | None = popen.stdin
        self._stdout: IO[bytes] | None = popen.stdout
        self._stderr: IO[bytes] | None = popen.stderr
        self._unsent: deque[memoryview] = deque()
        self._stdin_ending = False
        self._paused = False
        self._resumed = asyncio.Event()
        self._stdout_ended = asyncio.Event()
        self._exited = asyncio.Event()
        self._stderr_line = b""  # the unfinished line, cut to STDERR_LINE
        self._stderr_tail = b""
        self._pidfd = -1
        self._tree_ended = False
        self._reaped = False
        self._tag = proc.tag_of(mark)
        self._seen: set[tuple[int, int]] = set()
        self._ending = proc.Ending(self._members)

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | None = None,
        mark: str = "",
        pass_fds: Sequence[int] = (),
        on_chunk: Callable[[bytes], None],
        on_stdout_end: Callable[[], None],
        on_stderr_line: Callable[[str], None] = _nothing,
        on_exit: Callable[[int], None] = _nothing,
    ) -> Self:
        """Start ``argv`` (found in ``env``'s PATH) with exactly ``env`` and the mark (`proc.make_mark`).

        ``on_chunk`` gets stdout as it comes (at most 64 KiB), ``on_stdout_end`` its end, once; ``on_stderr_line`` each
        line of stderr without newline; ``on_exit`` the return code. All are called on the loop and must not raise.
        Raises what `subprocess.Popen` does: FileNotFoundError (program or ``cwd``), PermissionError,
        NotADirectoryError, other OSError; ValueError (a NUL in an argument, a ``mark`` that is none).
        """
        mark = mark or proc.make_mark("-")
        if proc.parse_mark(mark) is None:
            raise ValueError(f"not a mark: {mark!r}")
        with proc.tagged(mark):
            popen = subprocess.Popen(  # noqa: ASYNC220  (vfork: back within a millisecond, and no await to be cancelled in)
                argv,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                close_fds=True,
                pass_fds=pass_fds,
                cwd=cwd,
                env={**env, proc.MARK_VARIABLE: mark},
                start_new_session=True,
            )
        proc.MANAGED.add(popen.pid)
        # Nothing is awaited from here on: a cancellation cannot come between the process and its owner.
        self = cls(popen, mark, on_chunk, on_stdout_end, on_stderr_line, on_exit)
        try:
            self._register()
        except BaseException:
            self.kill()
            self._close_pipes()
            popen.wait(timeout=5)
            self._reap()
            raise
        return self

    def _register(self) -> None:
        self._watch_exit()
        for pipe, read in ((self._stdin, None), (self._stdout, self._read_stdout), (self._stderr, self._read_stderr)):
            assert pipe
            os.set_blocking(pipe.fileno(), False)
            if read:
                self._loop.add_reader(pipe.fileno(), read)

    # -- stdin

    def write(self, data: bytes) -> None:
        """Send ``data`` to stdin, now or as the runner reads; never blocks. A runner that reads no more is no error."""
        if self._stdin is None or self._stdin_ending or not data:
            return
        self._unsent.append(memoryview(data))
        if len(self._unsent) == 1:
            self._send()
            if self._unsent:
                self._loop.add_writer(self._stdin.fileno(), self._send)

    def close_stdin(self) -> None:
        """End stdin once all that was written has been sent."""
        self._stdin_ending = True
        if not self._unsent:
            self._drop_stdin()

    def _send(self) -> None:
        assert self._stdin
        try:
            while self._unsent:
                sent = os.write(self._stdin.fileno(), self._unsent[0])
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                    return
                self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:  # broken pipe: its exit tells the rest
            self._drop_stdin()
            return
        self._loop.remove_writer(self._stdin.fileno())
        if self._stdin_ending:
            self._drop_stdin()

    def _drop_stdin(self) -> None:
        self._unsent.clear()
        if self._stdin:
            self._loop.remove_writer(self._stdin.fileno())
            self._stdin.close()
            self._stdin = None

    # -- stdout

    def pause_reading(self) -> None:
        """Read no more of stdout until `resume_reading`; the runner blocks once the pipe is full. Idempotent."""
        if not self._paused:
            self._paused = True
            self._resumed.clear()
            if self._stdout:
                self._loop.remove_reader(self._stdout.fileno())

    def resume_reading(self) -> None:
        """Undo `pause_reading`. Idempotent."""
        if self._paused:
            self._paused = False
            self._resumed.set()
            if self._stdout:
                self._loop.add_reader(self._stdout.fileno(), self._read_stdout)

    def _read_stdout(self) -> bool:
        """Hand on what one read gives; False when there was nothing more to be had now."""
        if self._stdout is None:
            return False
        try:
            data = os.read(self._stdout.fileno(), READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._on_chunk(data)
        else:
            self._end_stdout()
        return bool(data)

    def _end_stdout(self) -> None:
        if self._stdout:
            self._loop.remove_reader(self._stdout.fileno())
            self._stdout.close()
            self._stdout = None
            self._stdout_ended.set()
            self._on_stdout_end()

    async def drain_output(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the end of stdout; True when it came by itself.

        For after the exit: what is still held open then belongs to a survivor. What the runner itself wrote is in the
        pipe by then and is handed on before our end is closed. While reading is paused the clock stands still: output
        that we ourselves keep waiting is never thrown away.
        """
        while not self._stdout_ended.is_set():
            try:
                async with asyncio.timeout(timeout):
                    await self._stdout_ended.wait()
            except TimeoutError:
                if not self._paused:
                    break
                await self._resumed.wait()
        if self._stdout is None:
            return True
        for _ in range(_LARGEST_PIPE // READ_SIZE):
            if not self._read_stdout():
                break
        self._end_stdout()
        return False

    # -- stderr

    @property
    def stderr_tail(self) -> str:
        """The last 4 KiB of stderr, for error texts; complete once the exit is known."""
        return self._stderr_tail.decode(errors="replace")

    def _read_stderr(self) -> bool:
        if self._stderr is None:
            return False
        try:
            data = os.read(self._stderr.fileno(), READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._end_stderr()
            return False
        self._stderr_tail = (self._stderr_tail + data[-STDERR_TAIL:])[-STDERR_TAIL:]
        first, *others = data.split(b"\n")
        unfinished = (self._stderr_line + first[:STDERR_LINE])[:STDERR_LINE]
        for line in others:
            self._hand_on(unfinished)
            unfinished = line[:STDERR_LINE]
        self._stderr_line = unfinished
        return True

    def _hand_on(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self._on_stderr_line(text)

    def _end_stderr(self) -> None:
        if self._stderr:
            self._loop.remove_reader(self._stderr.fileno())
            self._stderr.close()
            self._stderr = None
            self._hand_on(self._stderr_line)
            self._stderr_line = b""

    # -- exit

    def _watch_exit(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # macOS; an old kernel or seccomp filter; no file descriptor left
            self._loop.call_later(_POLL, self._poll_exit)
        else:
            self._loop.add_reader(self._pidfd, self._look_for_exit)

    def _poll_exit(self) -> None:
        if not self._look_for_exit():
            self._loop.call_later(_POLL, self._poll_exit)

    def _look_for_exit(self) -> bool:
        status: int | None
        try:
            status = self._peek()
        except ChildProcessError:
            status = 255
        if status is None:
            return False
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self.returncode = status
        self._exited.set()
        for _ in range(_LARGEST_PIPE // READ_SIZE):  # its last words, before anybody asks for them
            if not self._read_stderr():
                break
        self._drop_stdin()
        if self._tree_ended:
            self._reap()
        self._on_exit(status)
        return True

    def _peek(self) -> int | None:
        if not hasattr(os, "waitid"):  # macOS before Python 3.13: reaped at once, so its group must end at once
            status = self._popen.poll()
            if status is not None:
                self.signal_group(signal.SIGKILL)
                self._reap()
            return status
        info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if info is None:
            return None
        return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status

    async def wait(self) -> int:
        """The return code, as soon as the process itself has ended, whoever still holds its pipes."""
        await self._exited.wait()
        assert self.returncode is not None
        return self.returncode

    # -- the end

    def signal_group(self, number: int) -> None:
        """Send a signal to the runner's process group, while its number is surely its own."""
        if not self._reaped:
            try:
                os.killpg(self.pid, number)
            except (ProcessLookupError, PermissionError):
                pass  # nobody left in it

    async def stop(self, *, grace: float, term_grace: float = 2.0) -> int:
        """Stop the runner and its tree; returns the return code. The caller has written the protocol's stop message.

        ``grace`` seconds for it to end by itself; SIGTERM to its process group; ``term_grace`` seconds; SIGKILL to
        everything that is left. Output goes on being read. A cancellation kills the tree before it is let through.
        """
        try:
            self._members()  # known now, they are known when their parents have ended
            if not await self._exits_within(grace):
                self._members()
                self.signal_group(signal.SIGTERM)
                await self._exits_within(term_grace)
            await self.end_tree()
            if not await self._exits_within(_KILLED):
                log.error("runner %d did not end on SIGKILL", self.pid)
            return -signal.SIGKILL if self.returncode is None else self.returncode
        except BaseException:
            self.kill()
            raise

    async def _exits_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        except TimeoutError:
            return self._exited.is_set()
        return True

    async def end_tree(self) -> int:
        """Kill what is left of the runner's tree, the runner included; returns how many others there were.

        Bounded: after some 5 s whatever cannot be killed is logged and given up.
        """
        if not self._reaped:
            try:
                for pause in proc.pauses(_ROUNDS):
                    if self.kill():
                        break
                    await asyncio.sleep(pause)
                else:
                    log.error("could not end %s", [process.pid for process in self._members()])
            finally:
                self._tree_ended = True
                if self.returncode is not None:
                    self._reap()
                proc.reap_strays()
        return len(self._ending.ended - {(self.pid, self.starttime)})

    def kill(self) -> bool:
        """One round of `end_tree`, without waiting; True when nothing was left. For when nothing may be awaited."""
        if self._reaped:
            return True
        nothing_left = self._ending.round()
        if not proc.AVAILABLE:
            self.signal_group(signal.SIGKILL)
        return nothing_left

    def _members(self) -> list[proc.Stat]:
        members = proc.kin(proc.family(self.pid), self._is_own)
        self._seen.update(process.ident for process in members)
        if len(members) > 1:
            proc.reap_strays()  # lest a tree that forks fast makes the next look slower
        return members

    def _is_own(self, process: proc.Stat) -> bool:
        # Unreaped as the leader is, its number is nobody else's, neither as a pid nor as a session.
        if self.pid in (process.pid, process.session) or process.ident in self._seen:
            return True
        if process.starttime < self.starttime or process.pid in proc.MANAGED:
            return False
        return proc.read_tag(process.pid) == self._tag or proc.read_mark(process.pid) == self.mark

    def _reap(self) -> None:
        if not self._reaped:
            self._reaped = True
            self._popen.poll()
            proc.MANAGED.discard(self.pid)

    async def aclose(self) -> None:
        """End the tree if that is still to be done, and let go of everything. Loses output that was not drained."""
        try:
            await self.end_tree()
            await self._exits_within(_KILLED)
        finally:
            self._close_pipes()

    def _close_pipes(self) -> None:
        self._drop_stdin()
        self._end_stdout()
        self._end_stderr()
