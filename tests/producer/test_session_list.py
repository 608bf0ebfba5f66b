"""Lists of sessions, page by page and filtered, through both clients."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from agentrq import AgentClient, AsyncAgentClient, InvalidOption, SessionPage
from agentrq.client import session_list
from tests.producer.command_line import only_line, run_cli
from tests.producer.session_writer import KEYS, Writer


@pytest.fixture
def sync_client(redis_url: str) -> Iterator[AgentClient]:
    with AgentClient.from_url(redis_url) as client:
        yield client


def walked(client: AgentClient, limit: int, **wanted: Any) -> list[str]:
    """The ids of all pages together."""
    ids: list[str] = []
    page = client.sessions(limit=limit, **wanted)
    while True:
        assert len(page) <= limit
        ids += [state.id for state in page]
        if page.next is None:
            return ids
        page = client.sessions(limit=limit, before=page.next, **wanted)


def at(raw: redis.Redis, session_id: str, start: int) -> None:
    """Move a session's start."""
    raw.zadd(KEYS.sessions, {session_id: start})
    raw.hset(KEYS.state(session_id), "createdAt", start)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
def test_pages_together_have_each_session_once_newest_first(
    sync_client: AgentClient, raw: redis.Redis, limit: int
) -> None:
    starts = {f"s{number}": number // 4 for number in range(7)}  # several in one millisecond
    for session_id, start in starts.items():
        sync_client.start("fake", "Do it", session_id)
        at(raw, session_id, start)
    expected = sorted(starts, key=lambda each: (starts[each], each), reverse=True)
    assert walked(sync_client, limit) == expected
    raw.delete(KEYS.state(expected[2]))  # a page may end with a session that is gone when the next is asked for
    assert walked(sync_client, limit) == [each for each in expected if each != expected[2]]


def test_the_last_full_page_says_that_it_is_the_last(sync_client: AgentClient) -> None:
    for number in range(4):
        sync_client.start("fake", "Do it", f"s{number}")
    first = sync_client.sessions(limit=2)
    assert first.next is not None
    assert sync_client.sessions(limit=2, before=first.next).next is None


def test_sessions_that_start_meanwhile_move_no_page(sync_client: AgentClient, raw: redis.Redis) -> None:
    for number in range(4):
        sync_client.start("fake", "Do it", f"s{number}")
        at(raw, f"s{number}", number)
    first = sync_client.sessions(limit=2)
    sync_client.start("fake", "Do it", "new")
    assert [state.id for state in sync_client.sessions(limit=2, before=first.next)] == ["s1", "s0"]


async def test_each_filter_admits_what_it_names(client: AsyncAgentClient, redis_url: str) -> None:
    running = Writer.start(redis_url, "running", metadata={"tenant": "acme", "user": "Ann"}, cwd="/srv/Shop")
    running.statuses("running")
    Writer.start(redis_url, "failed", metadata={"tenant": "acme"}).end("error", "failed", error="Exit code: 3")
    await client.start("demo", "Do it", "queued", metadata={"tenant": "zoo"}, model="fable-5")

    async def ids(**wanted: Any) -> set[str]:
        page = await client.sessions(**wanted)
        assert isinstance(page, SessionPage)
        assert page.next is None
        return {state.id for state in page.sessions}

    assert await ids() == {"running", "failed", "queued"}
    assert await ids(status="running") == {"running"}
    assert await ids(status=["running", "error"]) == {"running", "failed"}
    assert await ids(provider="demo") == {"queued"}
    assert await ids(worker="fake-worker") == {"running", "failed"}
    assert await ids(tenant="acme") == {"running", "failed"}
    assert await ids(tenant="acme", metadata={"user": "Ann"}) == {"running"}
    assert await ids(metadata={"user": "ann"}) == set()
    assert await ids(text="shop") == {"running"}
    assert await ids(text="FABLE") == {"queued"}
    assert await ids(text="code: 3") == {"failed"}
    assert await ids(text="acme", status="error") == {"failed"}
    assert await ids(text="nowhere") == set()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": "5"}, "limit"),
        ({"before": "nonsense"}, "before"),
        ({"before": "1763793000123.s} x"}, "before"),
        ({"before": "9" * 30 + ".s"}, "before"),
        ({"before": 5}, "before"),
        ({"status": "busy"}, "status"),
        ({"status": ["running", "busy"]}, "status"),
        ({"status": [[]]}, "status"),
        ({"status": 5}, "status"),
        ({"provider": 5}, "provider"),
        ({"metadata": ["a=b"]}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {1: "a"}}, "metadata"),
        ({"text": "\ud800"}, "text"),
        ({"tenant": "acme", "metadata": {"tenant": "zoo"}}, "tenant"),
    ],
    ids=str,
)
def test_a_bad_filter_is_refused_by_name(sync_client: AgentClient, given: Any, named: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        sync_client.sessions(**given)
    assert refused.value.option == named


def test_a_filter_that_few_pass_ends_the_page_early_and_goes_on(
    sync_client: AgentClient, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_list, "MOST_READ", 20)
    for number in range(70):
        sync_client.start("fake", "Do it", f"s{number}", metadata={"n": "old" if number < 2 else "new"})
        at(raw, f"s{number}", number)
    first = sync_client.sessions(text="old", limit=10)
    assert first.sessions == []
    assert first.next is not None
    assert walked(sync_client, 10, text="old") == ["s1", "s0"]


def test_foreign_names_in_the_index_are_passed_over(sync_client: AgentClient, raw: redis.Redis) -> None:
    sync_client.start("fake", "Do it", "mine")
    random.seed(1)
    raw.zadd(KEYS.sessions, {random.randbytes(12): float(random.choice(("inf", "-inf", "5e300"))) for _ in range(60)})
    raw.zadd(KEYS.sessions, {"odd": float("inf"), "odder": 0.5})
    raw.hset(KEYS.state("odd"), "status", "no state")
    raw.set(KEYS.state("odder"), "not a hash")
    assert walked(sync_client, 1) == ["mine"]


def test_the_list_command_filters_and_says_how_to_go_on(redis_url: str) -> None:
    for number in range(3):
        Writer.start(redis_url, f"s{number}", metadata={"team": "a=b c"}).end("done", "stopped")
    Writer.start(redis_url, "other")
    wanted = ("--status", "done,error", "--metadata", "team=a=b c", "--limit", "2")
    done = run_cli("list", *wanted, url=redis_url)
    heads, *rows = done.stdout.splitlines()
    assert (heads.split()[-1], [row.split()[0] for row in rows]) == ("AGE", ["s2", "s1"])
    words = shlex.split(only_line(done.stderr).partition(": ")[2])
    assert words[:-1] == ["agentrq", "list", *wanted, "--before"]
    following = run_cli(*words[1:], "--json", url=redis_url)
    assert [json.loads(line)["sessionId"] for line in following.stdout.splitlines()] == ["s0"]
    assert following.stderr == ""
    assert len(run_cli("list", "--json", "--limit", "0", url=redis_url).stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--status", "done,busy"), "busy"),
        (("--before", "x"), "before"),
        (("--metadata", "tenant"), "KEY=VALUE"),
        (("--metadata", "a=1", "--metadata", "a=2"), "two texts"),
        (("--limit", "-1"), "--limit"),
    ],
)
def test_a_bad_filter_on_the_command_line_is_one_line_and_2(redis_url: str, arguments: list[str], said: str) -> None:
    done = run_cli("list", *arguments, url=redis_url)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in only_line(done.stderr)
