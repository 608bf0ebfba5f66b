"""The table of dialects by the name that settings use, and what each needs to begin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from agentrq.wire.commands import Options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.acp.protocol import AcpProtocol
from agentrq_worker.providers.claude.parser import ClaudeParser
from agentrq_worker.providers.claude.protocol import ClaudeProtocol
from agentrq_worker.providers.codex.app_protocol import CodexAppProtocol
from agentrq_worker.providers.parser_registry import UnknownParser
from agentrq_worker.providers.parser_registry import adapter as make_adapter
from agentrq_worker.providers.protocol import AgentProtocol
from agentrq_worker.providers.runner_protocol import RunnerProtocol


def _runner(session_id: str, options: Options, adapter: str, total: SessionTotal, epoch: int) -> AgentProtocol:
    return RunnerProtocol(session_id, options, adapter, partial(make_adapter, epoch=epoch), total)


def _claude(session_id: str, options: Options, adapter: str, total: SessionTotal, epoch: int) -> AgentProtocol:
    if adapter != "claude":
        raise UnknownParser(adapter, ["claude"])
    return ClaudeProtocol(options, ClaudeParser(total, epoch))


_JSONRPC: Final[dict[str, Callable[[Options, SessionTotal, int], AgentProtocol]]] = {
    "acp": AcpProtocol,
    "codex": CodexAppProtocol,
}


def _jsonrpc(session_id: str, options: Options, adapter: str, total: SessionTotal, epoch: int) -> AgentProtocol:
    if adapter not in _JSONRPC:
        raise UnknownParser(adapter, _JSONRPC)
    return _JSONRPC[adapter](options, total, epoch)


PROTOCOLS: Final[dict[str, Callable[[str, Options, str, SessionTotal, int], AgentProtocol]]] = {
    "runner": _runner,
    "claude": _claude,
    "jsonrpc": _jsonrpc,
}
"""Dialects by name; each is made from session id, options, adapter name, sums so far, epoch."""


def make_protocol(
    name: str, session_id: str, options: Options, adapter: str, total: SessionTotal, epoch: int
) -> AgentProtocol:
    """The dialect of one writer of one session. Raises `UnknownParser`, KeyError for an unknown dialect."""
    return PROTOCOLS[name](session_id, options, adapter, total, epoch)
