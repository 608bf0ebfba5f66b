"""Claude Code: `stream-json` both ways."""
