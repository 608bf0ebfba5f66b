"""The recordings of real agents in ``tests/transcripts``, and the provider of each."""

from __future__ import annotations

from pathlib import Path

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
RECORDINGS = sorted(path for path in TRANSCRIPTS.glob("*.ndjson") if not path.name.endswith(".in.ndjson"))
PARSER_OF = {
    "claude": "claude",
    "claude197": "claude",
    "codex": "codex",
    "codexapp": "codex",
    "gemini": "gemini",
    "opencode": "opencode",
    "claudeacp": "acp",
    "geminiacp": "acp",
    "opencodeacp": "acp",
}


def provider_of(recording: Path) -> str:
    return PARSER_OF[recording.name.partition("-")[0]]


def is_rpc(recording: Path) -> bool:
    return recording.name.partition("-")[0] in ("codexapp", "claudeacp", "geminiacp", "opencodeacp")


RPC = [recording for recording in RECORDINGS if is_rpc(recording)]
ONE_WAY = [recording for recording in RECORDINGS if not is_rpc(recording)]
