"""`agentrq gateway` as a process: where it listens, what it says, how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.gateway.gateway_process import running


def refused(*arguments: str, **env: str) -> tuple[int, str]:
    """Exit code and the line of a gateway that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "agentrq", "gateway", "--redis", "redis://127.0.0.1:1", *arguments],
        env=os.environ | env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_a_gateway_serves_and_ends_by_sigterm(redis_url: str) -> None:
    with running(redis_url=redis_url) as (_, address):
        made = httpx.post(f"{address}/sessions", json={"provider": "demo", "prompt": "x"})
        assert made.status_code == 201
        assert httpx.get(address + made.headers["location"]).json()["status"] == "queued"
        assert httpx.get(f"{address}/readyz").status_code == 200


def test_a_gateway_without_a_key_listens_on_loopback_only() -> None:
    code, said = refused("--host", "0.0.0.0")
    assert code == 2
    assert "--key-file" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "70000"), "70000 is not a port"),
        (("--key-file", "/nowhere/key"), "No such file"),
        (("--max-streams", "0"), "use a number above 0"),
        (("--config", "/nowhere"), "No such file"),
        (("--redis", "nonsense"), "not a valid Redis URL"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    code, text = refused(*arguments)
    assert code == 2
    assert said in text


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    code, said = refused("--key-file", str(tmp_path / "key"))
    assert code == 2
    assert "at least 32" in said


def test_a_port_that_is_taken_is_said(redis_url: str, unused_tcp_port: Callable[[], int]) -> None:
    with running(redis_url=redis_url) as (_, address):
        code, said = refused("--port", address.rpartition(":")[2])
    assert code == 5
    assert "in use" in said
