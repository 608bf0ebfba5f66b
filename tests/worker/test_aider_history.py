"""Which printed lines are aider's own, by its chat history file: whoever of the two is read first."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrq_worker.builtin_runners.aider_history import ChatHistory

ANSWER = ["Two notices:", "Warning: a", "> Warning: a", "Note: b"]


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """The file of an earlier run, which quotes what the next one says."""
    path = tmp_path / "history.md"
    path.write_text("> Aider v1  \n\n#### hi\n\nWarning: a\n\n> Tokens: 1k sent  \n")
    return path


def write(history: Path, *lines: str) -> None:
    with history.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def own(*lines: str) -> list[str]:
    return [f"> {line}  " for line in lines]


def test_a_line_written_before_it_is_printed_is_aiders_own(history: Path) -> None:
    chat = ChatHistory(history)
    write(history, *own("Aider v2", "Warning: a"))
    assert [chat.is_own(line) for line in ("Aider v2", "", "Warning: a", "Warning: a")] == [True, False, True, False]
    assert not chat.is_own("Tokens: 1k sent"), "what an earlier run wrote is no evidence"


def test_an_answer_is_the_models_whatever_it_says(history: Path) -> None:
    chat = ChatHistory(history)
    for _ in range(2):
        assert not any(chat.is_own(line) for line in ANSWER)
        write(history, "", *ANSWER[:2], "> Warning: a  ", ANSWER[3], "")  # its quotation looks like a line of aider's
    write(history, *own("Note: b"))
    assert chat.is_own("Note: b")


def test_an_answer_that_was_written_before_it_is_read_is_the_models(history: Path) -> None:
    chat = ChatHistory(history)
    write(history, *own("Aider v2"), "#### hi", "", *ANSWER[:2], "> Warning: a  ", ANSWER[3], "", *own("Warning: a"))
    read = ["Aider v2", "", *ANSWER, "", "Warning: a"]
    assert [line for line in read if chat.is_own(line)] == ["Aider v2", "Warning: a"]


def test_a_history_that_is_not_there_is_no_evidence(tmp_path: Path) -> None:
    chat = ChatHistory(tmp_path / "none.md")
    assert not chat.is_own("Warning: a")
