"""The local server of the explorer: the page, and an API over an `Engine`.

JSON for structure, safetensors for arrays (with the facts as JSON in the header's metadata), lines of JSON for
generation. Runs are queued and bounded, and a newer run of a tab replaces its older one that has not begun.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from anyio import CancelScope
from safetensors.numpy import save
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from onnxlens.plugins.explorer._engine import Engine
from onnxlens.plugins.explorer._requests import (
    ArrayRequest,
    ContinueRequest,
    ModelRequest,
    RunRequest,
    SweepRequest,
    TokenizeRequest,
    ViewRequest,
    decoded,
)
from onnxlens.runtime import Stop
from onnxlens.runtime.errors import InputError, OnnxLensError, OutputError, StoppedError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["BUILT", "application", "free_socket", "serve"]

BUILT = Path(__file__).parent / "built"  # the page, which `make explore` builds
TOKEN = "x-onnxlens-token"  # the header with the token of a server that others can reach
_TAB = "x-onnxlens-tab"  # the header with an id of the tab, whose newer runs replace older ones

_LARGEST_BODY = 1_000_000  # bytes
_MOST_WAITING = 16  # runs
_CHECKED_EVERY = 0.1  # seconds: whether the client of a run is still there
_SHORTER = "ask for less, such as a shorter text or fewer layers of a sweep."
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A visualizer's page: it may run its own scripts, but in an origin of its own, without this page and the network.
_FRAME = "/frame.html"
_FRAME_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class _Queue:
    """Runs one request at a time; bounds how many wait; a newer one of a tab replaces its older one."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._newest: dict[str, int] = {}

    @asynccontextmanager
    async def turn(self, tab: str) -> AsyncIterator[None]:
        """Waits for its turn.

        Args:
            tab: what a newer request replaces the older one of; empty for a request that nothing replaces.

        Raises:
            HTTPException: 503 if too many wait, 409 if a newer request of the tab came meanwhile.
        """
        if self._waiting >= _MOST_WAITING:
            raise HTTPException(503, "The server is busy; try again in a moment.", {"retry-after": "1"})
        number = self._newest.get(tab, 0) + 1
        if tab:
            self._newest[tab] = number
        self._waiting += 1
        try:
            async with self._turn:
                if tab and self._newest[tab] != number:
                    raise HTTPException(409, "A newer request of this tab came first.")
                yield
        finally:
            self._waiting -= 1
            if self._newest.get(tab) == number:
                del self._newest[tab]


