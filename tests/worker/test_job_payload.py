"""What is seen of a job's data before it is read; what of its records is too long for one command."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq_worker.rq import job_payload
from agentrq_worker.rq.fenced_pipeline import MOST_WORDS, split_command
from agentrq_worker.rq.job_payload import MOST_PARTS, has_too_many_parts

TEXTS = st.text(st.sampled_from('a",[{\\\n'), max_size=20)
VALUES = st.recursive(
    st.integers() | TEXTS | st.none(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=30,
)


def parts(value: Any) -> int:
    """Brackets and commas outside of texts."""
    if isinstance(value, list):
        return 1 + max(len(value) - 1, 0) + sum(map(parts, value))
    if isinstance(value, dict):
        return 1 + max(len(value) - 1, 0) + sum(map(parts, value.values()))
    return 0


@given(VALUES, st.integers(0, 10))
def test_parts_are_counted_outside_of_texts(value: Any, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_payload, "MOST_PARTS", most)
        data = json.dumps(value).encode()
        found = has_too_many_parts(data)
        if parts(value) > most:
            assert found
        elif data.count(b'"') <= 2 * most:
            assert not found


@pytest.mark.parametrize(
    ("data", "too_many"),
    [
        (b'["agentrq.prompt",null,["s","' + b"1,[{" * 2_000_000 + b'"],{}]', False),
        (b'["agentrq.prompt",null,["s","' + rb"\"," * 2_000_000 + b'"],{}]', False),
        (b"[" + b"{}," * (MOST_PARTS + 1), True),
        (b"[" + b'"a",' * (MOST_PARTS + 1), True),
        (b'"' + b"," * (MOST_PARTS + 1), True),  # no JSON: it is not taken for a text
    ],
    ids=["a long text", "a long text with quotes", "objects", "texts", "no end"],
)
def test_what_is_too_many(data: bytes, too_many: bool) -> None:
    assert has_too_many_parts(data) is too_many


@pytest.mark.parametrize("count", [1, MOST_WORDS, MOST_WORDS + 1, 9000])
@pytest.mark.parametrize("name", ["SADD", "SREM", "ZREM"])
def test_a_command_of_many_words_is_several(name: str, count: int) -> None:
    members = [f"m{number}" for number in range(count)]
    parts = split_command((name, "key", *members))
    assert [word for part in parts for word in part[2:]] == members
    assert {part[:2] for part in parts} == {(name, "key")}
    assert max(map(len, parts)) <= MOST_WORDS + 2


def test_other_commands_stay_whole() -> None:
    keys = [f"k{number}" for number in range(9000)]
    assert [key for part in split_command(("DEL", *keys)) for key in part[1:]] == keys
    assert split_command(("PERSIST", "key")) == [("PERSIST", "key")]
    assert split_command(("HSET", "key", *keys)) == [("HSET", "key", *keys)]
