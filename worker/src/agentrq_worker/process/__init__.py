"""Runs an agent as a process: pipes, lines, environment, the end of its tree, the guardian beside the worker."""
