"""What is fuzzed: functions of any bytes that raise only where the product is wrong.

Owns what "wrong" is for each. Does not own where inputs come from.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from typing import Any, Final

import msgspec

from agentrq.cli import _run
from agentrq.errors import AgentRQError, InvalidOption
from agentrq.rq_commands import SERIALIZER
from agentrq.wire.approval_policy import read_policy
from agentrq.wire.call_targets import Directories
from agentrq.wire.codec import decode_entry, decode_messages, decode_status_payload, encode
from agentrq.wire.commands import make_options
from agentrq.wire.ids import Cursor, is_session_id
from agentrq.wire.messages import SessionTotal
from agentrq.wire.state import read_inner, read_state, to_wire
from agentrq_worker.ownership.command_decoder import LONGEST, Unreadable, read_command
from agentrq_worker.process import marks
from agentrq_worker.process.redact import Redactor
from agentrq_worker.providers.registry import make_protocol, parser_names
from agentrq_worker.providers.streamed_text import Block
from agentrq_worker.rq.job import SessionJob
from agentrq_worker.rq.job_payload import read_call
from agentrq_worker.stream.message_redactor import MessageRedactor
from tests.worker.framing_reference import frame, reference
from tests.worker.parser_checks import run_parser
from tests.worker.protocol_checks import talk
from tests.worker.recordings import RPC

_DIRECTORIES: Final = Directories("/srv", "/srv/home")
REFUSED: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What readers of Redis are ready for (`agentrq.client.subscription`, `agentrq_worker.ownership`)."""


def framing(data: bytes) -> None:
    """The first two bytes: the longest line, and the size of the chunks."""
    limit, size, stream = data[0] + 1 if data else 1, data[1] + 1 if len(data) > 1 else 1, data[2:]
    assert frame([stream[at : at + size] for at in range(0, len(stream), size)], limit) == reference(stream, limit)


def parser(name: str) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        run_parser(name, [line for line in data.split(b"\n") if line])

    return target


def jsonrpc(data: bytes) -> None:
    """The first byte chooses the agent and its recording."""
    if data:
        talk(RPC[data[0] % len(RPC)], [line for line in data[1:].split(b"\n") if line], [])


def protocol(name: str) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        made = make_protocol(name, "s", make_options({}), "claude", SessionTotal(), 1)
        made.open()
        made.prompt("go")
        for line in data.split(b"\n"):
            if line:
                made.receive(line)
        made.close("ended")

    return target


def stream_entry(data: bytes) -> None:
    field = (b"message", b"status", b"receipt", b"other")[data[0] % 4 if data else 0]
    with contextlib.suppress(*REFUSED):
        event = decode_entry(field, data[1:])
        assert (event is None) == (field == b"other")
        encode(event)


def channels(data: bytes) -> None:
    for decode in (decode_messages, decode_status_payload):
        with contextlib.suppress(*REFUSED):
            encode(decode(data))


def inbox(data: bytes) -> None:
    command = read_command(data)
    assert len(command.command_id) <= 200
    if not isinstance(command, Unreadable):
        assert command.command_id
        assert len(data) <= LONGEST
        encode(command)


def state(data: bytes) -> None:
    """Fields and values, one after the other, with a zero byte between them."""
    parts = data.split(b"\0")
    raw = dict(zip(parts[::2], parts[1::2], strict=False))
    found = read_state("s", raw)
    read_inner(raw)
    if found is not None:
        encode(to_wire(found))


def options(data: bytes) -> None:
    with contextlib.suppress(*REFUSED):
        given = msgspec.json.decode(data, type=dict[str, Any])
        with contextlib.suppress(InvalidOption):
            encode(make_options(given))


def job(data: bytes) -> None:
    made = SessionJob("j", connection=_NOBODY, serializer=SERIALIZER)
    made.data = data
    with contextlib.suppress(AgentRQError):
        name, arguments = read_call(made)
        assert name.startswith("agentrq.")
        encode(arguments)


