"""The last lines of a runner's stderr, for the error of its session. Owns how many, and where they begin."""

from typing import Final, Protocol

from agentrq_worker.process.pipes import STDERR_TAIL

MOST_LINES: Final = 20
MOST_CHARACTERS: Final = 2000


class HasStderr(Protocol):
    """A runner's process."""

    @property
    def stderr_tail(self) -> str:
        """The last `STDERR_TAIL` bytes of stderr."""


def last_lines(process: HasStderr) -> str:
    """The last whole lines, at most `MOST_LINES` and `MOST_CHARACTERS`; not redacted yet.

    A line whose beginning is not kept is left out: what begins in the middle of a secret would not be known for one.
    """
    kept = process.stderr_tail
    lines = kept.splitlines()
    if len(kept.encode(errors="replace")) >= STDERR_TAIL - 3:  # a character cut in two is longer than it was
        del lines[:1]
    lines = [line.rstrip() for line in lines if line.strip()][-MOST_LINES:]
    while lines and sum(map(len, lines)) + len(lines) > MOST_CHARACTERS:
        del lines[0]
    return "\n".join(lines)
