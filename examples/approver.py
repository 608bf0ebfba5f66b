"""Somebody who is asked before an agent acts: each open request is posted to a chat, the first reply answers it.

Run: AGENTRQ_REDIS_URL=redis://… python examples/approver.py SESSION_ID
The chat here is the terminal; put your chat's API into `ask`.
"""

import asyncio
import os
import sys
from typing import Any

from agentrq import AgentRQError, AsyncAgentClient
from agentrq.wire.messages import ApprovalRequest, Question


async def ask(text: str) -> str:
    """Post a text, wait for somebody's reply."""
    print(text, end=" ", flush=True)
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


async def decide(request: ApprovalRequest | Question) -> Any:
    if isinstance(request, Question):
        return {"answers": {one["id"]: await ask(one["question"]) for one in request.questions}, "by": "chat"}
    if request.name in {"Read", "Glob", "Grep"}:
        return "allow"
    reply = await ask(f"May the agent use {request.name} with {request.input}? (yes/no)")
    if reply == "yes":
        return {"decision": "allow", "by": "chat"}
    return {"decision": "deny", "message": "Not allowed by the team.", "by": "chat"}


async def main(session_id: str) -> None:
    async with AsyncAgentClient.from_url(os.environ["AGENTRQ_REDIS_URL"]) as client:
        try:
            state = await client.session(session_id).ask_for_approval(decide)
        except AgentRQError as error:
            sys.exit(str(error))
        print(f"\nThe session has ended: {state.status} ({state.reason})")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
