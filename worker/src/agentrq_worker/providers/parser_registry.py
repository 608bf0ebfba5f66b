"""The providers' adapters: lines of an agent's output in, typed messages out; pure, no IO.

Owns the table of adapters by name. A new provider is one module here, its recordings and their golden messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.acp.parser import AcpAdapter
from agentrq_worker.providers.aider import AiderAdapter
from agentrq_worker.providers.claude.parser import ClaudeAdapter
from agentrq_worker.providers.codex.auto import CodexBothAdapter
from agentrq_worker.providers.draft_message import Draft
from agentrq_worker.providers.gemini import GeminiAdapter
from agentrq_worker.providers.ollama import OllamaAdapter
from agentrq_worker.providers.opencode import OpencodeAdapter
from agentrq_worker.providers.parser import NO_TURNS, Adapter

__all__ = ["ADAPTERS", "Adapter", "Draft", "UnknownAdapter", "adapter"]

ADAPTERS: Final[dict[str, type[Adapter]]] = {
    "acp": AcpAdapter,
    "aider": AiderAdapter,
    "claude": ClaudeAdapter,
    "codex": CodexBothAdapter,
    "gemini": GeminiAdapter,
    "ollama": OllamaAdapter,
    "opencode": OpencodeAdapter,
}
"""The adapters by the name that settings use."""


class UnknownAdapter(ValueError):
    """No adapter has this name; the message lists those that exist."""

    def __init__(self, name: str, known: Iterable[str] = ADAPTERS) -> None:
        super().__init__(f"No adapter {name!r}; adapters are {', '.join(sorted(known))}")
        self.name = name


def adapter(name: str, total: SessionTotal = NO_TURNS, epoch: int = 1) -> Adapter:
    """A new adapter for one writer of one session; raises `UnknownAdapter`.

    ``total`` and ``epoch`` are as `Adapter` takes them.
    """
    kind = ADAPTERS.get(name)
    if kind is None:
        raise UnknownAdapter(name)
    return kind(total, epoch)
