"""Any arguments: a documented exit code and at most lines of text, never a traceback."""

from __future__ import annotations

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrq.cli import _run
from agentrq.cli.loading import COMMANDS

WORDS = st.sampled_from([
    *(name for name in COMMANDS if name not in ("up", "worker")), "--json", "--help", "--after", "--option",
    "--session-id", "--cwd", "1-1", "x=y", "maxTurns=0", "maxTurns=1e400", "allow", "--", "-", "", "demo", "\0",
    "\ud800", "a/b",
    "--redis", "unix:///no/such.sock", "redis://", "ftp://x:secret-pw@y", "redis://u:secret-pw@[::1", "--prefix", "*",
])  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS | st.text(max_size=6), max_size=6))
def test_arguments(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("AGENTRQ_REDIS_URL", "unix:///no/such.sock")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code = _run([argument.encode("utf-8", "replace").decode() for argument in arguments])
    assert code in (0, 1, 2, 3, 4, 5)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    urls = [at for at, argument in enumerate(arguments) if "secret-pw" in argument]
    if all(at > 0 and arguments[at - 1] == "--redis" for at in urls):  # elsewhere it is no URL of ours
        assert "secret-pw" not in said.err + said.out
