"""What confines an agent's process: a plan made by the worker, applied between spawn and exec."""
