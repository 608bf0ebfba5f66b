"""The way of a session's events into Redis: numbered, buffered, written in order."""
