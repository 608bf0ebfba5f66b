"""A front end's stream that its gateway has to end before the response is over."""

from __future__ import annotations

import pytest

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway
from tests.gateway.listening import Listener

CHAT = {"provider": "demo", "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "x"}]}]}
THREAD = {
    "threadId": "t", "runId": "r", "messages": [{"id": "m", "role": "user", "content": "x"}],
    "forwardedProps": {"provider": "demo"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "clean"),
    [("/ui/t?deltas=1", CHAT, False), ("/ui/t?deltas=0", CHAT, True), ("/agui", THREAD, False)],
)
async def test_only_a_client_that_resumes_by_itself_gets_a_clean_end_in_mid_turn(
    gateway: Gateway, client: AsyncAgentClient, path: str, body: object, clean: bool
) -> None:
    """Any other would show what it has as the whole response; of a cut connection it knows that it is none."""
    async with Listener(gateway, path, body=body) as stream:
        assert stream.status == 200
        assert (await stream.next()).retry is not None  # type: ignore[union-attr] # the first frame
        gateway.end_streams()
        await stream.rest()
        assert stream.closed == clean
