"""A small `codex app-server` for tests: echoes prompts; prompt ``wait`` works until it is interrupted or steered."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

assert sys.argv[1] == "app-server", sys.argv


def send(**members: Any) -> None:
    sys.stdout.write(json.dumps(members) + "\n")
    sys.stdout.flush()


class Server:
    """One thread of one connection."""

    def __init__(self) -> None:
        self.thread = ""
        self.turns = 0
        self.asked: dict[str, Any] = {}

    def note(self, method: str, **params: Any) -> None:
        send(method=method, params={"threadId": self.thread, **params})

    def item(self, event: str, **item: Any) -> None:
        self.note(f"item/{event}", item=item)

    def handle(self, line: dict[str, Any]) -> None:
        method, params = line.get("method"), line.get("params", {})
        if method is None:
            self.item(
                "completed", type="agentMessage", id=f"d{self.turns}", text=f"decision {line['result']['decision']}"
            )
            self.end()
        elif method == "thread/start":
            self.thread, self.asked = f"th-{os.getpid()}", params
            send(id=line["id"], result={"thread": {"id": self.thread}, "model": "gpt-5", "cwd": params["cwd"]})
        elif method == "turn/start":
            self.turns += 1
            send(id=line["id"], result={"turn": {"id": f"t{self.turns}", "status": "inProgress"}})
            self.note("turn/started", turn={"id": f"t{self.turns}", "status": "inProgress"})
            self.turn(params["input"][0]["text"])
        elif method == "turn/steer":
            assert params["expectedTurnId"] == f"t{self.turns}"
            send(id=line["id"], result={"turnId": f"t{self.turns}"})
            self.say(f"steered by {params['input'][0]['text']!r}")
            self.end()
        elif method == "turn/interrupt":
            send(id=line["id"], result={})
            self.end("interrupted")
        elif method != "initialized":
            send(id=line["id"], result={})

    def turn(self, words: str) -> None:
        if words == "wait":
            self.item("started", type="commandExecution", id=f"c{self.turns}", command="sleep 600")
        elif words == "ask":
            self.item("started", type="commandExecution", id=f"c{self.turns}", command="rm x")
            params = {"threadId": self.thread, "itemId": f"c{self.turns}", "command": "rm x"}
            send(id=0, method="item/commandExecution/requestApproval", params=params)
        else:
            home, policy = os.environ.get("CODEX_HOME"), self.asked["approvalPolicy"]
            self.say(f"You said {words!r}; home {home}, policy {policy}.")
            self.end()

    def say(self, text: str) -> None:
        self.note("item/agentMessage/delta", itemId=f"m{self.turns}", delta=text)
        self.item("completed", type="agentMessage", id=f"m{self.turns}", text=text)

    def end(self, status: str = "completed") -> None:
        sums = {"inputTokens": 100 * self.turns, "outputTokens": 20 * self.turns}
        self.note(
            "thread/tokenUsage/updated", tokenUsage={"total": sums, "last": {"inputTokens": 100, "outputTokens": 20}}
        )
        self.note("turn/completed", turn={"id": f"t{self.turns}", "status": status, "durationMs": 1})


if __name__ == "__main__":
    server = Server()
    for each in sys.stdin:
        server.handle(json.loads(each))
