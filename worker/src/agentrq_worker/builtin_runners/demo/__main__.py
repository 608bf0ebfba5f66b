"""The demo: an agent without a model, run as ``python -m agentrq_worker.builtin_runners.demo``.

It prints what Claude Code prints and reads its ``cwd``. The first turn (tour.py) shows every type of message; later
ones are short; prompt lines such as ``/echo TEXT`` (prompt_commands.py) make it the tests' fake agent. With the
permission mode ``default`` it asks before it reads a file, asks a question, and waits for the answers; with an approval
policy it asks before it reads. The prompt ``/ask COMMAND`` has it ask in any mode, and run nothing.
``AGENTRQ_DEMO_PACE`` is the seconds a step takes (default 0.15; 0 for no pause).

Owns the turns and their count.
"""

from __future__ import annotations

import os

from agentrq_worker.builtin_runners.demo import prompt_commands, tour
from agentrq_worker.builtin_runners.demo.claude_output import ClaudeOutput
from agentrq_worker.builtin_runners.protocol import Query, Runner, TurnInterrupted, displayable, run

_PACE_S = 0.15


class Demo:
    """One session; the first query brings its options."""

    def __init__(self) -> None:
        self._output: ClaudeOutput | None = None
        self._turns = 0

    def turn(self, runner: Runner, query: Query) -> None:
        """Answers one prompt."""
        resumed = query.text("resume") if self._output is None else None
        if self._output is None:
            self._output = ClaudeOutput(
                runner,
                session=resumed,
                model=query.text("model"),
                cwd=os.path.abspath(query.text("cwd") or "."),
                pace=_pace(runner),
                asks_permission=_asks(query) or query.options.get("approvals") is not None,
                asks_questions=_asks(query),
            )
        self._turns += 1
        runner.send("agent_started")
        try:
            self._output.init()
            self._answer(self._output, query.prompt, resumed)
        except TurnInterrupted:
            self._output.result("", errors=["Interrupted by the user"])

    def _answer(self, output: ClaudeOutput, prompt: str, resumed: str | None) -> None:
        if commands := prompt_commands.parse(prompt):
            prompt_commands.run_all(output, commands)
        elif self._turns == 1 and resumed is None:
            output.result(tour.show(output, prompt))
        else:
            output.result(self._report(output, prompt, resumed))

    def _report(self, output: ClaudeOutput, prompt: str, resumed: str | None) -> str:
        opening = f"Turn {self._turns} of the demo; still no model is asked."
        if resumed is not None:
            opening = f"I am the built-in demo: no language model is asked. I resumed session {resumed}."
        output.text(opening)
        counted = tour.count(output)
        report = (
            f"Turn {self._turns}: your prompt was “{tour.quote(prompt)}”. "
            f"{displayable(output.cwd)} now holds {counted}."
        )
        output.text(report)
        return report


def _asks(query: Query) -> bool:
    """Whether the start wants to be asked: as with any agent, not by default (``bypassPermissions``)."""
    return query.text("permissionMode") in ("default", "plan")


def _pace(runner: Runner) -> float:
    given = os.environ.get("AGENTRQ_DEMO_PACE", "")
    try:
        pace = float(given) if given else _PACE_S
    except ValueError:
        pace = -1.0
    if 0 <= pace <= 60:
        return pace
    runner.send("agent_log", message=f"AGENTRQ_DEMO_PACE is not a number of seconds from 0 to 60: {displayable(given)}")
    return _PACE_S


if __name__ == "__main__":
    run(Demo().turn, accepts=("answer", "interrupt"))
