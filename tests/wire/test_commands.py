"""What is checked of a start's options, and of a command, before anything is written."""

from __future__ import annotations

from typing import Any

import pytest

from agentrq.errors import InvalidOption
from agentrq.wire.commands import MAX_DEPTH, MAX_PROMPT_BYTES, Command, make_command, make_options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"system_prompt": "x" * MAX_PROMPT_BYTES}, "over 8388608"),
        (
            {"metadata": {"a": "x" * (MAX_PROMPT_BYTES // 2)}, "system_prompt": "y" * (MAX_PROMPT_BYTES // 2)},
            "over 8388608",
        ),
        ({"cwd": "/tmp/\udcff"}, "cwd.*lone surrogate"),
        ({"metadata": {"\ud800": ""}}, "metadata.*lone surrogate"),
    ],
    ids=["long", "long together", "path", "key"],
)
def test_what_no_session_could_hold_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        make_options(options)


def nested(levels: int) -> Any:
    value: Any = "leaf"
    for level in range(levels):
        value = [1, value] if level % 2 else {"a": value, "b": []}
    return value


@pytest.mark.parametrize("levels", [0, 1, MAX_DEPTH])
def test_a_nested_answer_is_taken(levels: int) -> None:
    command = Command("c", "answer", request_id="r", answer=nested(levels))
    assert make_command(command) is command


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 700, 50_000])
def test_an_answer_nested_too_deeply_is_refused(levels: int) -> None:
    with pytest.raises(InvalidOption, match="answer"):
        make_command(Command("c", "answer", request_id="r", answer=nested(levels)))


@pytest.mark.parametrize(
    "option",
    [
        {"model": "m" * 130_001},
        {"extra_env": {"A": "1", "NAME": "v" * 129_997}},
        {"additional_directories": ["/a", "/" + "\u00fc" * 65_000]},
    ],
)
def test_an_option_that_no_program_can_be_given_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=rf"{next(iter(option))}.*has 13000\d bytes, over 130000"):
        make_options(option)


def test_a_system_prompt_of_any_size_is_taken() -> None:
    options = make_options({"system_prompt": "x" * 1_000_000, "extra_env": {}, "additional_directories": []})
    assert len(options.system_prompt or "") == 1_000_000
