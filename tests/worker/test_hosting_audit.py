"""A session that a worker owns in Redis and does not host is settled: its end is repeated, or others recover it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis

from agentrq import AsyncAgentClient
from agentrq.connection import connect_async
from agentrq.wire.status import Reason, Status
from agentrq_worker.ownership.hosting_audit import HostingAudit
from agentrq_worker.ownership.ownership import Claim, Ownership, SessionEnd
from agentrq_worker.settings import Settings

SETTINGS = Settings(name="w")
STATE = "agentrq:{s}:state"


@pytest.fixture
async def ownership(redis_url: str) -> AsyncIterator[Ownership]:
    async with connect_async(redis_url) as connection:
        ownership = Ownership(connection, connection, SETTINGS)
        await ownership.take_lease()
        yield ownership


@pytest.fixture
async def claim(client: AsyncAgentClient, ownership: Ownership) -> Claim:
    await client.start("demo", "hello", "s")
    snapshot = await ownership.fetch_session("s")
    assert snapshot is not None
    claim = await ownership.claim_session(snapshot)
    assert claim is not None
    return claim


@pytest.fixture
async def audit(redis_url: str, ownership: Ownership) -> AsyncIterator[HostingAudit]:
    async with connect_async(redis_url) as connection:
        yield HostingAudit(connection, ownership, SETTINGS)


async def test_an_end_that_is_remembered_is_repeated_in_the_second_round(
    ownership: Ownership, claim: Claim, audit: HostingAudit, raw: redis.Redis
) -> None:
    ownership.remember_end("s", claim.state["nonce"], SessionEnd(Status.ERROR, Reason.FAILED, "Exit code: 3"))
    await audit.audit_once()
    assert raw.hget(STATE, "status") == b"starting"
    await audit.audit_once()
    assert raw.hmget(STATE, "status", "reason", "error") == [b"error", b"failed", b"Exit code: 3"]
    before = raw.hgetall(STATE)
    await audit.audit_once()
    assert raw.hgetall(STATE) == before


@pytest.mark.usefixtures("claim")
async def test_a_session_that_nobody_here_remembers_is_released(
    ownership: Ownership, audit: HostingAudit, raw: redis.Redis
) -> None:
    ownership.remember_end("s", "of an earlier session by this id", SessionEnd(Status.DONE, Reason.COMPLETED, ""))
    await audit.audit_once()
    await audit.audit_once()
    assert raw.hmget(STATE, "status", "worker", "token", "claim") == [b"starting", None, None, None]
    snapshot = await ownership.fetch_session("s")
    assert snapshot is not None
    assert not snapshot.owned
    assert await ownership.claim_session(snapshot) is not None  # anybody recovers it


async def test_a_session_that_ended_here_is_not_claimed_again(
    ownership: Ownership, claim: Claim, raw: redis.Redis
) -> None:
    ownership.remember_end("s", claim.state["nonce"], SessionEnd(Status.DONE, Reason.STOPPED, ""))
    raw.hdel(STATE, "token", "worker", "claim")
    snapshot = await ownership.fetch_session("s")
    assert snapshot is not None
    assert await ownership.claim_session(snapshot) is None
    assert raw.hmget(STATE, "status", "reason") == [b"done", b"stopped"]


@pytest.mark.parametrize("how", ["claimed", "claiming", "another's", "ended"])
async def test_what_is_hosted_or_not_this_workers_is_left_alone(
    ownership: Ownership, claim: Claim, audit: HostingAudit, raw: redis.Redis, how: str
) -> None:
    if how == "claimed":
        ownership.sessions[claim.claimed.session_id] = object()  # type: ignore[assignment]
    elif how == "claiming":
        ownership.claiming.add("s")
    elif how == "another's":
        raw.hset(STATE, "token", "another's")
    else:
        raw.hset(STATE, "status", "done")
    before = raw.hgetall(STATE)
    await audit.audit_once()
    await audit.audit_once()
    assert raw.hgetall(STATE) == before


async def test_a_session_that_was_claimed_between_two_rounds_is_left_alone(
    ownership: Ownership, claim: Claim, audit: HostingAudit, raw: redis.Redis
) -> None:
    await audit.audit_once()
    ownership.sessions["s"] = object()  # type: ignore[assignment]
    await audit.audit_once()
    del ownership.sessions["s"]
    await audit.audit_once()  # the first round of another loss
    assert raw.hget(STATE, "token") == ownership.token.encode()
    assert claim.state["token"] == ownership.token
