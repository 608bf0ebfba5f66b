"""Every input that was ever worth keeping, replayed; and any bytes, shortly."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attacks import attack
from tests.fuzz.__main__ import CORPUS
from tests.fuzz.targets import TARGETS


def test_every_target_has_inputs() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)
    assert all(any((CORPUS / name).iterdir()) for name in TARGETS)


@attack(
    "any bytes: framing, each parser and protocol, stream and inbox entries, states, options, RQ jobs, command lines",
    "decoded or refused by the errors that callers expect; `make fuzz` looks for more",
)
@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_is_read_without_a_crash(name: str) -> None:
    for path in sorted((CORPUS / name).iterdir()):
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            raise AssertionError(f"{path}: {error!r}") from error


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25)
@given(data=st.data())
def test_inputs_cut_short_are_read_without_a_crash(name: str, data: st.DataObject) -> None:
    inputs = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    whole = data.draw(st.sampled_from(inputs))
    at = data.draw(st.integers(0, len(whole)))
    TARGETS[name](whole[:at] + data.draw(st.binary(max_size=3)) + whole[at:][data.draw(st.integers(0, 3)) :])


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in Path(CORPUS).rglob("*")) < 2 << 20
