"""What happens to a session by time alone: its limits, deadlines of requests, agents that do not answer. Pure.

Owns what follows when a moment has come. The moments are session/time_limits.py's and those of the turn, the requests
and the confirmations.
"""

from __future__ import annotations

from agentrq.wire.messages import Error
from agentrq.wire.status import Reason, Status
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import CommandRefused
from agentrq_worker.session.agent_events import AgentEvents
from agentrq_worker.session.command_handler import CommandHandler
from agentrq_worker.session.effects import SetTimer
from agentrq_worker.session.lifecycle import Lifecycle, Phase
from agentrq_worker.session.time_limits import MUTE_S, OBEY_S
from agentrq_worker.session_types import Outcome


class Timers:
    """The time limits of one session; one timer serves them all."""

    def __init__(self, life: Lifecycle, commands: CommandHandler, agent: AgentEvents) -> None:
        self._life = life
        self._agent = agent
        self._commands = commands
        self._set_for: float | None = None
        self._mute_pipe = ""

    def close_pipe(self, pipe: str) -> None:
        """Give a runner that closed a pipe but still runs `MUTE_S` seconds to exit."""
        limits = self._life.limits
        if limits.mute_by is None:
            limits.mute_by = self._life.now + MUTE_S
            self._mute_pipe = pipe

    def set_next(self) -> None:
        """Set the timer if the next deadline has changed."""
        life = self._life
        at = self._next() if life.phase is Phase.OPEN else None
        if at != self._set_for:
            self._set_for = at
            life.output.add(SetTimer(at))

    def _next(self) -> float | None:
        life = self._life
        limits, turn = life.limits, life.turn
        moments = (
            limits.session_by, limits.handshake_by, limits.mute_by, limits.unread_by, limits.texts_by,
            limits.seems_over_by, turn.deadline, turn.obey_by, life.approvals.requests.deadline,
            life.confirmations.deadline, self._idle_by(),
        )  # fmt: skip
        return min((moment for moment in moments if moment is not None), default=None)

    def _idle_by(self) -> float | None:
        life = self._life
        return life.limits.idle_by(bool(life.background)) if life.status is Status.IDLE else None

    def fire(self, reading_paused: bool) -> None:
        """Act on all moments that have come."""
        life = self._life
        self._set_for = None
        if life.phase is Phase.OPEN:
            self._check_agent(reading_paused)
        if life.phase is Phase.OPEN:
            self._check_work()
        life.settle()
        if life.phase is Phase.OPEN and _has_come(self._idle_by(), life.now):
            life.finish(Outcome(Status.DONE, Reason.IDLE_TIMEOUT))

    def _check_agent(self, reading_paused: bool) -> None:
        """What ends the whole session."""
        life = self._life
        limits, now = life.limits, life.now
        if _has_come(limits.session_by, now):
            life.fail(f"Ran over {life.options.timeout_s:g} s", Reason.TIMEOUT)
        if _has_come(limits.handshake_by, now):
            self._handshake_over()
        if _has_come(limits.mute_by, now):
            if reading_paused:  # it may wait for us
                limits.mute_by = now + MUTE_S
            else:
                life.fail(f"The runner closed its {self._mute_pipe} and did not end")

    def _check_work(self) -> None:
        """What ends a turn, a request or a command."""
        life = self._life
        limits, now = life.limits, life.now
        self._turn_over()
        self._commands.reject_overdue()
        if _has_come(life.approvals.requests.deadline, now) and life.protocol is not None:
            resumes = life.approvals.expire(life.protocol, now)
            if resumes and not life.turn.is_open:
                life.resume_turn()
        if _has_come(limits.unread_by, now):
            self._unread_turn_over()
        if _has_come(limits.texts_by, now) and life.protocol is not None:
            limits.texts_by = None
            self._agent.say(life.protocol.finish_texts())
        if _has_come(limits.seems_over_by, now):
            limits.seems_over_by = None
            if life.turn.is_open:
                self._agent.say(life.agent.end_turn(limits.seems_over))

    def _handshake_over(self) -> None:
        life = self._life
        if life.protocol is not None and life.protocol.is_ready:
            life.show_ready()
        else:
            life.fail(f"The agent did not answer its handshake within {life.limits.handshake_s:g} s")

    def _turn_over(self) -> None:
        """The turn's time is over, or it was interrupted and has not ended in time."""
        life, turn, now = self._life, self._life.turn, self._life.now
        text = f"A turn ran over {life.options.turn_timeout_s or 0:g} s"
        if _has_come(turn.deadline, now):
            try:
                data = life.interrupt().data
            except CommandRefused:
                life.fail(text, Reason.TIMEOUT)
                return
            turn.run_over(now + OBEY_S)
            life.output.message(DraftMessage("error", Error(f"{text} and is interrupted", "turn_timeout")))
            life.output.write_after_commit(data)
        elif _has_come(turn.obey_by, now):
            if turn.ran_over:
                life.fail(text, Reason.TIMEOUT)
            else:
                life.fail(f"The agent did not end its turn within {life.limits.handshake_s:g} s of an interrupt")

    def _unread_turn_over(self) -> None:
        """A line that could not be read was the last one: it was the turn's end, as far as can be known."""
        life = self._life
        life.limits.unread_by = None
        if not life.turn.is_open or life.approvals.requests.open:
            return
        silence = f"Nothing has come for {life.limits.handshake_s:g} s after a line that could not be read"
        ended = life.agent.end_turn(silence)
        self._agent.say(ended or life.agent.close("Its result could not be read"))
        if ended:
            return
        life.cut_turn(Error(f"{silence}: the turn is taken for over", "turn_end_lost"))
        life.next_turn()


def _has_come(moment: float | None, now: float) -> bool:
    return moment is not None and moment <= now
