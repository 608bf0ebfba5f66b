"""The table of dialects by the name that settings use, and what each needs to begin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from agentrq.wire.commands import Options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.acp.protocol import Acp
from agentrq_worker.providers.claude.parser import ClaudeAdapter
from agentrq_worker.providers.claude.protocol import ClaudeDialect
from agentrq_worker.providers.codex.app_protocol import CodexApp
from agentrq_worker.providers.parser_registry import UnknownAdapter
from agentrq_worker.providers.parser_registry import adapter as make_adapter
from agentrq_worker.providers.protocol import Dialect
from agentrq_worker.providers.runner_protocol import RunnerProtocol


def _runner(session_id: str, options: Options, adapter: str, total: SessionTotal, epoch: int) -> Dialect:
    return RunnerProtocol(session_id, options, adapter, partial(make_adapter, epoch=epoch), total)


def _claude(session_id: str, options: Options, adapter: str, total: SessionTotal, epoch: int) -> Dialect:
    if adapter != "claude":
        raise UnknownAdapter(adapter, ["claude"])
    return ClaudeDialect(options, ClaudeAdapter(total, epoch))


_JSONRPC: Final[dict[str, Callable[[Options, SessionTotal, int], Dialect]]] = {"acp": Acp, "codex": CodexApp}


def _jsonrpc(session_id: str, options: Options, adapter: str, total: SessionTotal, epoch: int) -> Dialect:
    if adapter not in _JSONRPC:
        raise UnknownAdapter(adapter, _JSONRPC)
    return _JSONRPC[adapter](options, total, epoch)


DIALECTS: Final[dict[str, Callable[[str, Options, str, SessionTotal, int], Dialect]]] = {
    "runner": _runner,
    "claude": _claude,
    "jsonrpc": _jsonrpc,
}
"""Dialects by name; each is made from session id, options, adapter name, sums so far, epoch."""


def make_dialect(
    name: str, session_id: str, options: Options, adapter: str, total: SessionTotal, epoch: int
) -> Dialect:
    """The dialect of one writer of one session. Raises `UnknownAdapter`, KeyError for an unknown dialect."""
    return DIALECTS[name](session_id, options, adapter, total, epoch)
