"""A stand-in for aider's command line, for tests: prints as it does, keeps its chat history file, logs its analytics.

Words in the prompt: ``sleep`` starts a child and stays, ``fail`` exits 3, anything else is answered. Where it writes
the pids of itself and its child: ``FAKE_AIDER_PIDS``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path


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
    print(f"Aider v0.90.1\nMain model: {given.model} with diff edit format", flush=True)
    if "sleep" in prompt:
        child = subprocess.Popen(["sleep", "600"])
        Path(os.environ["FAKE_AIDER_PIDS"]).write_text(f"{os.getpid()} {child.pid}")
        print("I begin.", flush=True)
        time.sleep(600)
    if "fail" in prompt:
        print("litellm.AuthenticationError: no key")
        return 3
    with history.open("a") as file:
        file.write(f"#### {prompt}\n")
    print(f"\nYou said {prompt!r} after {before} others in {Path.cwd().name}. Flags: {' '.join(flags)}")
    print("Tokens: 2.1k sent, 310 received. Cost: $0.01 message, $0.05 session.\nApplied edit to hello.py")
    properties = {"prompt_tokens": 2113, "completion_tokens": 310, "cost": 0.0123}
    Path(given.analytics_log).write_text(json.dumps({"event": "message_send", "properties": properties}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
