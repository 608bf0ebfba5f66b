"""Any arguments: a documented exit code and at most lines of text, never a traceback."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agentrq.cli.command_table import COMMANDS
from tests.fuzz.targets import command_line

WORDS = st.sampled_from([
    *(name for name in COMMANDS if name not in ("up", "worker", "gateway")), "--json", "--help", "--after", "--option",
    "--session-id", "--cwd", "1-1", "x=y", "maxTurns=0", "maxTurns=1e400", "allow", "--", "-", "", "demo", "\0",
    "\ud800", "a/b",
    "--redis", "unix:///no/such.sock", "redis://", "ftp://x:secret-pw@y", "redis://u:secret-pw@[::1", "--prefix", "*",
])  # fmt: skip


@settings(max_examples=60)
@given(st.lists(WORDS | st.text(max_size=6), min_size=1, max_size=6))
def test_arguments_of_any_shape_end_without_a_traceback(arguments: list[str]) -> None:
    command_line("\0".join(arguments).encode("utf-8", "replace"))
