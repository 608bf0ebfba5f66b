"""Ended sessions are copied to a file, and from it into another server or prefix, without losing a byte or a cursor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from agentrq import AsyncAgentClient, SessionEnded
from agentrq.embedded.server_process import ServerProcess
from tests.producer.command_line import run_cli
from tests.sessions import until
from tests.workers import Worker

Start = Callable[..., Worker]


@pytest.fixture
async def exported(client: AsyncAgentClient, start_worker: Start, redis_url: str, tmp_path: Path) -> Path:
    """A file with two ended sessions, `one` with a receipt, `two` with 600 events and text of many languages."""
    start_worker()
    one = await client.start("demo", "/echo grüße, 你好, \u2028", session_id="one", metadata={"k": "v"})
    idle = await until(one, "idle")
    await one.prompt("/echo again", command_id="c1", wait=True)
    await until(one, "idle", idle)
    await one.stop()
    two = await client.start("demo", "/lines 600", session_id="two", max_turns=1)
    await until(one, "done")
    await until(two, "done")
    done = run_cli("export", "one", "two", url=redis_url)
    assert (done.returncode, done.stderr) == (0, "")
    file = tmp_path / "sessions.ndjson"
    file.write_text(done.stdout)
    return file


def stream_of(client: redis.Redis, key: str) -> Any:
    """A stream's entries, byte for byte."""
    return client.xrange(key)


async def test_a_session_is_the_same_on_another_server_under_another_prefix(
    exported: Path, raw: redis.Redis, tmp_path: Path
) -> None:
    with ServerProcess(tmp_path / "other") as other:
        done = run_cli("import", str(exported), url=other.url, AGENTRQ_PREFIX="copy", AGENTRQ_RETENTION_S="100")
        assert (done.returncode, done.stdout, done.stderr) == (0, "one\ntwo\n", "")
        with redis.Redis.from_url(other.url) as there:
            for sid in ("one", "two"):
                assert stream_of(there, f"copy:{{{sid}}}:events") == stream_of(raw, f"agentrq:{{{sid}}}:events")
                assert there.hgetall(f"copy:{{{sid}}}:commands") == raw.hgetall(f"agentrq:{{{sid}}}:commands")
                before, after = raw.hgetall(f"agentrq:{{{sid}}}:state"), there.hgetall(f"copy:{{{sid}}}:state")
                assert before.pop(b"nonce") != after.pop(b"nonce")
                for name in (b"token", b"claim", b"jobId", b"jobCreatedAt", b"stop"):
                    before.pop(name, None)
                assert after == before
                assert 0 < there.pttl(f"copy:{{{sid}}}:state") <= 100_000
            assert not there.keys("*import*")
        listed = run_cli("list", "--json", url=other.url, AGENTRQ_PREFIX="copy").stdout.splitlines()
        assert {json.loads(line)["sessionId"] for line in listed} == {"one", "two"}
        shown = run_cli("attach", "one", "--json", url=other.url, AGENTRQ_PREFIX="copy")
        assert "grüße, 你好, \u2028" in shown.stdout
        again = run_cli("export", "one", "two", url=other.url, AGENTRQ_PREFIX="copy").stdout
        assert again == exported.read_text()


async def test_an_imported_session_is_one_that_has_ended(
    client: AsyncAgentClient, exported: Path, redis_url: str
) -> None:
    session = client.session("one")
    receipt, cursor = await session.receipt("c1"), (await session.state()).cursor
    await session.remove()
    assert run_cli("import", "--skip", str(exported), url=redis_url).stdout == "one\n"
    assert await session.receipt("c1") == receipt
    assert (await session.state()).cursor == cursor
    assert [event async for event in session.events(cursor)] == []
    with pytest.raises(SessionEnded):
        await session.prompt("go on")
    await session.remove()
    later = await client.start("demo", "/echo new", session_id="one")
    assert (await later.state()).epoch > int(cursor.partition("-")[0])  # nothing of the old life touches the new one


async def test_a_session_that_lives_is_refused_both_ways(
    client: AsyncAgentClient, exported: Path, redis_url: str, tmp_path: Path
) -> None:
    living = await client.start("demo", "/echo hi", session_id="living")
    await until(living, "idle")
    done = run_cli("export", "living", url=redis_url)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == "agentrq: Session living has not ended (idle): agentrq stop living\n"
    everything = run_cli("export", "--all", url=redis_url)
    assert everything.returncode == 0
    assert everything.stdout.count('"agentrq":"session"') == 2
    assert everything.stderr.startswith("agentrq: left out: Session living has not ended")
    changed = tmp_path / "changed"
    changed.write_text(exported.read_text().replace('"status":"done"', '"status":"idle"').replace('"one"', '"other"'))
    done = run_cli("import", str(changed), url=redis_url)
    assert done.returncode == 2
    assert done.stderr == f"agentrq: {changed}: line 1: session other has not ended (idle)\n"


async def test_an_id_that_is_there_is_refused_and_stays_as_it_is(
    client: AsyncAgentClient, exported: Path, raw: redis.Redis, redis_url: str
) -> None:
    before = raw.hgetall("agentrq:{one}:state")
    done = run_cli("import", str(exported), url=redis_url)
    assert done.returncode == 5
    assert "one" in done.stderr
    assert done.stderr.count("\n") == 1
    assert raw.hgetall("agentrq:{one}:state") == before
    assert run_cli("import", "--skip", str(exported), url=redis_url).returncode == 0


def cut(text: str) -> str:
    return "\n".join(text.split("\n")[:-3]) + "\n"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut, "the file ends before session two does"),
        (lambda text: text.replace('"cursor":"1-3"', '"cursor":"1-2"', 1), "not the next event of its session"),
        (lambda text: text.replace('"kind":"message"', '"kind":"massage"', 1), "not the next event of its session"),
        (lambda text: text.replace('"version":1', '"version":2', 1), "not the first line of a session of version 1"),
        (lambda text: text.replace('"sessionId":"one"', '"sessionId":"../one"', 1), "line 1: "),
        (lambda text: "what\n" + text, "line 1: "),
        (lambda text: text.replace('"events":', '"events":1', 1), "not what its last line says"),
    ],
    ids=["cut", "cursor twice", "unknown kind", "version", "bad id", "no JSON", "wrong count"],
)
async def test_a_file_that_is_spoilt_is_one_line_and_leaves_nothing_behind(
    client: AsyncAgentClient, exported: Path, raw: redis.Redis, redis_url: str, tmp_path: Path, spoil: Any, says: str
) -> None:
    for sid in ("one", "two"):
        await client.session(sid).remove()
    spoilt = tmp_path / "spoilt"
    spoilt.write_text(spoil(exported.read_text()))
    done = run_cli("import", str(spoilt), url=redis_url)
    assert done.returncode == 2, done
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not raw.keys("agentrq:*:import:*")
    there = {state.session_id for state in await client.states()}
    assert there == set(done.stdout.split())
    assert "two" not in there


def test_a_file_that_is_not_there_is_one_line(redis_url: str) -> None:
    done = run_cli("import", "/no/such/file", url=redis_url)
    assert (done.returncode, done.stderr) == (2, "agentrq: /no/such/file: No such file or directory\n")
