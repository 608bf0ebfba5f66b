"""Starts the command ``agentrq``, also as ``python -m agentrq``; exits quietly if interrupted while it loads.

Owns nothing else: the command line is agentrq.cli.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Load the command line and run it."""
    try:
        from agentrq.cli import main as run  # noqa: PLC0415 - it takes a tenth of a second, in which Ctrl-C may come

        run()
    except KeyboardInterrupt:
        sys.exit(130)  # as agentrq.cli.exit_codes has it, which may not be loaded yet


if __name__ == "__main__":
    main()
