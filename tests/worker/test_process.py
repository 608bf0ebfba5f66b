"""Real subprocesses: pipes, exits, the stop ladder, and that nothing of a tree is left, however it hides."""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import psutil
import pytest

from agentrq_worker.process import descendants, kill, marks, open_files, pipes, prctl, procfs
from agentrq_worker.process.pipes import STDERR_LINE
from agentrq_worker.process.runner_process import RunnerProcess
from tests.worker.hidden_children import DAEMON, HIDING, PYTHON, THEN_READ, is_gone, left_over, runs

ENV = {"PATH": os.environ["PATH"]}

IGNORE_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"


class Runner:
    """A RunnerProcess and what it said."""

    def __init__(self) -> None:
        self.output = b""
        self.ends = 0
        self.stderr: list[str] = []
        self.exits: list[int] = []
        self.process: RunnerProcess
        self._news = asyncio.Event()

    def on_chunk(self, data: bytes) -> None:
        self.output += data
        self._news.set()

    def on_end(self) -> None:
        self.ends += 1
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def child(self) -> int:
        await self.until(lambda: b"\n" in self.output)
        return int(self.output)


@asynccontextmanager
async def runner(*argv: str, cwd: str | None = None, env: dict[str, str] | None = None) -> AsyncIterator[Runner]:
    made = Runner()
    made.process = await RunnerProcess.spawn(
        argv,
        env=ENV if env is None else env,
        cwd=cwd,
        mark=marks.make_mark("s"),
        on_chunk=made.on_chunk,
        on_stdout_end=made.on_end,
        on_stderr_line=made.stderr.append,
        on_exit=made.exits.append,
    )
    try:
        async with asyncio.timeout(30):
            yield made
    finally:
        await made.process.aclose()


