"""When the next thing happens to a session by time alone. Pure: times are monotonic, in seconds, and are passed in.

Owns the moments and the limits' numbers. What happens then is session/timers.py's.
"""

from __future__ import annotations

from typing import Final

from agentrq.wire.commands import Options

MUTE_S: Final = 10.0
"""How long a runner that has closed its stdout may live on: it can say nothing more, not even that its turn is over.
So long, too, one that has closed its stdin, once something was to be written to it: a prompt then is lost."""
OBEY_S: Final = 10.0
"""How long a turn that ran over its time may take to end once it is interrupted; then the session ends."""
QUIET_S: Final = 1.0
"""How long an agent is silent between turns before its unfinished texts are published as they stand."""
SEEMS_OVER_S: Final = 5.0
"""How long the end of a turn may be behind other signs of it."""
BACKGROUND_S: Final = 3600.0
"""How long background work that reports nothing keeps a session from being idle."""


class TimeLimits:
    """The moments of one owner of a session."""

    def __init__(self, options: Options, handshake_s: float, ran_s: float, now: float) -> None:
        """``ran_s``: how long the session has existed, by Redis's clock."""
        self.handshake_s = handshake_s
        self.idle_timeout_s = options.idle_timeout_s
        self.session_by = None if options.timeout_s is None else now + options.timeout_s - ran_s
        """When the whole session's time is over."""
        self.handshake_by: float | None = None
        """When an agent that has not answered yet must have."""
        self.mute_by: float | None = None
        """When a runner that has closed a pipe must have ended."""
        self.unread_by: float | None = None
        """When a turn is over whose last line could not be read."""
        self.seems_over_by: float | None = None
        """When a turn is over whose end the agent has shown but not told, for `seems_over`."""
        self.seems_over = ""
        self.texts_by: float | None = None
        """When a text that came between turns is taken for whole."""
        self.idle_since = now
        """When the session entered its status, or the last background work ended."""
        self.heard = now
        """When the agent has last said anything."""

    def idle_by(self, background: bool) -> float | None:
        """When an idle session ends."""
        if self.idle_timeout_s is None:
            return None
        if background:
            return self.heard + max(self.idle_timeout_s, BACKGROUND_S)
        return self.idle_since + self.idle_timeout_s
