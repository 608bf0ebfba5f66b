"""What one script does in two ways: write_running.lua writes what write_events.lua would have written, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentrq.wire import script_calls, scripts
from agentrq.wire.keys import Keys
from agentrq.wire.owner_calls import EventWrites, Run, WriteLimits, WriteTarget

KEYS = Keys("agentrq")
CLAIM = "0123456789abcdef"
RETENTION_MS, NOW_MS = 60_000, 1_700_000_000_000


class Case(NamedTuple):
    """A session as it stands, its caps, and what is to be written of it."""

    epoch: int
    writers_epoch: int
    claim: str
    status: str
    last: int
    kept: int
    """How many entries the stream has: the newest of the ``last``, then such as are of an earlier epoch."""
    caps: tuple[int, int]
    caps_known: bool
    runs: list[tuple[str, int, list[int]]]
    """Kind, first place as counted from the next one, sizes."""
    fields: dict[str, str]


def _run(kinds: str) -> st.SearchStrategy[tuple[str, int, list[int]]]:
    sizes = st.lists(st.sampled_from([1, 40, 300, 1500]), min_size=1, max_size=6)
    return st.tuples(st.sampled_from(kinds), st.sampled_from([0, 0, 0, -2, -1, 1]), sizes)


# Running sessions that are their writer's own, or all but one thing of that.
WHOLE = st.builds(
    Case,
    epoch=st.sampled_from([1, 2, 12]),
    writers_epoch=st.just(0),
    claim=st.just(CLAIM),
    status=st.just("running"),
    last=st.integers(0, 8),
    kept=st.integers(1, 10),
    caps=st.tuples(st.sampled_from([5, 9, 100]), st.sampled_from([500, 3000, 1 << 30])),
    caps_known=st.just(True),
    runs=st.lists(_run("m"), min_size=1, max_size=1) | st.lists(_run("mgsd"), min_size=1, max_size=3),
    fields=st.just({}),
)
OTHERWISE = st.sampled_from([
    {"writers_epoch": -1}, {"writers_epoch": 1}, {"claim": "another"}, {"status": "idle"}, {"status": "done"},
    {"status": ""}, {"caps_known": False}, {"fields": {"numTurns": "3"}},
])  # fmt: skip
CASES = WHOLE | st.builds(lambda case, other: case._replace(**other), WHOLE, OTHERWISE)


def _make(sid: str, case: Case, raw: redis.Redis) -> tuple[WriteTarget, list[Run]]:
    """Put the session into Redis; returns where and what its writer writes."""
    keys = script_calls.session_keys(KEYS, sid)
    if case.status:
        state: dict[Any, Any] = {
            "epoch": case.epoch, "claim": CLAIM, "status": case.status, "cursor": f"{case.epoch}-{case.last}",
            "streamBytes": 50 * case.kept,
        }  # fmt: skip
        if case.caps_known:
            state |= {"maxEvents": case.caps[0], "maxEventBytes": case.caps[1]}
        raw.hset(keys[0], mapping=state)
        places = [f"{case.epoch}-{seq}" for seq in range(1, case.last + 1)]
        for place in [*(f"0-{seq}" for seq in range(1, case.kept - case.last + 1)), *places][-case.kept :]:
            raw.xadd(keys[1], {"message": b"%50d" % 0}, id=place)
    runs, seq = [], case.last + 1
    for kind, offset, sizes in case.runs:
        jsons = [
            b'{"n":"%d %s"}' % (seq + n, b"x" * size) for n, size in enumerate(sizes[:1] if kind == "g" else sizes)
        ]
        runs.append(Run(kind, seq + offset, jsons))
        seq += 0 if kind == "d" else offset + len(jsons)
    channels = (KEYS.messages_channel(sid), KEYS.status_channel(sid))
    epoch = max(1, case.epoch + case.writers_epoch)
    return WriteTarget(sid, epoch, case.claim, keys, *channels), runs


def _write(raw: redis.Redis, cases: list[Case], *, quick: bool) -> Iterator[Any]:
    """The outcome of each session; then all that Redis holds, and all that was published on each channel.

    ``quick``: by the fast path where an owner may take it, and by the slow one what that leaves.
    """
    raw.flushdb()
    limits = WriteLimits(*cases[0].caps, RETENTION_MS)
    sessions = [_make(f"s{number}", case, raw) for number, case in enumerate(cases)]
    # An owner has written its status before, and the limits with it.
    plain = [quick and case.caps_known and case.caps == cases[0].caps for case in cases]
    said: dict[bytes, list[bytes]] = {}
    with raw.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.psubscribe("*")
        outcomes = ["left"] * len(cases)
        while "left" in outcomes:
            left = [number for number, outcome in enumerate(outcomes) if outcome == "left"]
            writes = EventWrites(limits, NOW_MS)
            for number in left:
                target, runs = sessions[number]
                writes.add(target, cases[number].fields, runs, quick=plain[number])
            answer = raw.eval(scripts.SOURCES["write_events"], len(writes.keys), *writes.keys, *writes.args)
            for number, each in zip(left, writes.read(answer), strict=True):
                outcomes[number] = each.outcome
            yield outcomes.copy()
            plain = [False] * len(cases)
        raw.publish("end", "")
        while (told := pubsub.get_message(timeout=5.0)) is None or told["channel"] != b"end":
            if told is not None:
                said.setdefault(told["channel"], []).append(told["data"])
    held = {
        key: raw.hgetall(key) if raw.type(key) == b"hash" else raw.xinfo_stream(key, full=True)["entries"]
        for key in sorted(raw.keys())
    }
    yield held, said


def test_the_fast_path_writes_what_the_slow_path_writes(raw: redis.Redis) -> None:
    ways = set[str]()
    plain = Case(2, 0, CLAIM, "running", 3, 3, (100, 1 << 30), True, [("m", 0, [5])], {})
    deltas = plain._replace(runs=[("d", 0, [5, 40]), ("d", 0, [1])])

    @settings(max_examples=250)
    @given(st.lists(CASES, min_size=1, max_size=3))
    @example([plain])
    @example([plain._replace(epoch=1)])
    @example([plain._replace(epoch=1), plain._replace(status="idle"), plain])
    @example([plain._replace(caps=(4, 1 << 30)), plain._replace(caps=(3, 1 << 30))])
    @example([deltas, plain, deltas._replace(claim="another")])
    def same(cases: list[Case]) -> None:
        first, *others = _write(raw, cases, quick=True)
        ways.update(first)
        assert [first, *others][-2:] == list(_write(raw, cases, quick=False))

    same()
    assert {"left", "ok"} <= ways