class _Guard:
    """Refuses requests of other sites, of others than the user, and bodies that are too large; adds safe headers.

    Args:
        app: the application.
        hosts: values of the Host header that are accepted, which keeps other names for this address (DNS rebinding)
            out; None for all.
        token: the token that requests for the API must state; None for none.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None, token: str | None) -> None:
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks a request, and passes it on or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        async def safe(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = {**_HEADERS, "content-security-policy": _FRAME_POLICY} if scope["path"] == _FRAME else _HEADERS
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in added.items()),
                ]
            await send(message)

        if refused := self._refused(scope["path"], headers):
            await JSONResponse({"error": refused[1]}, refused[0])(scope, receive, safe)
            return
        await self._app(scope, receive, safe)

    def _refused(self, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self._hosts is not None and host not in self._hosts:
            return 403, "This server answers to its own address only."
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "Requests of other sites are refused."
        has_token = self._token is None or secrets.compare_digest(headers.get(TOKEN, ""), self._token)
        if path.startswith("/api/") and not has_token:
            return 401, "The token is missing or wrong; open the link that 'onnxlens explore' printed."
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _LARGEST_BODY:
            return 413, f"A request has at most {_LARGEST_BODY} bytes."
        return None


def application(
    engine: Engine, *, hosts: frozenset[str] | None = None, token: str | None = None, longest: float = 120
) -> Starlette:
    """Makes the ASGI application of an engine.

    Args:
        engine: answers requests.
        hosts: values of the Host header that are accepted; None for all.
        token: the token that requests for the API must state; None for none.
        longest: seconds after which a run is stopped.
    """
    queue = _Queue()

    async def models(_: Request) -> Response:
        return JSONResponse({"models": engine.models()})

    def plain(kind: type[msgspec.Struct], method: Callable[[Any], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            asked = decoded(kind, await _body(request))
            return JSONResponse(await run_in_threadpool(method, asked))

        return answer

    async def queued(request: Request, method: Callable[[Any], Any], asked: Any) -> Any:
        """Runs a method when its turn comes; stops it when the client goes away, or when it takes too long."""

        def work() -> Any:
            with stop.watching():
                return method(asked)

        async with queue.turn(request.headers.get(_TAB, "")):
            stop = Stop()
            running = asyncio.ensure_future(run_in_threadpool(work))
            ends = asyncio.get_running_loop().time() + longest
            is_gone = False
            try:
                while not (await asyncio.wait({running}, timeout=_CHECKED_EVERY))[0]:
                    is_gone = is_gone or await request.is_disconnected()
                    if is_gone or asyncio.get_running_loop().time() > ends:
                        stop.now()
                return running.result()
            except StoppedError as error:
                if is_gone:
                    raise ClientDisconnect from error
                raise HTTPException(503, f"Stopped after {longest:g} seconds; {_SHORTER}") from error
            finally:
                # Cancelled, such as by a server that is interrupted: the next one's turn comes when the thread is free.
                stop.now()
                with CancelScope(shield=True):
                    await asyncio.wait({running})
                if not running.cancelled():
                    running.exception()  # or asyncio would report that nobody asked for it

    def arrays(kind: type[ArrayRequest], method: Callable[[Any], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            asked = decoded(kind, await _body(request))
            found = await queued(request, method, asked)
            facts = {"facts": msgspec.json.encode(found.facts).decode()}
            sent = _float16(found.arrays) if asked.dtype == "float16" else found.arrays
            return Response(save(sent, facts), media_type="application/octet-stream")

        return answer

    async def view(request: Request) -> Response:
        page = await queued(request, engine.view, decoded(ViewRequest, await _body(request)))
        return Response(page, media_type="text/html", headers={"content-disposition": "attachment"})

    async def continuation(request: Request) -> Response:
        tokens = engine.continuation(decoded(ContinueRequest, await _body(request)))

        async def following() -> dict[str, Any] | None:
            # Each token waits for its turn, so that other requests are answered in between.
            found: dict[str, Any] | None = await queued(request, lambda given: next(given, None), tokens)
            return found

        first = await following()  # errors in the options become an error here

        async def lines() -> AsyncIterator[bytes]:
            token = first
            try:
                while token is not None:
                    yield msgspec.json.encode(token) + b"\n"
                    token = await following()
            except OnnxLensError as error:
                yield msgspec.json.encode({"error": str(error)}) + b"\n"
            except HTTPException as error:
                yield msgspec.json.encode({"error": error.detail}) + b"\n"
            except ClientDisconnect:
                return

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def described(_: Request) -> Response:
        return JSONResponse(openapi())

    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    async def broken(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"The server failed: {type(error).__name__}. Its terminal has the details."}, 500)

    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=499)  # the client went away, so nobody reads this

    api = [
        Route("/models", models),
        Route("/model", plain(ModelRequest, engine.model), methods=["POST"]),
        Route("/tokenize", plain(TokenizeRequest, engine.tokenize), methods=["POST"]),
        Route("/run", arrays(RunRequest, engine.run), methods=["POST"]),
        Route("/sweep", arrays(SweepRequest, engine.sweep), methods=["POST"]),
        Route("/continue", continuation, methods=["POST"]),
        Route("/view", view, methods=["POST"]),
        Route("/openapi.json", described),
    ]
    routes: list[BaseRoute] = [Mount("/api", routes=api)]
    if BUILT.is_dir():
        routes.append(Mount("/", StaticFiles(directory=BUILT, html=True)))
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Guard, hosts=hosts, token=token)],
        exception_handlers={OnnxLensError: failed, HTTPException: refused, ClientDisconnect: gone, Exception: broken},
    )


def openapi() -> dict[str, Any]:
    """The OpenAPI description of the server, made from the types of its requests."""
    requests = {
        "model": (ModelRequest, "A model, which is opened if need be.", "application/json"),
        "tokenize": (TokenizeRequest, "The tokens and words of a text.", "application/json"),
        "run": (RunRequest, "Runs a text and returns what it reads.", "application/octet-stream"),
        "sweep": (
            SweepRequest,
            "A metric without each part, or with another's.",
            "application/octet-stream",
        ),
        "continue": (ContinueRequest, "Continues a text, one line for each token.", "application/x-ndjson"),
        "view": (ViewRequest, "The page of a visualizer.", "text/html"),
    }
    kinds = [kind for kind, _, _ in requests.values()]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    error = {"description": "An error, as a sentence.", "content": {"application/json": {}}}
    names = {"200": {"description": "The names."}}
    paths: dict[str, Any] = {"/api/models": {"get": {"summary": "The names of the models.", "responses": names}}}
    for schema, (name, (_, summary, media)) in zip(schemas, requests.items(), strict=True):
        answer = {"description": "The answer.", "content": {media: {}}}
        paths[f"/api/{name}"] = {
            "post": {
                "summary": summary,
                "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
                "responses": {"200": answer, "400": error, "401": error, "409": error, "413": error, "503": error},
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "onnxlens explorer", "version": "1"},
        "paths": paths,
        "components": {"schemas": components},
    }


def _float16(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays with their fractions as float16.

    Raises:
        InputError: a number is too large for it.
    """
    found = {}
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            found[name] = array.astype(np.float16) if array.dtype == np.float32 else array
        if array.dtype == np.float32 and np.any(np.isinf(found[name]) & np.isfinite(array)):
            largest = np.abs(array[np.isfinite(array)]).max()
            raise InputError(f"{name} has numbers up to {largest:.6g}, which float16 cannot hold; ask for float32.")
    return found


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_BODY:
            raise HTTPException(413, f"A request has at most {_LARGEST_BODY} bytes.")
    return body


def free_socket(host: str, port: int) -> socket.socket:
    """Binds a port, or one of the next 20 if it is taken; 0 for any.

    Raises:
        OutputError: none of them can be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in range(port, port + (21 if port else 1)):
        # asyncio turns off the delay of small packets (Nagle) only for sockets that name their protocol.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, number))
            bound.listen()  # what connects from now on waits until it is answered
        except OSError as error:
            bound.close()
            reason = error.strerror or str(error)
        else:
            return bound
    raise OutputError(f"Cannot listen on {host}, port {port} or one of the next 20: {reason}. Name another --port.")


def serve(engine: Engine, bound: socket.socket, *, token: str | None) -> None:
    """Serves until it is interrupted.

    Args:
        engine: answers requests.
        bound: the socket to listen on.
        token: the token that requests must state; None for none, which is for 127.0.0.1 only.
    """
    import uvicorn

    port = bound.getsockname()[1]
    hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")) if token is None else None
    app = application(engine, hosts=hosts, token=token)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, server_header=False)
    uvicorn.Server(config).run(sockets=[bound])
