"""How many files a worker may have open: as many as its sessions take."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

import pytest

from tests.workers import Worker


@pytest.fixture
def few_files() -> Iterator[None]:
    """What this process starts meanwhile may open no more than 256 files, unless it raises that itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
def test_the_soft_limit_is_raised_to_what_the_sessions_take(start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("--max-sessions", "300")
    assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)[0] == 256 + 5 * 300


def test_a_hard_limit_that_is_too_low_is_logged(start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("--max-sessions", str(2**31))
    worker.wait_log(r"max_sessions 2147483648 needs some 10737418496 open files, the limit is \d+")
