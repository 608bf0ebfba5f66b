"""Reads both of codex's outputs: `codex exec --json`, and recordings of `codex app-server`.

Owns only the choice, line by line: app-server's lines are JSON-RPC and have no ``type``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.codex.app_parser import CodexAppParser
from agentrq_worker.providers.codex.exec_parser import CodexExecParser
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.parser import INTERRUPTED, NO_TURNS


class _Probe(msgspec.Struct):
    type: Any = None
    method: Any = None
    id: Any = None
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_probe = msgspec.json.Decoder(_Probe).decode


class CodexAutoParser(CodexExecParser):
    """Reads `codex exec --json`, and recordings of `codex app-server`."""

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        super().__init__(total, epoch)
        self._app: CodexAppParser | None = None

    def _rescue(self, line: bytes) -> list[DraftMessage]:
        """`codex exec`'s decoder refuses lines without a ``type``."""
        if not _is_rpc(line):
            return super()._rescue(line)
        if self._app is None:
            self._app = CodexAppParser(self.total, self._epoch)
        drafts = self._app.receive(line)
        self.total = self._app.total
        return drafts

    def close(self, reason: str = INTERRUPTED) -> list[DraftMessage]:
        """Like `OutputParser.close`."""
        return super().close(reason) + (self._app.close(reason) if self._app is not None else [])


def _is_rpc(line: bytes) -> bool:
    try:
        found = _probe(line)
    except (ValueError, RecursionError):
        return False
    is_response = found.id is not None and (len(found.result) > 0 or len(found.error) > 0)
    return found.type is None and (isinstance(found.method, str) or is_response)
