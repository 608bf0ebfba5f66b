"""What one worker counts and times: every counter and histogram, with its name, help and labels.

Owns the figures and how they are added to. Does not own what they are read out as (metrics.py), nor what is read of the
worker only when somebody asks (gauges). Adding costs well under a microsecond; nothing here is called for each message.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

MOST_LABELS: Final = 200
"""Sets of labels that one figure keeps: agents name models and starts name providers, so that nobody fills the memory
with them. What comes later is counted under `OTHER`."""
OTHER: Final = "other"

FAST_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SLOW_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Upper bounds of a histogram's buckets in seconds: of what the machine does, and of what agents and people do."""


class Counts:
    """A counter by labels."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        """``name`` without ``_total``; ``text``: its help."""
        self.name, self.text, self.labels = name, text, labels
        self.values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Count; amounts below 0 are ignored, for a counter never falls."""
        if amount > 0:
            if labels not in self.values and len(self.values) >= MOST_LABELS:
                labels = (OTHER,) * len(labels)
            self.values[labels] = self.values.get(labels, 0.0) + amount


class Times:
    """A histogram of durations by labels, in seconds."""

    def __init__(self, name: str, text: str, *labels: str, bounds: tuple[float, ...]) -> None:
        """``bounds``: the buckets' upper bounds, rising."""
        self.name, self.text, self.labels, self.bounds = name, text, labels, bounds
        self.buckets: dict[tuple[str, ...], list[int]] = {} if labels else {(): [0] * (len(bounds) + 1)}
        """How many fell into each bucket, the last being above all bounds; not cumulative."""
        self.sums: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, seconds: float, *labels: str) -> None:
        """Count one duration; below 0 it is 0."""
        if labels not in self.buckets:
            if len(self.buckets) >= MOST_LABELS:
                labels = (OTHER,) * len(labels)
            self.buckets.setdefault(labels, [0] * (len(self.bounds) + 1))
        seconds = max(seconds, 0.0)
        self.buckets[labels][bisect_left(self.bounds, seconds)] += 1
        self.sums[labels] = self.sums.get(labels, 0.0) + seconds


class Measurements:
    """All that one worker counts and times, from its start on."""

    def __init__(self) -> None:
        provider = "provider"
        self.started = Counts("agentrq_sessions_started", "Sessions that began here, recovered ones not among them.",
                              provider)  # fmt: skip
        self.recovered = Counts(
            "agentrq_sessions_recovered",
            "Sessions of other workers that this one took: `lost` with their worker, or `handed_over` by it.",
            provider, "cause",
        )  # fmt: skip
        self.ended = Counts("agentrq_sessions_ended", "Sessions ended here.", provider, "status", "reason")
        self.turns = Counts(
            "agentrq_turns",
            "Turns that are over: `whole`, `interrupted` by a user, `failed` by the agent's word, or `cut`, that is "
            "ended by the process, the worker or the time.",
            provider, "outcome",
        )  # fmt: skip
        self.tokens = Counts("agentrq_tokens", "Tokens that agents report: `input` or `output`.",
                             provider, "model", "direction")  # fmt: skip
        self.cost = Counts("agentrq_cost_usd", "US dollars that agents report.", provider, "model")
        self.commands = Counts("agentrq_commands", "Commands from inboxes that got their receipt here.",
                               "command", "outcome")  # fmt: skip
        self.events = Counts("agentrq_events_written", "Events written to Redis.")
        self.bytes = Counts("agentrq_event_bytes_written", "Bytes of the JSON of these events.")
        self.fenced = Counts(
            "agentrq_writes_fenced", "Sessions whose events Redis refused from here because another worker owns them."
        )
        self.orphans = Counts(
            "agentrq_orphan_processes_ended", "Processes of dead workers that this one ended when it began."
        )
        self.start_to_claim = Times("agentrq_start_to_claim_seconds", "From a session's creation to its first claim.",
                                    provider, bounds=SLOW_S)  # fmt: skip
        self.takeover = Times(
            "agentrq_takeover_seconds",
            "From the time that a session was handed over, or its worker was found lost, to its claim here.",
            "cause", bounds=SLOW_S,
        )  # fmt: skip
        self.claim_to_output = Times("agentrq_claim_to_first_output_seconds",
                                     "From a claim to the first bytes that the runner printed.",
                                     provider, bounds=FAST_S)  # fmt: skip
        self.turn = Times("agentrq_turn_seconds", "Length of the turns that began here.",
                          provider, "outcome", bounds=SLOW_S)  # fmt: skip
        self.tool = Times("agentrq_tool_seconds", "From a tool call to its result.", provider, bounds=SLOW_S)
        self.approval_wait = Times("agentrq_approval_wait_seconds",
                                   "From a request or question to its answer or withdrawal.",
                                   provider, "decision", bounds=SLOW_S)  # fmt: skip
        self.receipt = Times("agentrq_command_receipt_seconds", "From a command's arrival in Redis to its receipt.",
                             "command", bounds=FAST_S)  # fmt: skip
        self.publish = Times("agentrq_publish_seconds", "Calls that write a batch of events, outages included.",
                             bounds=FAST_S)  # fmt: skip
        self.loop_lag = Times("agentrq_event_loop_lag_seconds",
                              "How late the worker's event loop runs a timer that is due, measured every second.",
                              bounds=FAST_S)  # fmt: skip

    @property
    def families(self) -> list[Counts | Times]:
        """All of them."""
        return list(vars(self).values())
