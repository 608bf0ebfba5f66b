"""What is checked of a start's options before anything is written."""

from __future__ import annotations

from typing import Any

import pytest

from agentrq.errors import InvalidOption
from agentrq.wire.commands import MAX_PROMPT_BYTES, make_options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"system_prompt": "x" * MAX_PROMPT_BYTES}, "over 8388608"),
        ({"metadata": {"a": "x" * (MAX_PROMPT_BYTES // 2)}, "model": "y" * (MAX_PROMPT_BYTES // 2)}, "over 8388608"),
        ({"cwd": "/tmp/\udcff"}, "cwd.*lone surrogate"),
        ({"metadata": {"\ud800": ""}}, "metadata.*lone surrogate"),
    ],
    ids=["long", "long together", "path", "key"],
)
def test_what_no_session_could_hold_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        make_options(options)
