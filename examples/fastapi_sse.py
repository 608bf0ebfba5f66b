"""A FastAPI backend: start a session, stream it as server-sent events, prompt, answer, stop.

Run: AGENTRQ_REDIS_URL=redis://… uvicorn --app-dir examples fastapi_sse:app
A browser that loses its connection sends `Last-Event-ID`, the cursor it saw last: it misses nothing.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from agentrq import AgentRQError, AsyncAgentClient, SessionNotFound, StreamTrimmed
from agentrq.wire.codec import encode
from agentrq.wire.ids import Cursor


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncAgentClient.from_url(os.environ["AGENTRQ_REDIS_URL"]) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(AgentRQError)
async def refused(_: Request, error: AgentRQError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 404 if isinstance(error, SessionNotFound) else 409)


@app.post("/sessions", status_code=201)
async def start(
    request: Request, provider: Annotated[str, Body()], prompt: Annotated[str, Body()], cwd: Annotated[str, Body()]
) -> dict[str, str]:
    session = await request.app.state.client.start(provider, prompt, cwd=cwd)
    return {"sessionId": session.id}


@app.get("/sessions/{session_id}/events")
async def events(request: Request, session_id: str, last_event_id: Annotated[str | None, Header()] = None) -> Response:
    session = request.app.state.client.session(session_id)
    state = await session.state()  # 404 before the stream begins
    try:
        after = Cursor.parse(last_event_id) if last_event_id else None
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    if state.ended and last_event_id == state.cursor:
        return Response(status_code=204)  # else an EventSource would ask again for ever

    async def stream() -> AsyncIterator[bytes]:
        try:
            async for event in session.events(after):
                yield b"id: %s\ndata: %s\n\n" % (event.cursor.encode(), encode(event))
        except StreamTrimmed as error:  # the browser asks again, behind what is not kept any more
            yield b"event: trimmed\nid: %s\ndata: {}\n\n" % error.trimmed_through.encode()

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.post("/sessions/{session_id}/prompts", status_code=202)
async def prompt(request: Request, session_id: str, text: Annotated[str, Body(embed=True)]) -> dict[str, str]:
    return {"commandId": await request.app.state.client.session(session_id).prompt(text)}


@app.post("/sessions/{session_id}/answers/{request_id}", status_code=202)
async def answer(
    request: Request, session_id: str, request_id: str, answer: Annotated[Any, Body(embed=True)]
) -> dict[str, str]:
    return {"commandId": await request.app.state.client.session(session_id).answer(request_id, answer)}


@app.delete("/sessions/{session_id}", status_code=202)
async def stop(request: Request, session_id: str) -> dict[str, str]:
    return {"commandId": await request.app.state.client.session(session_id).stop()}
