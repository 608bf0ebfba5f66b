"""Plays a recorded transcript as if an agent printed it."""
