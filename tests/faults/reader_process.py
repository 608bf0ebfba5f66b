"""A reader as a process of its own: ``python -m tests.faults.reader_process URL SESSION [CURSOR]`` prints what it sees.

One JSON line an event; it may be killed anywhere.
"""

from __future__ import annotations

import json
import sys

from agentrq import AgentClient
from tests.faults.writing import seen


def main(url: str, session_id: str, after: str | None = None) -> None:
    with AgentClient.from_url(url) as client:
        for event in client.session(session_id).events(after):
            print(json.dumps(seen(event)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
