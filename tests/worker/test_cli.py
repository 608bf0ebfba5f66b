"""How the worker's command ends where it cannot begin."""

from __future__ import annotations

import pytest
import redis

from agentrq_worker import cli
from agentrq_worker.settings import Settings


def test_cut_off_between_the_probe_and_the_worker(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut_off(*_: object) -> None:
        raise redis.ConnectionError("Broken pipe.")

    monkeypatch.setattr(cli, "Worker", cut_off)
    with pytest.raises(SystemExit) as ended:
        cli.serve(Settings(name="w"), redis_url)
    assert ended.value.code == cli.EXIT_UNREACHABLE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is not reachable" in said
    assert "Broken pipe" in said
