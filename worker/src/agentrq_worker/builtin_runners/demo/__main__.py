"""The demo: an agent that needs no model, run as ``python -m agentrq_worker.builtin_runners.demo``.

It speaks as Claude Code does and truly looks at its ``cwd``. The first turn (`demo_tour`) shows every type of
message; later ones are short; prompt lines such as ``/echo TEXT`` (`demo_words`) make it the tests' fake agent.
``AGENTRQ_DEMO_PACE`` is the seconds a step takes (default 0.15; 0 is flat out).

Owns the turns and their count.
"""

from __future__ import annotations

import os

from agentrq_worker.builtin_runners.demo import tour as demo_tour
from agentrq_worker.builtin_runners.demo import words as demo_words
from agentrq_worker.builtin_runners.demo.voice import Voice
from agentrq_worker.builtin_runners.protocol import Query, Runner, displayable, run

_PACE_S = 0.15


class Demo:
    """One session: the voice is made at the first query, which brings the options."""

    def __init__(self) -> None:
        self._voice: Voice | None = None
        self._turns = 0

    def turn(self, runner: Runner, query: Query) -> None:
        """Answer one prompt."""
        resumed = query.text("resume") if self._voice is None else None
        if self._voice is None:
            cwd = os.path.abspath(query.text("cwd") or ".")
            self._voice = Voice(runner, session=resumed, model=query.text("model"), cwd=cwd, pace=_pace(runner))
        self._turns += 1
        runner.send("agent_started")
        self._voice.init()
        if asked := demo_words.words(query.prompt):
            demo_words.do(self._voice, asked)
        elif self._turns == 1 and resumed is None:
            self._voice.result(demo_tour.tour(self._voice, query.prompt))
        else:
            self._voice.result(self._short(self._voice, query.prompt, resumed))

    def _short(self, voice: Voice, prompt: str, resumed: str | None) -> str:
        opening = f"Turn {self._turns} of the demo; still no model is asked."
        if resumed is not None:
            opening = f"I am the built-in demo: no language model is asked. I resumed session {resumed}."
        voice.say(opening)
        counted = demo_tour.count(voice)
        report = (
            f"Turn {self._turns}: your prompt was “{demo_tour.quote(prompt)}”. "
            f"{displayable(voice.cwd)} now holds {counted}."
        )
        voice.say(report)
        return report


def _pace(runner: Runner) -> float:
    given = os.environ.get("AGENTRQ_DEMO_PACE", "")
    try:
        pace = float(given) if given else _PACE_S
    except ValueError:
        pace = -1.0
    if 0 <= pace <= 60:
        return pace
    runner.send("agent_log", message=f"AGENTRQ_DEMO_PACE is no number of seconds from 0 to 60: {displayable(given)}")
    return _PACE_S


if __name__ == "__main__":
    run(Demo().turn)
