"""``python -m agentrq.cli``."""

from agentrq.cli import main

main()
