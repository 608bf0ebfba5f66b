"""Who pays for a session: given at the start, told by state, feed and lists."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from agentrq import AgentClient, FeedEntry, InvalidOption
from tests.producer.command_line import run_cli
from tests.producer.session_writer import Writer


def test_who_pays_is_in_the_state_the_feed_and_the_lists(redis_url: str, raw: redis.Redis) -> None:
    payer = {"tenant": "acme", "user": "ann@acme.example", "project": "shop/web"}
    Writer.start(redis_url, "a", **payer, metadata={"team": "blue"})
    Writer.start(redis_url, "b", tenant="acme")
    Writer.start(redis_url, "c").end("done", "completed")
    with AgentClient.from_url(redis_url) as client:
        state = client.session("a").state()
        assert {"tenant": state.tenant, "user": state.user, "project": state.project} == payer
        assert state.metadata == {"team": "blue"} | payer
        assert client.session("c").state().tenant is None
        told = [entry for entry in client.feed(follow=False) if isinstance(entry, FeedEntry)]
        assert {(each.session_id, each.tenant, each.user, each.project) for each in told} == {
            ("a", *payer.values()), ("b", "acme", None, None), ("c", None, None, None),
        }  # fmt: skip
        assert [each.id for each in client.sessions(tenant="acme")] == ["b", "a"]
        assert [each.id for each in client.sessions(user="ann@acme.example", project="shop/web")] == ["a"]
        assert list(client.sessions(tenant="acme", user="bob")) == []


@pytest.mark.parametrize("value", ["", "-x", "a b", "a" * 65, "Zoë", "a\n", 7, "a|b", "a{b}"])
@pytest.mark.parametrize("name", ["tenant", "user", "project"])
def test_a_payer_of_any_other_character_is_refused(redis_url: str, name: str, value: Any) -> None:
    with AgentClient.from_url(redis_url) as client, pytest.raises(InvalidOption) as refused:
        client.start("fake", "Do it", **{name: value})
    assert refused.value.option == name


def test_metadata_cannot_name_another_payer(redis_url: str) -> None:
    with AgentClient.from_url(redis_url) as client, pytest.raises(InvalidOption, match="metadata names another one"):
        client.start("fake", "Do it", tenant="acme", metadata={"tenant": "zoo"})


def test_the_command_line_says_who_pays(redis_url: str, raw: redis.Redis) -> None:
    sid = run_cli("start", "fake", "Do it", "--tenant", "acme", "--user", "ann", url=redis_url).stdout.strip()
    with AgentClient.from_url(redis_url) as client:
        state = client.session(sid).state()
        assert (state.tenant, state.user, state.project) == ("acme", "ann", None)
    listed = run_cli("list", "--tenant", "acme", "--json", url=redis_url).stdout
    assert sid in listed
    assert run_cli("list", "--tenant", "zoo", "--json", url=redis_url).stdout == ""
    assert run_cli("start", "fake", "Do it", "--tenant", "a b", url=redis_url).returncode == 2
