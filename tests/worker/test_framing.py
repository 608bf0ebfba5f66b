"""The framer against a reference that keeps everything, for any bytes and any chunking."""

import tracemalloc
from io import BytesIO
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq_worker.process import framing
from agentrq_worker.process.framing import LineFramer, LineTooLong
from tests.worker.framing_reference import frame, reference

# Mostly the bytes that matter: newlines, white space, the UTF-8 pieces of U+2028 and U+0085.
streams = st.lists(
    st.sampled_from([b"\n", b"\r", b" ", b"\t", b"a", b"{}", b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b", b"x" * 20]),
    max_size=60,
).map(b"".join)


@given(streams, st.integers(1, 30), st.lists(st.integers(0, 300)))
def test_any_chunking_gives_the_lines_of_the_whole(stream: bytes, max_line: int, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(places)]
    assert frame(chunks, max_line) == reference(stream, max_line)


@given(streams, st.integers(1, 30), st.integers(1, 9))
def test_even_chunks_give_the_lines_of_the_whole(stream: bytes, max_line: int, size: int) -> None:
    chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert frame(chunks, max_line) == reference(stream, max_line)


def test_lines_come_with_the_chunk_that_completes_them() -> None:
    framer = LineFramer(100)
    assert framer.feed(b"a\nb") == [b"a\n"]
    assert framer.feed(b"c") == []
    assert framer.feed(b"\n\n \r\nd\r\n") == [b"bc\n", b"d\r\n"]
    assert framer.close() == []
    assert framer.feed(b"again") == []
    assert framer.close() == [b"again"]
    assert framer.close() == []


def test_the_limit_is_exact_and_spares_the_neighbours() -> None:
    framer = LineFramer(3)
    assert framer.feed(b"1\n123\n1234\n2\n") == [b"1\n", b"123\n", LineTooLong(4), b"2\n"]
    assert framer.feed(b"12") == []
    assert framer.feed(b"34567") == []
    assert framer.feed(b"89") == []
    assert framer.feed(b"0\nok\n") == [LineTooLong(10), b"ok\n"]
    assert framer.feed(b"12345") == []
    assert framer.close() == [LineTooLong(5)]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LineFramer(0)


@pytest.mark.parametrize("size", [1, 3, 100, 511, 4096, 65536])
def test_memory_stays_within_the_published_bound(size: int) -> None:
    max_line = 1 << 14 if size < 10 else 1 << 17
    framer = LineFramer(max_line)
    chunk = bytes(b"x" * size)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(max_line // size):
            framer.feed(bytes(bytearray(chunk)))  # a new object each time, as a read gives it
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before <= 1.13 * max_line + 4 * size + 4096  # with the chunk and its copies
        for _ in range(max_line // size + 1):
            framer.feed(bytes(bytearray(chunk)))
        over, _ = tracemalloc.get_traced_memory()
        assert over - before < 16 * 1024
    finally:
        tracemalloc.stop()
    assert framer.feed(b"\n") == [LineTooLong((max_line // size * 2 + 1) * size)]


def test_every_byte_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quadratic way, searching buffer + chunk again, searches more bytes than were fed."""
    looked_at = []

    class Counted(BytesIO):
        def __init__(self, searched: bytes = b"") -> None:
            looked_at.append(len(searched))
            super().__init__(searched)

    monkeypatch.setattr(framing, "BytesIO", Counted)
    framer = LineFramer(1 << 24)
    for _ in range(256):
        assert framer.feed(b"x" * 4096) == []
    assert framer.feed(b"\n") == [b"x" * (256 * 4096) + b"\n"]
    assert sum(looked_at) == 256 * 4096 + 1


@pytest.mark.parametrize("cuts", [[], [1], [30], [45], [10, 44, 46], list(range(1, 60))])
def test_a_line_over_the_limit_keeps_its_head(cuts: list[int]) -> None:
    whole = b'{"type":"result","text":"' + b"x" * 40 + b'"}\n'
    framer = LineFramer(32)
    found: list[bytes | LineTooLong] = []
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found += framer.feed(whole[begin:end])
    (line,) = found
    assert isinstance(line, LineTooLong)
    assert line.head.startswith(b'{"type":"result"')
    assert whole.startswith(line.head)
