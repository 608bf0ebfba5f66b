"""Spawns one runner, watches its exit and stops it.

Owns the process and the order in which all of it ends. Does not own its pipes (pipes.py), its tree (tree.py), lines
(framing.py), the protocol (providers) nor its variables (environment.py).

A runner leads a session and process group of its own. Its exit is told by a pidfd, not by the end of its pipes, which a
grandchild may hold open. Nothing is awaited between spawn and registration.
"""

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from agentrq_worker.process import descendants, marks, open_files
from agentrq_worker.process.output_poller import Watcher
from agentrq_worker.process.pipes import Stderr, Stdin, Stdout
from agentrq_worker.process.tree import Tree

log = logging.getLogger(__name__)

_KILLED = 5.0  # seconds for a killed runner to be gone; it can be longer only inside a system call that hangs
_POLL = 0.02  # seconds between two checks where the system has no pidfd


def _nothing(*_: object) -> None:
    pass


class RunnerProcess:
    """A spawned runner. Made by `spawn`; every one needs `aclose` in the end (safe at any time, and repeated).

    The usual life: ``spawn``, then ``wait`` (or ``stop``), then ``drain_output``, then ``end_tree``, then ``aclose``.
    """

    pid: int
    returncode: int | None
    """None while it runs; negative for a signal, as `subprocess.Popen` has it; 255 when it was reaped elsewhere."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        mark: str,
        on_chunk: Callable[[bytes], None],
        on_stdout_end: Callable[[], None],
        on_stdin_broken: Callable[[], None],
        on_stderr_line: Callable[[str], None],
        on_exit: Callable[[int], None],
        watcher: Watcher | None,
    ) -> None:
        self.pid = popen.pid
        self.returncode = None
        self.mark = mark
        self._popen = popen
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        assert popen.stdin
        assert popen.stdout
        assert popen.stderr
        self._stdin = Stdin(popen.stdin, self._loop, on_stdin_broken)
        self._stdout = Stdout(popen.stdout, watcher or self._loop, on_chunk, on_stdout_end)
        self._stderr = Stderr(popen.stderr, self._loop, on_stderr_line)
        self._tree = Tree(popen.pid, mark)
        self._exited = asyncio.Event()
        self._pidfd = -1
        self._tree_ended = False

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
        on_stdin_broken: Callable[[], None] = _nothing,
        on_stderr_line: Callable[[str], None] = _nothing,
        on_exit: Callable[[int], None] = _nothing,
        watcher: Watcher | None = None,
    ) -> Self:
        """Start ``argv`` (found in ``env``'s PATH) with exactly ``env`` and the mark (`marks.make_mark`).

        ``on_chunk`` gets stdout as it comes (at most 64 KiB), ``on_stdout_end`` its end, once; ``on_stdin_broken``
        is called once if what was written cannot reach it; ``on_stderr_line`` gets each line of stderr without newline;
        ``on_exit`` the return code. ``watcher`` tells when stdout can be read, in place of the loop. All callbacks are
        called on the loop and must not raise.
        Raises what `subprocess.Popen` does: FileNotFoundError (program or ``cwd``), PermissionError,
        NotADirectoryError, other OSError; ValueError (a NUL in an argument, a ``mark`` that is none).
        """
        mark = mark or marks.make_mark("-")
        if marks.parse_mark(mark) is None:
            raise ValueError(f"not a mark: {mark!r}")
        with marks.tagged(mark), open_files.first_limit() as spawning:
            popen = subprocess.Popen(  # noqa: ASYNC220  (vfork: back within a millisecond, and no await to be cancelled in)
                argv,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                close_fds=True,
                pass_fds=pass_fds,
                cwd=cwd,
                env={**env, marks.MARK_VARIABLE: mark},
                start_new_session=True,
            )
        spawning.spawned(popen.pid)
        descendants.MANAGED.add(popen.pid)
        # Nothing is awaited from here on: a cancellation cannot come between the process and its owner.
        self = cls(popen, mark, on_chunk, on_stdout_end, on_stdin_broken, on_stderr_line, on_exit, watcher)
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
        self._stdin.begin()
        self._stdout.begin()
        self._stderr.begin()

    # -- its pipes

    def write(self, data: bytes) -> None:
        """Send ``data`` to stdin, now or as the runner reads; never blocks. A runner that stopped reading is fine."""
        self._stdin.write(data)

    @property
    def stdin_broken(self) -> bool:
        """Whether the runner has closed its stdin before all was sent that was written."""
        return self._stdin.broken

    @property
    def unsent(self) -> int:
        """Bytes that wait for the runner to read its stdin."""
        return self._stdin.unsent

    def close_stdin(self) -> None:
        """End stdin once all that was written has been sent."""
        self._stdin.close()

    def pause_reading(self) -> None:
        """Read no more of stdout until `resume_reading`; the runner blocks once the pipe is full. Idempotent."""
        self._stdout.pause()

    @property
    def reading_paused(self) -> bool:
        """Whether stdout is not read for now: the runner may wait for that."""
        return self._stdout.paused

    def resume_reading(self) -> None:
        """Undo `pause_reading`. Idempotent."""
        self._stdout.resume()

    async def drain_output(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the end of stdout (see `Stdout.drain`); True when it came by itself."""
        return await self._stdout.drain(timeout)

    @property
    def stderr_tail(self) -> str:
        """The last 4 KiB of stderr, for error texts; complete once the exit is known."""
        return self._stderr.tail

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
        self._stderr.read_rest()  # its last words, before anybody asks for them
        self._stdin.drop()
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
        self._tree.signal_group(number)

    async def stop(self, *, grace: float, term_grace: float = 2.0) -> int:
        """Stop the runner and its tree; returns the return code. The caller has written the protocol's stop message.

        ``grace`` seconds for it to end by itself; SIGTERM to its process group; ``term_grace`` seconds; SIGKILL to
        everything that is left. Output goes on being read. A cancellation kills the tree before it is let through.
        """
        try:
            self._tree.members()  # known now, they are known when their parents have ended
            if not await self._exits_within(grace):
                self._tree.members()
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
        if not self._tree.reaped:
            try:
                await self._tree.end()
            finally:
                self._tree_ended = True
                if self.returncode is not None:
                    self._reap()
                descendants.reap_orphans()
        return self._tree.others_ended

    def kill(self) -> bool:
        """One round of `end_tree`, without waiting; True when nothing was left. For when nothing may be awaited."""
        return self._tree.kill()

    def _reap(self) -> None:
        if not self._tree.reaped:
            self._tree.reaped = True
            self._popen.poll()
            descendants.MANAGED.discard(self.pid)

    async def aclose(self) -> None:
        """End the tree if that is still to be done, and let go of everything. Loses output that was not drained."""
        try:
            await self.end_tree()
            await self._exits_within(_KILLED)
        finally:
            self._close_pipes()

    def _close_pipes(self) -> None:
        self._stdin.drop()
        self._stdout.end()
        self._stderr.end()
