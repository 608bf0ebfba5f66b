"""Approvals by buttons in Slack: each open request of one session is posted, a press of a button answers it.

Run: AGENTRQ_REDIS_URL=redis://… SLACK_WEBHOOK_URL=… SLACK_SIGNING_SECRET=… SESSION=… \\
    uvicorn --app-dir examples slack_approver:app
The app's interactivity URL has to lead to /slack of this program.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import os
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, HTTPException, Request

from agentrq import AgentRQError, AsyncAgentClient
from agentrq.wire.messages import ApprovalRequest, Question

SECRET = os.environ["SLACK_SIGNING_SECRET"].encode()
OLDEST_S = 300
log = logging.getLogger("slack_approver")


def post(session_id: str, request: ApprovalRequest) -> None:
    """Post a request with two buttons; each button holds the answer it stands for."""

    def button(decision: str) -> dict[str, Any]:
        value = json.dumps([session_id, request.request_id, decision])
        label = {"type": "plain_text", "text": decision}
        return {"type": "button", "text": label, "action_id": decision, "value": value}

    text = f"May the agent use {request.name} with {json.dumps(request.input)[:2000]}?"
    section = {"type": "section", "text": {"type": "plain_text", "text": text}}
    body = {"text": text, "blocks": [section, {"type": "actions", "elements": [button("allow"), button("deny")]}]}
    message = urllib.request.Request(
        os.environ["SLACK_WEBHOOK_URL"], json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        urllib.request.urlopen(message, timeout=10).close()
    except OSError as error:
        log.error("the request was not posted: %s", error)


async def follow(client: AsyncAgentClient, session_id: str) -> None:
    async def ask(request: ApprovalRequest | Question) -> None:
        if isinstance(request, ApprovalRequest):
            await asyncio.to_thread(post, session_id, request)
        # None: somebody else answers, which is `pressed` below

    await client.session(session_id).ask_for_approval(ask)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncAgentClient.from_url(os.environ["AGENTRQ_REDIS_URL"]) as client, asyncio.TaskGroup() as tasks:
        app.state.client = client
        following = tasks.create_task(follow(client, os.environ["SESSION"]))
        yield
        following.cancel()


app = FastAPI(lifespan=lifespan)


def is_signed(body: bytes, request: Request) -> bool:
    """Whether Slack sent it, not long ago."""
    stamp = request.headers.get("X-Slack-Request-Timestamp", "")
    expected = "v0=" + hmac.new(SECRET, b"v0:%s:%s" % (stamp.encode(), body), hashlib.sha256).hexdigest()
    recent = stamp.isdigit() and abs(time.time() - int(stamp)) < OLDEST_S
    return recent and hmac.compare_digest(expected, request.headers.get("X-Slack-Signature", ""))


@app.post("/slack")
async def pressed(request: Request) -> dict[str, str]:
    body = await request.body()
    if not is_signed(body, request):
        raise HTTPException(403)
    payload = json.loads(parse_qs(body.decode())["payload"][0])
    session_id, request_id, decision = json.loads(payload["actions"][0]["value"])
    answer = {"decision": decision, "by": payload["user"]["username"]}
    try:
        await request.app.state.client.session(session_id).answer(request_id, answer, wait=True, timeout=10)
    except (AgentRQError, TimeoutError) as error:  # somebody was faster, or the session has ended
        return {"text": str(error)}
    return {"text": f"{decision} by {answer['by']}"}
