"""Figure 1: a runner's line to the JSON of its messages, in one process.

Ours is the protocol and the event log that a session has; the peers decode to dicts, build dicts and encode, with json
and with orjson. All three refuse bytes that are not UTF-8.
"""

from __future__ import annotations

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from agentrq.wire.commands import Options
from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.claude.parser import ClaudeParser
from agentrq_worker.providers.registry import make_protocol
from agentrq_worker.redis_clock import RedisClock
from agentrq_worker.stream.buffer_budget import BufferBudget
from agentrq_worker.stream.event_log import EventLog
from benchmarks import corpus
from benchmarks.peers.dict_code import Normaliser
from benchmarks.report import Row, at_least, told, us

FIGURES: Final = (1,)
_CORPORA: Final[dict[str, tuple[Callable[[int], bytes], int]]] = {
    "delta": (corpus.delta, 2000),
    "text 2 KB": (lambda number: corpus.text(number, 2000), 1000),
    "tool result 10 KB": (lambda number: corpus.tool_result(number, 10_000), 300),
    "tool result 100 KB": (lambda number: corpus.tool_result(number, 100_000), 60),
    "tool result 1 MB": (lambda number: corpus.tool_result(number, 1_000_000), 8),
}
_ALONE: Final = frozenset({"delta", "text 2 KB"})
"""The corpora that are not of tools' results."""
_CLOSE: Final = ("text 2 KB", "json")
"""What has no goal: more than half of the time that json leaves goes into decoding and checking alone."""


class _Way(Protocol):
    def lines(self, lines: list[bytes]) -> None: ...
    def take(self) -> list[bytes]: ...


class _Product:
    """A session's protocol and event log, without the session."""

    def __init__(self) -> None:
        shares = BufferBudget(1 << 40, 0, Path(tempfile.gettempdir()))
        self._protocol = make_protocol("runner", "s", Options(), "claude", SessionTotal(), 1)
        self._protocol.receive(b'{"type":"ready"}')  # from here on it brings messages only
        state = {"claim": "mine"}
        self._lane = EventLog(Keys("agentrq"), "s", Cursor(1, 0), state, shares, lambda _: None, RedisClock())

    def lines(self, lines: list[bytes]) -> None:
        receive = self._protocol.receive
        drafts: list[Any] = []
        for line in lines:
            drafts += receive(line)
        self._lane.add_messages(drafts)

    def take(self) -> list[bytes]:
        found = [json for entry in self._lane.waiting.peek(1 << 30, 1 << 60) for json in entry.jsons]
        self._lane.waiting.clear()
        return found


class _Peer:
    def __init__(self, loads: Callable[[bytes], Any], dumps: Callable[[Any], bytes]) -> None:
        self._line = Normaliser("s", loads, dumps).line
        self._found: list[bytes] = []

    def lines(self, lines: list[bytes]) -> None:
        line, found = self._line, self._found
        for each in lines:
            for _, message in line(each):
                found.append(message)

    def take(self) -> list[bytes]:
        found, self._found = self._found, []
        return found


def _numbered(lines: list[bytes], number: int) -> list[bytes]:
    """The lines with ids of their own."""
    return [line.replace(corpus.MARK.encode(), b"%08d" % number) for line in lines]


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _say_the_same(ways: Mapping[str, _Way], lines: list[bytes]) -> None:
    """All ways have to bring the same messages, else the times compare nothing."""
    said: list[list[Any]] = []
    for way in ways.values():
        way.lines(lines)
        messages = [json.loads(message) for message in way.take()]
        said.append([(message["type"], message["content"]) for message in messages])
    assert said[0] == said[1] == said[2] != [], "product and peers say different things"


def _least(lines: list[bytes]) -> float:
    """The floor: CPU time of a line that is decoded to the parser's types, and checked to be UTF-8, and no more."""
    decode = ClaudeParser._decoder.decode
    began = time.process_time()
    for line in lines:
        if not line.isascii():
            str(line, "utf-8")
        decode(line)
    return (time.process_time() - began) / len(lines)


def _timed(way: _Way, before: list[bytes], lines: list[bytes]) -> float:
    """CPU time a line, those ``before`` not counted. In pieces of about a read: nobody pays for holding all at once."""
    at_once, spent = max(1, 65536 // len(lines[0])), 0.0
    way.lines(before)
    way.take()
    gc.collect()
    for at in range(0, len(lines), at_once):
        part = lines[at : at + at_once]
        began = time.process_time()
        way.lines(part)
        spent += time.process_time() - began
        assert len(way.take()) >= len(part)  # a delta of another message abandons the text before it
    return spent / len(lines)


def run(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    rounds = 3 if quick else 9
    for name, (make, count) in _CORPORA.items():
        ways: dict[str, _Way] = {
            "agentrq": _Product(),
            "json": _Peer(json.loads, _dumps),
            "orjson": _Peer(orjson.loads, orjson.dumps),
        }
        sample = [make(number).strip() for number in range(count)]
        # No agent tells the result of a tool that it has not called.
        calls = [corpus.tool_call(number).strip() for number in range(count)] if name not in _ALONE else []
        _say_the_same(ways, _numbered(calls[:50] + sample[:50], 0))
        times: dict[str, list[float]] = {way: [] for way in (*ways, "least")}
        for number in range(1, rounds + 1):
            before, lines = _numbered(calls, number), _numbered(sample, number)
            for way, path in ways.items():
                times[way].append(_timed(path, before, lines))
            times["least"].append(_least(lines))
        ours = statistics.median(times["agentrq"])
        least = statistics.median(times["least"])
        for peer, goal in (("json", 4.5), ("orjson", 1.5)):
            theirs = statistics.median(times[peer])
            row = f"{name}, a line, against {peer}", us(theirs), us(ours)
            if (name, peer) == _CLOSE:
                rows.append(told(1, *row, f"{theirs / ours:.3g}× (limit {theirs / least:.3g}×)"))
            else:
                rows.append(at_least(1, *row, theirs / ours, goal))
        most = statistics.median(times["json"]) / least
        rows.append(told(1, f"{name}, decoded and checked alone", us(least), us(ours),
                         f"{ours / least:.3g}× (json {most:.3g}×)"))  # fmt: skip
    return rows, []
