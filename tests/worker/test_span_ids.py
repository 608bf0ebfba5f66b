"""Public ids of calls and requests that agents number themselves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentrq_worker.providers.span_ids import SpanIds

# Names made to collide: with each other, with an epoch's prefix, with the suffix of a name used again.
NAMES = st.sampled_from(["Read:0", "1", "1.1", "2.1", "2.Read:0", "1~2", "1~2~2", "", "~2", "2.", "1."])


def test_an_id_used_once_is_kept_and_used_again_gets_another() -> None:
    ids = SpanIds()
    assert ids.open("Read:0", "Read:0") == "Read:0"
    assert ids.open("Read:0", "Read:0") == "Read:0"  # still open
    assert ids.close("Read:0") == "Read:0"
    assert ids.public("Read:0") is None
    assert ids.open("Read:0", "Read:0") == "Read:0~2"
    assert list(ids) == ["Read:0~2"]
    assert ids.close_public("Read:0~2")
    assert not ids.close_public("Read:0~2")
    assert ids.open("Read:0", "Read:0") == "Read:0~3"


def test_a_number_and_a_text_of_the_same_digits_are_two() -> None:
    ids = SpanIds()
    assert ids.open(b"1", "1") != ids.open(b'"1"', "1")


def test_a_later_owner_never_gives_an_id_of_an_earlier_one() -> None:
    assert SpanIds(2).open("1", "1") == "2.1"
    assert SpanIds(1).open("2.1", "2.1") == "1.2.1"


@given(st.lists(st.lists(NAMES, max_size=12), max_size=4))
def test_no_public_id_is_given_twice_in_a_session(epochs: list[list[str]]) -> None:
    given_ids = []
    for epoch, names in enumerate(epochs, 1):
        ids = SpanIds(epoch)
        for name in names:
            given_ids.append(ids.open(name, name))
            ids.close(name)
    assert len(set(given_ids)) == len(given_ids)


@given(st.integers(1, 2), st.lists(NAMES, max_size=12))
def test_the_latest_of_a_name_is_the_one_opened_last(epoch: int, names: list[str]) -> None:
    ids = SpanIds(epoch)
    for name in names:
        opened = ids.open(name, name)
        assert ids.latest(name) == opened
        ids.close(name)
        assert ids.latest(name) == opened
    assert ids.latest("never") is None
