"""The documents say what the code does: every setting, name and shape is where a reader looks for it."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from agentrq import errors
from agentrq.wire import messages
from agentrq.wire.commands import FUNCTIONS, MAX_INBOX, MAX_PROMPT_BYTES, START, Options
from agentrq.wire.keys import Keys
from agentrq.wire.state import State
from agentrq.wire.status import Reason, Status
from agentrq_worker.providers.parser_registry import PARSERS
from agentrq_worker.session.program_lookup import builtin
from agentrq_worker.settings import Settings, load
from tests.packaging.conftest import ROOT

CONTRACT = (ROOT / "docs/contract.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
PROVIDERS = (ROOT / "docs/providers.md").read_text()


def section(number: int) -> str:
    """One section of the contract."""
    return CONTRACT.partition(f"\n## {number}. ")[2].partition("\n## ")[0]


def chapter(text: str, title: str) -> str:
    """One chapter of a document."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def missing(names: list[str], text: str) -> list[str]:
    """Those of ``names`` that stand nowhere in code marks."""
    marked = " ".join(re.findall(r"`[^`]+`", text))
    return [name for name in names if not re.search(rf"(?<![A-Za-z_]){re.escape(name)}(?![A-Za-z_])", marked)]


def table(text: str) -> dict[str, str]:
    """First cell → second cell of the rows whose first cell is a name in code marks."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", text, re.MULTILINE))


def test_every_setting_is_told_with_its_default() -> None:
    told = table(chapter(OPERATIONS, "Settings of a worker"))
    assert set(told) == set(Settings.__struct_fields__)
    for name, default in msgspec.structs.asdict(Settings()).items():
        number = isinstance(default, float) and default.is_integer()
        shown = f"`{int(default) if number else default}`" if default else "–"
        assert told[name] == shown, name


@pytest.mark.parametrize("document", [OPERATIONS, PROVIDERS], ids=["operations", "providers"])
def test_the_settings_shown_are_taken(document: str, tmp_path: Path) -> None:
    shown = re.findall(r"^```toml\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    assert shown
    for text in shown:
        path = tmp_path / "agentrq.toml"
        path.write_text(text)
        settings = load(str(path), {})
        for name in tomllib.loads(text):
            assert getattr(settings, name) != getattr(Settings(), name), f"{name} is shown with its default"


def test_providers_lists_what_there_is() -> None:
    assert missing(sorted({*PARSERS, *builtin()}), PROVIDERS) == []


def test_the_contract_has_every_message_and_its_members() -> None:
    assert missing([*messages.TYPES, messages.UNKNOWN], section(3)) == []
    for kind in (messages.Message, messages.StatusEvent, messages.Receipt, *messages.TYPES.values()):
        assert missing(list(kind.__struct_encode_fields__), section(3)) == [], kind


def test_the_contract_has_every_status_and_reason() -> None:
    assert missing([*Status, *Reason], section(3)) == []


def test_the_contract_has_every_command_and_option() -> None:
    assert missing([START, *FUNCTIONS, *Options.__struct_fields__], section(2)) == []
    assert f"at most {MAX_INBOX} wait" in section(2)
    assert f"at most {MAX_PROMPT_BYTES >> 20} MiB" in section(2)


def test_the_contract_has_every_error() -> None:
    names = [name for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert missing(names, section(2)) == []


def test_the_contract_has_every_field_of_the_state() -> None:
    assert missing([name for name in State.__struct_encode_fields__ if name != "sessionId"], section(4)) == []


def test_the_contract_has_every_name_in_redis() -> None:
    keys = Keys()
    of_a_session = (keys.state, keys.events, keys.inbox, keys.commands, keys.messages_channel, keys.status_channel)
    names = [name("SID") for name in of_a_session] + [keys.sessions, keys.worker("NAME"), keys.wake_channel("NAME")]
    assert [name for name in names if f"`{name}`" not in section(1)] == []