async def test_a_runner_gets_the_first_limit_of_open_files_however_many_are_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker itself may have more open than that limit allows."""
    raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(open_files, "_first", (100, raised[1]))
    told = (
        "import resource, sys; sys.stdin.readline(); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)"
    )
    with contextlib.ExitStack() as stack:
        for held in (0, 200):
            for _ in range(held):
                stack.callback(os.close, os.dup(0))
            async with runner(*PYTHON, told) as it:
                it.process.write(b"\n")
                assert await it.child() == 100
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    assert prctl.become_subreaper()
    yield
    descendants.reap_orphans()
    assert left_over() == []
    assert not descendants.MANAGED


# -- exit


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill -TERM $$", -15)])
async def test_exit_code(script: str, code: int) -> None:
    async with runner("sh", "-c", script) as r:
        assert await r.process.wait() == code
        assert await r.process.wait() == r.process.returncode == code
        assert r.exits == [code]
        assert await r.process.drain_output(5)
        assert r.ends == 1
        assert await r.process.end_tree() == 0


async def test_exit_code_without_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    async with runner("sh", "-c", "exit 3") as r:
        assert await r.process.wait() == 3


async def test_what_popen_raises_is_raised(tmp_path: str) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        async with runner("/no-such-program"):
            pass
    with pytest.raises(FileNotFoundError, match="no-such-folder"):
        async with runner("true", cwd="/no-such-folder"):
            pass
    with pytest.raises(PermissionError):
        async with runner("/etc/passwd"):
            pass
    with pytest.raises(NotADirectoryError):
        async with runner("true", cwd="/etc/passwd"):
            pass


async def test_a_mark_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a mark"):
        await RunnerProcess.spawn(["true"], env=ENV, mark="m", on_chunk=print, on_stdout_end=print)


async def test_environment_is_exactly_the_given_one_and_the_mark() -> None:
    async with runner("env", env={"PATH": ENV["PATH"], "A": "1"}) as r:
        await r.process.wait()
        await r.process.drain_output(5)
        assert {line for line in r.output.decode().splitlines() if not line.startswith("PATH=")} == {
            "A=1",
            f"AGENTRQ_RUNNER_MARK={r.process.mark}",
        }


async def test_failure_after_the_spawn_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def fail(self: RunnerProcess) -> None:
        pids.append(self.pid)
        raise asyncio.CancelledError

    monkeypatch.setattr(RunnerProcess, "_watch_exit", fail)
    with pytest.raises(asyncio.CancelledError):
        async with runner("sleep", "1000"):
            pass
    assert is_gone(pids[0])


async def test_cancelled_spawn_leaves_nothing() -> None:
    """Cancelled before its first step a spawn does nothing, and after it there is nothing left to cancel."""
    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(
                RunnerProcess.spawn(["sleep", "1000"], env=ENV, on_chunk=print, on_stdout_end=print)
            )
            task.cancel()
        assert task.cancelled()
    assert left_over() == []


# -- stdout


async def test_a_line_of_a_megabyte() -> None:
    async with runner(*PYTHON, "print('x' * 1_000_000)") as r:
        await r.until(lambda: r.ends)
        assert r.output == b"x" * 1_000_000 + b"\n"
        assert await r.process.wait() == 0


async def test_what_takes_long_to_take_in_is_read_in_smaller_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "_TURN_S", 0.0)  # everything takes too long
    async with runner("sh", "-c", "head -c 300000 /dev/zero") as r:
        sizes: list[int] = []

        def take(chunk: bytes) -> None:
            sizes.append(len(chunk))
            r.on_chunk(chunk)

        monkeypatch.setattr(r.process._stdout, "_on_chunk", take)
        await r.until(lambda: r.ends)
        assert len(r.output) == 300_000
        assert max(sizes[1:]) == 1024


async def test_pausing_holds_the_runner_and_loses_nothing() -> None:
    async with runner(*PYTHON, "import sys; sys.stdin.read(1); sys.stdout.write('x' * 3_000_000)") as r:
        r.process.pause_reading()
        r.process.pause_reading()
        r.process.write(b"g")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await r.process.wait()
        assert r.output == b""
        r.process.resume_reading()
        r.process.resume_reading()
        await r.until(lambda: r.ends)
        assert len(r.output) == 3_000_000


async def test_draining_waits_while_we_ourselves_do_not_read() -> None:
    async with runner(*PYTHON, "import sys; sys.stdin.read(1); sys.stdout.write('x' * 60_000)") as r:
        r.process.pause_reading()
        r.process.write(b"g")
        assert await r.process.wait() == 0
        async with asyncio.TaskGroup() as group:
            draining = group.create_task(r.process.drain_output(0.01))
            done, _ = await asyncio.wait([draining], timeout=0.2)
            assert not done
            r.process.resume_reading()
        assert draining.result() is True
        assert len(r.output) == 60_000


async def test_a_grandchild_holding_stdout_holds_up_nothing() -> None:
    async with runner("sh", "-c", "echo said; sleep 1000 & exit 4") as r:
        assert await r.process.wait() == 4
        assert await r.process.drain_output(0.05) is False
        assert (r.output, r.ends) == (b"said\n", 1)
        assert await r.process.end_tree() == 1
        assert await r.process.drain_output(5) is True
        assert r.ends == 1


async def test_ending_the_tree_first_ends_stdout() -> None:
    async with runner("sh", "-c", "sleep 1000 & exit 0") as r:
        await r.process.wait()
        assert await r.process.end_tree() == 1
        assert await r.process.drain_output(20) is True


# -- stderr


async def test_unread_stderr_flood_stops_nothing() -> None:
    async with runner("sh", "-c", "yes 0123456789 | head -c 5000000 >&2; echo done") as r:
        assert await r.process.wait() == 0
        await r.until(lambda: r.ends)
        assert r.output == b"done\n"
        assert len(r.stderr) > 400_000
        assert set(r.stderr[:-1]) == {"0123456789"}


async def test_stderr_lines_are_bounded_and_the_tail_is_kept() -> None:
    script = r"import os; os.write(2, b'a\n\n\xff' + b'x' * 300_000 + b'\nlast words')"
    async with runner(*PYTHON, script) as r:
        await r.process.wait()
        assert r.process.stderr_tail.endswith("xx\nlast words")
        assert len(r.process.stderr_tail) == 4096
        await r.process.aclose()
        assert [line[:3] for line in r.stderr] == ["a", "\ufffdxx", "las"]
        assert len(r.stderr[1]) == STDERR_LINE


# -- stdin


async def test_stdin_reaches_the_runner_and_ends() -> None:
    async with runner("cat") as r:
        big = os.urandom(3_000_000)
        r.process.write(b"a")
        r.process.write(big)
        r.process.write(b"z")
        r.process.close_stdin()
        r.process.write(b"not sent")
        await r.until(lambda: r.ends)
        assert r.output == b"a" + big + b"z"
        assert r.process.unsent == 0
        assert await r.process.wait() == 0


async def test_writing_to_one_that_does_not_read_does_not_block() -> None:
    async with runner("sh", "-c", "echo up; exec sleep 1000") as r:
        await r.until(lambda: r.output)
        for _ in range(50):
            r.process.write(b"x" * 100_000)
        assert r.process.returncode is None
        assert 4_000_000 < r.process.unsent < 5_000_000  # the rest is in its pipe
        assert await r.process.stop(grace=0) == -signal.SIGTERM
        r.process.write(b"too late")
        r.process.close_stdin()


async def test_broken_pipe_is_no_error() -> None:
    async with runner(*PYTHON, "import os, time; os.close(0); print('closed', flush=True); time.sleep(1000)") as r:
        await r.until(lambda: r.output)
        r.process.write(b"x" * 1_000_000)
        r.process.write(b"x")
        assert r.process.returncode is None


# -- the ladder


async def test_stop_lets_one_that_obeys_end_by_itself() -> None:
    async with runner("sh", "-c", "read line; echo got $line; exit 7") as r:
        r.process.write(b"stop\n")
        assert await r.process.stop(grace=20) == 7
        await r.process.drain_output(5)
        assert r.output == b"got stop\n"


async def test_stop_by_term_reaches_the_group() -> None:
    async with runner("sh", "-c", "trap 'exit 9' TERM; sleep 1000 & echo $!; wait") as r:
        child = await r.child()
        assert await r.process.stop(grace=0.01, term_grace=20) == 9
        assert is_gone(child)


async def test_stop_kills_one_that_ignores_term() -> None:
    async with runner("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done") as r:
        await r.until(lambda: r.output)
        assert await r.process.stop(grace=0.01, term_grace=0.05) == -signal.SIGKILL


async def test_stop_kills_one_that_is_frozen() -> None:
    async with runner("sh", "-c", "kill -STOP $$") as r:
        assert await r.process.stop(grace=0.01, term_grace=0.05) == -signal.SIGKILL


@pytest.mark.parametrize("grace", [100, 0])
async def test_cancelled_stop_leaves_nothing(grace: float) -> None:
    async with runner(*PYTHON, IGNORE_TERM + DAEMON + THEN_READ, "setsid,stdio,env,fork") as r:
        child = await r.child()
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(r.process.stop(grace=grace, term_grace=100))
            await asyncio.wait([stopping], timeout=0.05)  # the runner ignores SIGTERM: it is in the grace meant
            stopping.cancel()
        assert stopping.cancelled()
        assert is_gone(r.process.pid)
        assert is_gone(child)


async def test_close_ends_a_running_tree() -> None:
    async with runner(*PYTHON, DAEMON + THEN_READ, "setsid,stdio") as r:
        child = await r.child()
    assert r.process.returncode == -signal.SIGKILL
    assert is_gone(child)
    await r.process.aclose()


# -- the tree


@pytest.mark.parametrize("hides", HIDING)
async def test_end_tree_finds_what_hides_after_the_leaders_end(hides: str) -> None:
    async with runner(*PYTHON, DAEMON, hides) as r, runner(*PYTHON, DAEMON + THEN_READ, hides) as other:
        child, others = await r.child(), await other.child()
        assert await r.process.wait() == 0
        assert runs(child)
        assert await r.process.end_tree() == 1
        assert not runs(child)
        assert runs(others)
        assert other.process.returncode is None
        assert await r.process.end_tree() == 1


@pytest.mark.parametrize("hides", [*HIDING, "stdio,setsid,env,limit"])  # the last by descent alone
async def test_stop_ends_what_hides(hides: str) -> None:
    async with runner(*PYTHON, DAEMON + THEN_READ, hides) as r:
        child = await r.child()
        await r.process.stop(grace=0, term_grace=5)
        assert not runs(child)


async def test_children_of_children_end_with_the_runner() -> None:
    script = "setsid sh -c 'setsid sh -c \"sleep 1000 & echo up; wait\"; :'; :"
    async with runner("sh", "-c", script) as r:
        await r.until(lambda: r.output)
        tree = [p.pid for p in psutil.Process(r.process.pid).children(recursive=True)]
        assert len(tree) == 3
        assert await r.process.end_tree() == 3
        assert all(is_gone(pid) for pid in tree)


async def test_a_tree_that_forks_all_the_time_is_ended() -> None:
    """Each process starts its successor in a new session and exits: no look at the table sees the next one."""
    script = """
