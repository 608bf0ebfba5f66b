"""How URLs are read and shown: a password is never shown, however it was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import agentrq
from agentrq.connection import BadUrl, connect, connect_async, masked

SECRETS = ["hunter2", "p@ss", "pa/ss", "p%40ss", "pa:ss", "p?ss"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("shape", ["redis://:{}@h:6379/0", "rediss://user:{}@h/0", "sentinel://:{}@h:1,i:2/svc/3"])
def test_no_password_is_shown(shape: str, secret: str) -> None:
    url = shape.format(secret)
    assert secret not in masked(url)
    assert "***" in masked(url)
    for make in (connect, connect_async):
        said = ""
        try:
            make(url)
        except BadUrl as error:
            said = str(error)
        assert all(part not in said for part in {secret, *secret.split("/")} if len(part) > 2)


def test_a_password_in_the_query_is_masked() -> None:
    assert masked("redis://h/0?db=1&password=hunter2&x=y") == "redis://h/0?db=1&password=***&x=y"


@pytest.mark.parametrize(
    "url",
    [
        "", "nonsense", "http://h", "redis://h:notaport", "sentinel://h", "redis://h/0?db=x",
        "redis://h/0?nobody=1", "redis://h/0?encoding=none", "redis://h/0?decode_responses=True", "redis://h/0?retry=5",
        "redis://a..b/0", f"redis://{'a' * 64}/0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [connect, connect_async])
def test_bad_urls_are_one_clear_error(make: Callable[[str], Any], url: str) -> None:
    with pytest.raises(BadUrl):
        make(url)


def test_a_bad_url_that_may_hold_a_password_is_told_with_an_example_and_without_the_password() -> None:
    with pytest.raises(BadUrl, match=r"e\.g\. redis://USER:PASSWORD@HOST:6379/0") as caught:
        connect("redis://h:secret")
    assert "secret" not in str(caught.value)


def test_every_public_name_is_there() -> None:
    assert {name: getattr(agentrq, name).__name__ for name in agentrq.__all__ if name != "Event"}
    assert agentrq.start.__module__ == "agentrq"
    with pytest.raises(AttributeError, match="nobody"):
        _ = agentrq.nobody
