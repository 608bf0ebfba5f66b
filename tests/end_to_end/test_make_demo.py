"""The README's first command, by what it runs."""

import subprocess
import sys
from pathlib import Path

from tests.producer.test_cli_base import environment


def test_the_demo_shows_a_session_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agentrq_worker.demo"], cwd=tmp_path, env=environment(AGENTRQ_DATA_DIR=str(tmp_path)),
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stdout + done.stderr) == (0, False), done.stdout + done.stderr
    assert "done (stopped)" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("Worker and Valkey have ended.")
