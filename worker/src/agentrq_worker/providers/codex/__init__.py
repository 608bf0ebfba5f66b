"""Codex: `codex app-server`, and recordings of `codex exec --json`."""
