"""The README's first command, by what it runs."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.producer.command_line import environment


def processes_of(directory: Path, but: int) -> list[str]:
    """The command lines of living processes that know the directory, except process ``but``."""
    found = []
    for process in psutil.process_iter():
        try:
            known = [*process.cmdline(), *process.environ().values(), process.cwd()]
            if process.pid != but and any(str(directory) in value for value in known):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:  # it has just ended
            continue
    return found


def test_the_demo_shows_a_session_and_has_ended_all_when_it_says_so(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    shown: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "agentrq_worker.demo"], cwd=tmp_path, text=True,
        env=environment(AGENTRQ_DATA_DIR=str(tmp_path), TMPDIR=str(temporary)),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as demo:  # fmt: skip
        assert demo.stdout
        for line in demo.stdout:
            shown.append(line)
            if "have ended" in line:
                assert processes_of(temporary, but=demo.pid) == []
    text = "".join(shown)
    assert (demo.returncode, "Traceback" in text) == (0, False), text
    assert "done (stopped)" in text
    assert shown[-1].startswith("Worker and Valkey have ended.")