def names(data: bytes) -> None:
    """What stands between dashes, dots and colons: cursors, session ids, runners' marks."""
    with contextlib.suppress(ValueError):
        cursor = Cursor.parse(data)
        assert Cursor.parse(str(cursor)) == cursor
    assert not is_session_id(data) or data.translate(None, b"-_").isalnum() or not data.strip(b"-_")
    text = data.decode("utf-8", "replace")
    assert (marks.parse_mark(text) is None) == (marks.tag_of(text) == 0)


_SECRETS: Final = ('sk-"key"/0123456789', "caf\u00e9-caf\u00e9-caf\u00e9")


def redaction(data: bytes) -> None:
    redactor = Redactor(_SECRETS)
    clean = redactor.line(data)
    for secret in _SECRETS:
        assert secret.encode() not in clean
        assert encode(secret)[1:-1] not in clean
    assert (clean == data) == (redactor.count == 0)


def policy(data: bytes) -> None:
    """A shell line, or a call's input as JSON: what an allow rule lets through, the same deny rule does not miss."""
    given: Any = {"command": data.decode("utf-8", "replace")}
    with contextlib.suppress(*REFUSED):
        given = msgspec.json.decode(data)
    for rule in ({"command": "rm *"}, {"path": "/srv/*"}):
        allows = read_policy({"rules": [rule | {"decision": "allow"}]}).decide("x", given, _DIRECTORIES)
        denies = read_policy({"default": "allow", "rules": [rule | {"decision": "deny"}]}).decide(
            "x", given, _DIRECTORIES
        )
        assert (allows, denies) != ("allow", "allow")


def pieces(data: bytes) -> None:
    """Zero bytes cut a text into pieces: what live readers put together is the beginning of what is kept."""
    block, redactor, live = Block("b"), MessageRedactor(Redactor(_SECRETS)), ""
    texts = [piece.decode("utf-8", "replace") for piece in data.split(b"\0")]
    whole = Redactor(_SECRETS).text("".join(texts))
    for piece in texts:
        for draft in redactor.drafts([block.piece(piece)]):
            live += msgspec.to_builtins(draft.content)["text"]
        assert whole.startswith(live)


def command_line(data: bytes) -> None:
    """Arguments with a zero byte between them: a documented exit code, no traceback, no password."""
    arguments = [part.decode("utf-8", "surrogateescape") for part in data.split(b"\0")][:8]
    if arguments[0] in ("up", "worker", "doctor"):  # these start processes
        return
    said = io.TextIOWrapper(io.BytesIO(), "utf-8", "replace", write_through=True)  # as a real stdout: it has a buffer
    before = os.environ.get("AGENTRQ_REDIS_URL")
    os.environ["AGENTRQ_REDIS_URL"] = "unix://u:secret-pw@/no/such.sock"
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), _no_stdin():
            code = _run(arguments)
    finally:
        del os.environ["AGENTRQ_REDIS_URL"]
        if before is not None:
            os.environ["AGENTRQ_REDIS_URL"] = before
    assert code in (0, 1, 2, 3, 4, 5), code
    shown = said.buffer.getvalue().decode("utf-8", "replace")
    assert "Traceback" not in shown
    places = [(at, argument) for at, argument in enumerate(arguments) if "secret-pw" in argument]
    # Elsewhere it is not the password of a server's URL: without its colon it is the user name, which is shown.
    if all(at > 0 and arguments[at - 1] == "--redis" and ":secret-pw@" in argument for at, argument in places):
        assert "secret-pw" not in shown


@contextlib.contextmanager
def _no_stdin() -> Any:
    import sys

    before, sys.stdin = sys.stdin, io.StringIO()
    try:
        yield
    finally:
        sys.stdin = before


class _Nobody:
    """A connection that is never used: reading a job asks nobody."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a job's reading asked Redis: {name}")


_NOBODY: Any = _Nobody()

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "framing": framing,
    **{f"parser-{name}": parser(name) for name in parser_names()},
    "protocol-runner": protocol("runner"),
    "protocol-claude": protocol("claude"),
    "protocol-jsonrpc": jsonrpc,
    "stream-entry": stream_entry,
    "channels": channels,
    "inbox": inbox,
    "state": state,
    "options": options,
    "job": job,
    "names": names,
    "redaction": redaction,
    "policy": policy,
    "pieces": pieces,
    "command-line": command_line,
}
