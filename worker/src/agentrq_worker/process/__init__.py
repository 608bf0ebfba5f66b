"""An agent as a process: framing, pipes, supervision, environment, and the guardian that outlives the worker."""
