"""Names in Redis."""

from __future__ import annotations

import pytest

from agentrq.acl import profile
from agentrq.errors import InvalidOption
from agentrq.wire.keys import Keys


@pytest.mark.parametrize("prefix", ["", "a b", "a\nb", "{a}", "a +@all"])
def test_a_prefix_that_would_change_a_name_or_a_rule_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidOption, match="prefix"):
        Keys(prefix)
    with pytest.raises(InvalidOption, match="prefix"):
        profile("reader", prefix=prefix)


def test_a_prefix_may_have_any_other_character() -> None:
    assert Keys("team:one-ä").state("s") == "team:one-ä:{s}:state"
