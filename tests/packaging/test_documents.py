"""The documents say what the code does: every setting, name and shape is where a reader looks for it."""

from __future__ import annotations

import re

from agentrq.wire import events, messages
from agentrq.wire.commands import FUNCTIONS, MAX_INBOX, MAX_PROMPT_BYTES, START
from agentrq.wire.keys import Keys
from agentrq.wire.status import Reason, Status
from agentrq_worker.providers.registry import parser_names
from agentrq_worker.session.program_lookup import builtin
from agentrq_worker.settings import Settings
from tests.packaging.conftest import ROOT

DOCS = ROOT / "docs"


def page(name: str) -> str:
    """One page of the reference."""
    return (DOCS / "reference" / f"{name}.md").read_text()


def missing(names: list[str], text: str) -> list[str]:
    """Those of ``names`` that stand nowhere in code marks."""
    fenced = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    marked = " ".join([*fenced.findall(text), *re.findall(r"`[^`]+`", fenced.sub("", text))])
    return [name for name in names if not re.search(rf"(?<![A-Za-z_]){re.escape(name)}(?![A-Za-z_])", marked)]


def test_the_providers_page_lists_every_provider() -> None:
    assert missing(sorted({*parser_names(), *builtin()}), page("providers")) == []


def test_the_contract_has_every_message_and_its_members() -> None:
    assert missing([*messages.TYPES, messages.UNKNOWN], page("events")) == []
    for kind in (events.MessageBase, events.StatusEvent, events.Receipt, *messages.TYPES.values()):
        assert missing(list(kind.__struct_encode_fields__), page("events")) == [], kind


def test_the_contract_has_every_status_and_reason() -> None:
    assert missing([*Status, *Reason], page("events")) == []


def test_the_contract_has_every_command_and_option() -> None:
    assert missing([START, *FUNCTIONS], page("commands")) == []
    assert f"At most {MAX_INBOX} wait" in page("commands")
    assert f"at most {MAX_PROMPT_BYTES >> 20} MiB" in page("commands")


def test_the_contract_has_every_name_in_redis() -> None:
    keys = Keys()
    of_a_session = (keys.state, keys.events, keys.inbox, keys.commands, keys.messages_channel, keys.status_channel)
    names = [name("SID") for name in of_a_session] + [keys.sessions, keys.worker("NAME"), keys.wake_channel("NAME")]
    assert [name for name in names if f"`{name}`" not in page("keys-and-channels")] == []


def test_every_environment_variable_on_a_page_exists() -> None:
    sources = [path for room in ("producer/src", "worker/src", "tests") for path in (ROOT / room).rglob("*.py")]
    known = {f"AGENTRQ_{name.upper()}" for name in Settings.__struct_fields__}
    known |= {name for path in sources for name in re.findall(r"AGENTRQ_[A-Z_]+[A-Z]", path.read_text())}
    named = {name for path in DOCS.rglob("*.md") for name in re.findall(r"AGENTRQ_[A-Z_]+[A-Z]", path.read_text())}
    assert named - known == set()


def test_every_metric_on_a_page_exists() -> None:
    metrics = set(re.findall(r"`(agentrq_\w+)`", page("metrics")))
    pages = [path.read_text() for path in (DOCS / "how-to").glob("*.md")]
    named = {name for text in pages for name in re.findall(r"agentrq_[a-z_]+", text)}
    assert named - metrics == {"agentrq_worker", "agentrq_gateway"}  # the packages
