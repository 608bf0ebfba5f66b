"""A stand-in for aider's command line, for tests: prints as it does, keeps its chat history file, logs its analytics.

As aider does it, what it says itself is written to the history and then printed; an answer is printed and then written.

Words in the prompt: ``sleep`` starts a child and stays, ``fail`` exits 3, ``quote`` answers with aider's own words,
anything else is answered. Where it writes the pids of itself and its child: ``FAKE_AIDER_PIDS``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

QUOTED = """Aider prints, among others:

Warning: it's best to only add files that need changes.
> Warning: it's best to only add files that need changes.\x20\x20
ConnectionError is raised when the server is away.
Applied edit to hello.py
Commit 1a2b3c4 feat: Add hello
Tokens: 9k sent, 9k received. Cost: $9.00 message, $9.00 session."""
TOKENS = "Tokens: 2.1k sent, 310 received. Cost: $0.01 message, $0.05 session."


def main() -> int:
    """One run."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("message-file", "analytics-log", "chat-history-file", "input-history-file", "model", "chat-mode"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--restore-chat-history", action="store_true")
    given, flags = parser.parse_known_args()
    prompt = Path(given.message_file).read_text()
    history = Path(given.chat_history_file)
    before = history.read_text().count("#### ") if given.restore_chat_history else 0

    def say(*lines: str) -> None:
        for line in lines:
            with history.open("a") as file:
                file.write(f"> {line}  \n")
            print(line, flush=True)

    say("Aider v0.90.1", f"Main model: {given.model} with diff edit format")
    if "sleep" in prompt:
        child = subprocess.Popen(["sleep", "600"])
        Path(os.environ["FAKE_AIDER_PIDS"]).write_text(f"{os.getpid()} {child.pid}")
        print("I begin.", flush=True)
        time.sleep(600)
    if "fail" in prompt:
        say("litellm.AuthenticationError: no key")
        return 3
    with history.open("a") as file:
        file.write(f"#### {prompt}\n")
    answer = f"You said {prompt!r} after {before} others in {Path.cwd().name}. Flags: {' '.join(flags)}"
    for _ in range(2 if "quote" in prompt else 1):  # the second answer says again what the history holds already
        answer = QUOTED if "quote" in prompt else answer
        print(f"\n{answer}", flush=True)
        with history.open("a") as file:
            file.write(f"\n{answer}\n\n")
    say(TOKENS, "Applied edit to hello.py")
    properties = {"prompt_tokens": 2113, "completion_tokens": 310, "cost": 0.0123}
    Path(given.analytics_log).write_text(json.dumps({"event": "message_send", "properties": properties}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
