"""What is read of a job's hash, whatever it holds."""

from __future__ import annotations

import zlib

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from agentrq_worker.rq import job
from agentrq_worker.rq.job import TooLarge, read_data, read_job

KEY = "rq:job:j"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "LARGEST", 4096)
    monkeypatch.setattr(job, "_PIECE", 100)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["packed", "by hand"])
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 3000, 4000])
def test_what_can_be_kept(raw: redis.Redis, kind: str, size: int) -> None:
    data = b"[]" + b" " * size
    raw.hset(KEY, "data", zlib.compress(data) if kind == "packed" else data)
    assert read_data(raw, KEY) == data
    assert read_job(raw, KEY)[b"data"] == raw.hget(KEY, "data")


@pytest.mark.usefixtures("small")
def test_what_is_too_large(raw: redis.Redis) -> None:
    for data in (zlib.compress(b" " * 5000), zlib.compress(b" " * 5_000_000), b" " * 5000):
        raw.hset(KEY, "data", data)
        assert read_data(raw, KEY) == b""
        with pytest.raises(TooLarge):
            read_job(raw, KEY)


def test_what_is_none(raw: redis.Redis) -> None:
    assert read_data(raw, KEY) == b""
    raw.hset(KEY, "status", "queued")
    assert read_data(raw, KEY) == b""
    raw.delete(KEY)
    raw.set(KEY, "data")
    assert read_data(raw, KEY) == b""


@given(st.binary(max_size=2000), st.integers(0, 200), st.integers(0, 3))
def test_how_large_it_unpacks_is_known_without_unpacking_it_whole(data: bytes, repeat: int, cut: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "LARGEST", 4096)
        patch.setattr(job, "_PIECE", 64)
        packed = zlib.compress(data * repeat)
        assert job._is_too_large(packed) is (len(data) * repeat > 4096)
        job._is_too_large(packed[: len(packed) - cut])  # cut short: whatever it says, it ends