import os
for _ in range(3):
    if os.fork() == 0:
        while True:
            if os.fork() == 0:
                os.setsid()
            else:
                os._exit(0)
print("up", flush=True)
import time
time.sleep(1000)
"""
    async with runner(*PYTHON, script) as r:
        await r.until(lambda: r.output)
        assert await r.process.end_tree() >= 3
        assert await r.process.wait() == -signal.SIGKILL


async def test_end_tree_works_without_a_subreaper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prctl, "_is_subreaper", False)
    async with runner(*PYTHON, DAEMON, "stdio,setsid,fork,env") as r:
        child = await r.child()
        await r.process.wait()
        assert await r.process.end_tree() == 1
        assert is_gone(child)


async def test_without_proc_the_group_still_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "AVAILABLE", False)
    monkeypatch.setattr(descendants, "candidates", lambda *_: {})
    async with runner("sh", "-c", "sleep 1000 & echo $!; exit 0") as r:
        child = await r.child()
        await r.process.wait()
        await r.process.end_tree()
        assert is_gone(child)


async def test_strays_are_reaped_and_other_children_are_not() -> None:
    own = await asyncio.create_subprocess_exec("sh", "-c", "exit 5")
    async with runner("sh", "-c", "(setsid sh -c 'echo $$; read line' <&3 &) 3<&0; exec cat") as r:
        stray = await r.child()
        r.process.write(b"\n")
        os.kill(stray, signal.SIGKILL)
        assert is_gone(stray)
        async with asyncio.timeout(10):
            assert await own.wait() == 5
        while os.path.exists(f"/proc/{stray}"):  # a zombie of its own parent's until that has ended
            descendants.reap_orphans()
        assert r.process.returncode is None


# -- proc


def test_marks_are_unique_and_say_whose_they_are() -> None:
    mark = marks.make_mark("s-1")
    parsed = marks.parse_mark(mark)
    assert parsed
    assert parsed.worker == (os.getpid(), procfs.starttime(os.getpid()))
    assert parsed.session_id == "s-1"
    other = marks.make_mark("s-1")
    assert mark != other
    assert marks.tag_of(mark) != marks.tag_of(other)
    assert marks.tag_of(mark) >> 32 == marks.tag_of(other) >> 32 == marks.worker_tag(parsed.worker)
    assert [marks.parse_mark(text) for text in ("", "1.2.3", "1.2:s", "a.2.3:s", "1.2.3.4:s", ":")] == [None] * 6


def test_a_signal_never_hits_a_later_process_of_the_same_pid() -> None:
    me = procfs.read_stat(os.getpid())
    assert me
    assert kill.send_signal(me._replace(starttime=me.starttime - 1), signal.SIGKILL) is False
    assert kill.send_signal(me, 0) is True
    assert not procfs.is_gone(me.ident)
    assert procfs.is_gone((me.pid, me.starttime - 1))


def test_the_stat_of_a_process_with_an_odd_name(tmp_path: os.PathLike[str]) -> None:
    stat = procfs.read_stat(os.getpid())
    assert stat
    assert (stat.ppid, stat.session, stat.alive) == (os.getppid(), os.getsid(0), True)
    assert procfs.read_stat(1 << 22) is None
    assert procfs.snapshot()[os.getpid()].ident == stat.ident


def test_kin_never_includes_this_process_or_its_session() -> None:
    assert descendants.with_relatives(procfs.snapshot(), lambda process: process.pid == os.getpid()) == []
