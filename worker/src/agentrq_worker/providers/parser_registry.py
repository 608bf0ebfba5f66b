"""The providers' adapters: lines of an agent's output in, typed messages out; pure, no IO.

Owns the table of adapters by name. A new provider is one module here, its recordings and their golden messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.acp.parser import AcpParser
from agentrq_worker.providers.aider import AiderParser
from agentrq_worker.providers.claude.parser import ClaudeParser
from agentrq_worker.providers.codex.auto import CodexAutoParser
from agentrq_worker.providers.gemini import GeminiParser
from agentrq_worker.providers.ollama import OllamaParser
from agentrq_worker.providers.opencode import OpencodeParser
from agentrq_worker.providers.parser import NO_TURNS, OutputParser

PARSERS: Final[dict[str, type[OutputParser]]] = {
    "acp": AcpParser,
    "aider": AiderParser,
    "claude": ClaudeParser,
    "codex": CodexAutoParser,
    "gemini": GeminiParser,
    "ollama": OllamaParser,
    "opencode": OpencodeParser,
}
"""The adapters by the name that settings use."""


class UnknownParser(ValueError):
    """No adapter has this name; the message lists those that exist."""

    def __init__(self, name: str, known: Iterable[str] = PARSERS) -> None:
        super().__init__(f"No adapter {name!r}; adapters are {', '.join(sorted(known))}")
        self.name = name


def adapter(name: str, total: SessionTotal = NO_TURNS, epoch: int = 1) -> OutputParser:
    """A new adapter for one writer of one session; raises `UnknownParser`.

    ``total`` and ``epoch`` are as `OutputParser` takes them.
    """
    kind = PARSERS.get(name)
    if kind is None:
        raise UnknownParser(name)
    return kind(total, epoch)
