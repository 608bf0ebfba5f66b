"""Confines an agent's process: the worker makes a plan, which the new process applies before it becomes the agent."""
