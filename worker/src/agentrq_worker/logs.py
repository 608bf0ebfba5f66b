"""The worker's log: lines for people, lines for the journal, or one JSON object a line; and the names of its events.

Owns the formats and `EVENTS`. Does not own what is logged where. A line that concerns one session begins ``session %s``
with its id as the first argument, one on an RQ job ``job %s``: the JSON has them as members of their own.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import datetime
from typing import Any, Final, TextIO

from agentrq.wire.codec import encode

EVENTS: Final = {
    "worker_ready": "The worker hosts sessions from now on: `queue`, `slots`.",
    "worker_stopping": "It was told to end and takes no more: `seconds` that turns have to finish.",
    "worker_draining": "What the drain still waits for: `sessions` (how many), `seconds` left.",
    "worker_stopped": "It has left.",
    "worker_stalled": "It stood still for `seconds`; others may have taken its sessions.",
    "worker_lost": "Another worker of this machine has ended: its lease is given back.",
    "redis_unavailable": "Redis takes no events; they wait here.",
    "redis_available": "Redis takes events again, after `seconds`.",
    "redis_lost_events": "Redis came back without events that it had: `repeated` were written again, `lost` are gone.",
    "session_started": "A session begins here: `provider`, `epoch`.",
    "session_taken_over": "A session of another worker goes on here: `provider`, `epoch`, `cause` (`lost`, "
    "`handed_over`).",
    "session_ended": "A session has ended here: `status`, `reason`, `epoch`.",
    "session_handed_over": "A session was given up for another worker: `epoch`.",
    "session_superseded": "Another worker owns the session now; its agent is ended here.",
    "session_lost": "Its worker is lost; it is to go on elsewhere.",
    "session_requeued": "Its job is in the queue again, for another worker.",
    "turn_began": "A turn begins (level DEBUG): `epoch`, `turn`, `command` (the prompt's).",
    "turn_ended": "A turn is over (level DEBUG): `epoch`, `turn`, `outcome`.",
    "command_done": "A command has its receipt (level DEBUG): `epoch`, `command`, `kind`, `outcome`.",
    "runner_log": "What a runner asks to have logged.",
    "runner_stderr": "A line of a runner's stderr.",
    "runner_stderr_omitted": "More lines than 100 a second: `lines` were left out.",
    "secret_redacted": "Known secrets were taken out of what a runner printed, `times` times.",
    "orphans_ended": "`processes` of dead workers were ended when this one began.",
    "guardian_died": "The guardian process died and is replaced.",
    "job_failed": "A job could not be carried out.",
    "internal_error": "A bug: please report the line with its `exception`.",
}
"""What stands in ``event``; every other line has ``other``."""
OTHER: Final = "other"
_MEMBER: Final = "agentrq"
_PRIORITIES: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
"""syslog(3)'s numbers, which the journal reads at the beginning of a line."""


def event(name: str, **members: Any) -> dict[str, dict[str, Any]]:
    """What a call of the logger takes as ``extra``: one of `EVENTS`, with members of its own."""
    return {_MEMBER: {"event": name} | members}


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self) -> None:
        super().__init__()
        self.worker: str | None = None
        """The worker's name, once it is known."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "event": OTHER,
            "logger": record.name,
        }
        if self.worker is not None:
            line["worker"] = self.worker
        for subject in ("session", "job"):
            if str(record.msg).startswith(f"{subject} %s") and isinstance(record.args, tuple):
                line[subject] = str(record.args[0])
        line |= getattr(record, _MEMBER, {})
        line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return encode(line).decode()


class JournalLines(logging.Formatter):
    """Lines for systemd's journal, which has the time itself and takes the level from ``<N>``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return f"<{_PRIORITIES.get(record.levelname, 5)}>{super().format(record)}"


def is_journal(stream: TextIO) -> bool:
    """Whether a stream goes to the journal: systemd names the one that does (``JOURNAL_STREAM``, systemd.exec(5))."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def make_formatter(as_json: bool, stream: TextIO = sys.stderr) -> logging.Formatter:
    """The formatter of lines for ``stream``."""
    if as_json:
        return JsonLines()
    if is_journal(stream):
        return JournalLines("%(levelname)s %(name)s: %(message)s")
    return logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


def configure(level: int, *, as_json: bool) -> None:
    """Send all log lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(make_formatter(as_json))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("rq", "rq.worker", "rq.queue"):  # RQ sets its own loggers to INFO
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))


def name_worker(name: str) -> None:
    """Have every JSON line say which worker it is of."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonLines):
            handler.formatter.worker = name
