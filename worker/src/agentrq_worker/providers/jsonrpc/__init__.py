"""JSON-RPC over lines: what Codex app-server and ACP agents share."""
