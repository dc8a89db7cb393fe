"""A reference server: it answers messages of one split over HTTP, to those who know its token.

    POST /answer    a message -> the outputs as safetensors
    GET  /split     what is served: the split's SHA-256 and the cap

A request needs `Authorization: Bearer TOKEN`. What is wrong with a request is said in JSON, with a status: 400 for a
message that is damaged or of another split, 401 without the token, 408 where it does not arrive in time, 413 above the
cap; 503 is said while too many are waiting. It listens to this machine alone unless it is told otherwise; over a
network it belongs behind what terminates TLS.
"""

import asyncio
import hmac
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from slimwright.codec.split.sides import ServerSide
from slimwright.errors import CodecError, RequestError

ARRIVAL_S = 10.0  # for a message of a few hundred bytes
AT_ONCE, WAITING = 2, 64  # messages that are computed, and that may wait
IDLE_S, GRACE_S = 5, 5
BINARY = "application/octet-stream"


def app_of(side: ServerSide, token: str, *, arrival_s: float = ARRIVAL_S) -> FastAPI:
    """Return the server's application."""
    app = FastAPI(title="slimwright split", docs_url=None, redoc_url=None, openapi_url=None)
    bundle, turns = side.bundle, asyncio.Semaphore(AT_ONCE)

    @app.get("/split")
    async def about(request: Request) -> Response:
        if not _knows(request, token):
            return _refused(401, "the request has no right token")
        return JSONResponse({"split_id": bundle.manifest.split_id, "most_bytes": bundle.most_bytes})

    @app.post("/answer")
    async def answer(request: Request) -> Response:
        if not _knows(request, token):
            return _refused(401, "the request has no right token")
        try:
            async with asyncio.timeout(arrival_s):
                data = await _body(request, bundle.most_bytes)
        except TimeoutError:
            return _refused(408, f"the message did not arrive within {arrival_s:g} s")
        if data is None:
            return _refused(413, f"a message has at most {bundle.most_bytes} bytes")
        try:
            async with turns:
                return Response(await run_in_threadpool(side.answer, data), media_type=BINARY)
        except CodecError as error:
            return _refused(400, str(error))

    return app


def serve(side: ServerSide, token: str, *, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Answer until the process is asked to end; `tell` is given the address that is listened at.

    Raises RequestError where nothing can listen there.
    """
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise RequestError(f"cannot listen at {host}:{port}: {error.strerror or error}; name another --port") from error
    config = uvicorn.Config(
        app_of(side, token),
        log_level="warning",
        access_log=False,
        limit_concurrency=AT_ONCE + WAITING,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
    )
    with listening:
        tell(f"http://{host}:{listening.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listening])


async def _body(request: Request, most: int) -> bytes | None:
    """The body of a request; None where it is larger than it may be, which is seen before it is all there."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        return None
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            return None
    return bytes(data)


def _knows(request: Request, token: str) -> bool:
    """Whether a request has the token; how long that takes says nothing of it."""
    given = request.headers.get("authorization", "").encode("utf-8", "replace")
    return hmac.compare_digest(given, f"Bearer {token}".encode())


def _refused(status: int, why: str) -> JSONResponse:
    return JSONResponse({"error": why}, status)
