"""The runner as a process: framing, supervision, environment, and the guardian that outlives the worker."""
