"""The worker's log: its formats, and that every name of an event is documented and used."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import sys
from datetime import datetime
from pathlib import Path

import pytest

import agentrq_worker
from agentrq_worker import logs
from agentrq_worker.logs import EVENTS, JsonLines, event, make_formatter

SOURCE = Path(agentrq_worker.__file__).parent


def line_of(message: str, *args: object, formatter: logging.Formatter | None = None, **extra: object) -> str:
    """One record as it is formatted."""
    record = logging.getLogger("somewhere").makeRecord("somewhere", logging.WARNING, "f", 1, message, args, None)
    for name, value in extra.items():
        setattr(record, name, value)
    return (formatter or JsonLines()).format(record)


def test_a_line_is_an_object_with_what_it_concerns() -> None:
    formatter = JsonLines()
    formatter.worker = "w1"
    line = json.loads(line_of("session %s: ended\n%s", "s1", "badly", formatter=formatter,
                              **event("session_ended", epoch=3)))  # fmt: skip
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "level": "WARNING", "event": "session_ended", "logger": "somewhere", "worker": "w1", "session": "s1",
        "epoch": 3, "message": "session s1: ended\nbadly",
    }  # fmt: skip
    assert json.loads(line_of("job %s: lost", "j1"))["job"] == "j1"
    assert json.loads(line_of("no subject"))["event"] == "other"


def test_a_line_is_one_line_whatever_it_holds() -> None:
    text = line_of("session %s: %s", "s\n1", "half \ud83d of a character, \x00 and \u2028")
    assert text.isprintable() or "\n" not in text
    assert json.loads(text)["session"] == "s\n1"
    text.encode()


def test_a_traceback_is_a_member() -> None:
    try:
        raise ValueError("deep")
    except ValueError:
        line = line_of("session %s: internal error", "s1", exc_info=sys.exc_info())
    assert "ValueError: deep" in json.loads(line)["exception"]
    assert "\n" not in line


def test_the_journal_gets_the_level_and_no_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "file").open("w") as file:
        found = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert line_of("hello", formatter=make_formatter(False, journal)) == "<4>WARNING somewhere: hello"
        assert line_of("hello", formatter=make_formatter(False, file)).startswith("20")
        assert line_of("hello", formatter=make_formatter(False, io.StringIO())).startswith("20")


def used_names() -> list[str]:
    """The name of an event in every call of `logs.event`, and of the observer's own ``_log``."""
    names = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("event", "logs.event", "self._log"):
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    names.append(first.value)
    return names


def test_every_event_is_documented_and_used() -> None:
    assert set(used_names()) == set(EVENTS)


def test_every_line_on_a_session_or_a_job_begins_with_it() -> None:
    """Else its JSON would not say which one."""
    wrong = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.") and node.args):
                continue
            text = node.args[0]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                begins = text.value.startswith(("session %s", "job %s"))
                if ("session %s" in text.value or "job %s" in text.value) and not begins:
                    wrong.append(f"{path.name}: {text.value}")
    assert wrong == []


def test_the_workers_name_is_in_every_line_once_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(formatter := JsonLines())
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    logs.name_worker("w7")
    assert formatter.worker == "w7"
