"""A conformance test for providers: checks a parser or protocol on a transcript that you give.

    from agentrq_worker.testing import conform

    def test_my_parser():
        messages = conform(lambda: MyParser(), Path("mine.ndjson"))
        assert messages[-1]["type"] == "cost"

or ``python -m agentrq_worker.testing --parser claude FILE…``, which prints the messages; with ``--runner`` the file
holds what a runner of the runner protocol wrote.

Owns the checks and the faults it injects (lines dropped, doubled, moved, cut, garbled). Raises AssertionError with
the line that showed a fault; needs no test framework.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import click
import msgspec

from agentrq.wire.codec import decode_messages, encode
from agentrq.wire.commands import Options
from agentrq.wire.events import make_message
from agentrq.wire.messages import TYPES, UNKNOWN, SessionTotal
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.parser import INTERRUPTED, UnknownParser
from agentrq_worker.providers.registry import DEFAULT_PARSER, make_parser
from agentrq_worker.providers.runner_protocol import RunnerProtocol

Json = dict[str, Any]


class Reader(Protocol):
    """What is tested: an `OutputParser` or an `AgentProtocol`."""

    def receive(self, line: bytes) -> Sequence[Any]:
        """The messages of one line."""

    def close(self, reason: str) -> Sequence[DraftMessage]:
        """The messages that close what is still open at the end."""


def conform(make: Callable[[], Reader], transcript: bytes | Path, trouble: int = 300, seed: int = 0) -> list[Json]:
    """Check a provider on a transcript (JSON lines); returns its messages as they stand on the wire.

    ``make`` makes a fresh reader. The transcript is read once as it is, then ``trouble`` times with lines dropped,
    doubled, moved, cut or garbled, by the random ``seed``. Raises AssertionError when the reader raises,
    makes a message that no subscriber can read, makes two calls or two results of one call, or leaves a call without
    a result.
    """
    raw = transcript.read_bytes() if isinstance(transcript, Path) else transcript
    lines = [line for line in raw.split(b"\n") if line.strip()]
    assert lines, "the transcript is empty"
    messages = play(make(), lines)
    assert any(message["type"] == "cost" for message in messages), "no cost message: nothing would end the turn"
    assert not _open(messages, closed=False), (
        f"calls without a result in the transcript: {_open(messages, closed=False)}"
    )
    dice = random.Random(seed)  # noqa: S311 - the same trouble in each run
    for _ in range(trouble):
        play(make(), _troubled(lines, dice))
    return [message for message in messages if message.pop("closed", None) is None]


def play(reader: Reader, lines: Iterable[bytes]) -> list[Json]:
    """The messages of these lines and of the end, each checked; those of the end have a member ``closed``."""
    messages = []
    for line in lines:
        try:
            said = reader.receive(line)
        except Exception as error:
            raise AssertionError(f"receive raised {error!r} on {line[:200]!r}") from error
        messages += [_read_back(draft, line) for draft in said if isinstance(draft, DraftMessage)]
    messages += [_read_back(draft, b"(close)") | {"closed": True} for draft in reader.close(INTERRUPTED)]
    for kind in ("tool_call", "tool_result"):
        twice = [key for key, count in Counter(_ids(messages, kind)).items() if count > 1]
        assert not twice, f"more than one {kind} of {twice}"
    assert not _open(messages, closed=True), f"close left calls without a result: {_open(messages, closed=True)}"
    return messages


def _read_back(draft: DraftMessage, line: bytes) -> Json:
    """The message as a subscriber decodes it."""
    message = make_message("s", "m", draft.type, 1, draft.content, parent_id=draft.parent_id)
    try:
        encoded = encode([message])
        (found,) = decode_messages(encoded)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise AssertionError(f"no subscriber can read the {draft.type} of {line[:200]!r}: {error}") from error
    wanted = dict if draft.type == UNKNOWN else TYPES.get(draft.type)
    assert wanted is not None, f"{draft.type} is no type of message (line {line[:200]!r})"
    assert isinstance(found.content, wanted), f"the content of a {draft.type} is not its own (line {line[:200]!r})"
    plain: Json = msgspec.json.decode(encoded)[0]
    assert isinstance(plain["content"], dict), f"the content of a {draft.type} is no object (line {line[:200]!r})"
    return {name: plain[name] for name in ("type", "parentId", "content") if name in plain}


def _ids(messages: Iterable[Json], kind: str) -> list[str]:
    return [message["content"]["toolUseId"] for message in messages if message["type"] == kind]


def _open(messages: list[Json], *, closed: bool) -> set[str]:
    """The calls without a result, without or with those that close gave."""
    seen = [message for message in messages if closed or "closed" not in message]
    return set(_ids(seen, "tool_call")) - set(_ids(seen, "tool_result"))


def _troubled(lines: list[bytes], dice: random.Random) -> list[bytes]:
    lines = list(lines)
    for _ in range(dice.randint(1, 5)):
        at = dice.randrange(len(lines))
        what = dice.choice(("drop", "double", "move", "cut", "garble", "end"))
        if what == "drop" and len(lines) > 1:
            del lines[at]
        elif what == "double":
            lines.insert(dice.randrange(len(lines)), lines[at])
        elif what == "move":
            lines.insert(dice.randrange(len(lines)), lines.pop(at))
        elif what == "cut":
            lines[at] = lines[at][: dice.randrange(len(lines[at]) + 1)]
        elif what == "garble" and lines[at]:
            place = dice.randrange(len(lines[at]))
            lines[at] = lines[at][:place] + dice.randbytes(dice.randint(1, 4)) + lines[at][place + 1 :]
        elif what == "end":
            del lines[at + 1 :]
    return lines


@click.command(help="Check a provider's output on transcripts; prints the messages that it makes of them.")
@click.option("--parser", "name", default=DEFAULT_PARSER, show_default=True, help="Whose events these are.")
@click.option("--adapter", hidden=True, help="The former name of --parser.")
@click.option("--runner", is_flag=True, help="The files hold what a runner of the runner protocol wrote.")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(name: str, adapter: str | None, runner: bool, files: tuple[Path, ...]) -> None:
    """``python -m agentrq_worker.testing``: exits 1 at the first fault."""
    if adapter is not None:
        click.echo("--adapter is now called --parser", err=True)
        name = adapter
    try:
        make_parser(name)
    except UnknownParser as error:
        raise click.BadParameter(str(error)) from None
    make: Callable[[], Reader] = partial(make_parser, name)
    if runner:
        make = partial(RunnerProtocol, "s", Options(), name, make_parser, SessionTotal())
    for file in files:
        try:
            messages = conform(make, file)
        except AssertionError as fault:
            raise click.ClickException(f"{file}: {fault}") from None
        for message in messages:
            click.echo(encode(message))


if __name__ == "__main__":
    main()
