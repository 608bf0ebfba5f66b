"""``python -m agentrq_worker`` is ``agentrq worker``."""

from agentrq_worker.cli import worker

worker(prog_name="agentrq worker")
