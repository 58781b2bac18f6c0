"""The ASGI application: routes, the way of a request from its bytes to the engine and back, and its errors.

Knows: Starlette. Everything that a request is refused for becomes OpenAI's error object here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import moai
from moai_serve.access import check_access, check_headers
from moai_serve.answers import Completion, to_json
from moai_serve.asking import Asked, read_request
from moai_serve.body import Held, Memory, read_body
from moai_serve.engine import Engine
from moai_serve.errors import ApiError, closing, internal
from moai_serve.job import Finished, Job, Report
from moai_serve.metrics import Metrics
from moai_serve.settings import Settings

log = logging.getLogger("moai.serve")
READERS = 4  # bodies that are parsed, and pictures that are decoded, at the same time
GRACE = 1.0  # seconds that the engine has to notice a deadline by itself
Endpoint = Callable[[Request], Awaitable[Response]]


def application(run: str | Path | moai.Augmented, settings: Settings | None = None, **options: Any) -> Starlette:
    """Build the ASGI application of a run.

    Args:
        run: a run folder, or what ``moai.load`` returned.
        settings: limits; left out, the defaults.
        options: further arguments of ``moai.load``, such as ``device``.

    Raises:
        CheckpointError: as ``moai.load``.
    """
    settings = settings or Settings()
    if not settings.name:
        name = run.model.name_or_path if isinstance(run, moai.Augmented) else run
        settings = replace(settings, name=Path(name).resolve().name if str(name) else "moai")
    opened = run if isinstance(run, moai.Augmented) else moai.load(run, **options)
    return Server(opened, settings).application()


class Server:
    """Hold what the endpoints share."""

    def __init__(self, run: moai.Augmented, settings: Settings) -> None:
        self.run, self.settings, self.metrics = run, settings, Metrics()
        self.engine = Engine(run, settings, self.metrics)
        self.memory = Memory(settings.max_memory)
        self.created = int(time.time())
        self._readers = anyio.CapacityLimiter(READERS)

    def application(self) -> Starlette:
        """Build the application around this."""
        routes = [
            Route("/v1/chat/completions", self._guarded(self.complete), methods=["POST"]),
            Route("/v1/models", self._guarded(self.models)),
            Route("/v1/models/{name:path}", self._guarded(self.model)),
            Route("/metrics", self._guarded(self.figures)),
            Route("/health", self._guarded(self.health, open_to_all=True)),
        ]
        handlers = {ApiError: self._refuse, HTTPException: self._refuse_http}
        made = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)
        made.state.server = self
        return made

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.engine.start()
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(self.engine.stop)

    # Endpoints ---------------------------------------------------------------------------------------------------

    async def complete(self, request: Request) -> Response:
        """Answer a chat."""
        began, held = time.monotonic(), Held(self.memory)
        try:
            self.engine.check_room()  # before anything of the body is read
            body = await read_body(request, self.settings, held)
            given = (body, self.run, self.settings, held.add)
            asked = await anyio.to_thread.run_sync(read_request, *given, limiter=self._readers)
            held.release(len(body))
            del body, given
            work = _Work(self, request, asked, held)
            if asked.stream:
                return await work.stream(began)
            return _json(await work.whole(began))
        except BaseException:
            held.release()
            raise

    async def models(self, request: Request) -> Response:
        """List the one model."""
        return _json({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        """Show the model, if that is its name."""
        if request.path_params["name"] != self.settings.name:
            raise ApiError(404, f"this server has no such model; it has '{self.settings.name}'", "model_not_found",
                           "model")  # fmt: skip
        return _json(self._card())

    async def health(self, request: Request) -> Response:
        """Say whether requests are answered."""
        if not self.engine.alive:
            raise ApiError(503, "the engine does not run", "stopping")
        return _json({"status": "ok"})

    async def figures(self, request: Request) -> Response:
        """Return the metrics."""
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    def _card(self) -> dict[str, Any]:
        return {"id": self.settings.name, "object": "model", "created": self.created, "owned_by": "moai"}

    # Errors ------------------------------------------------------------------------------------------------------

    def _guarded(self, endpoint: Endpoint, open_to_all: bool = False) -> Endpoint:
        async def guarded(request: Request) -> Response:
            check_headers(request.headers)
            check_access(request.headers, self.settings, open_to_all)
            try:
                response = await endpoint(request)
            except (ApiError, HTTPException):
                raise
            except Exception as error:  # here, since the server around it would log the error's message
                return await self._fail(request, error)
            self.metrics.requests.labels(response.status_code).inc()
            return response

        return guarded

    async def _refuse(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        self.metrics.requests.labels(error.status).inc()
        self.metrics.refusals.labels(error.code or "").inc()
        log.info("refused with %d %s", error.status, error.code)
        return _json(error.body(), error.status, error.headers)

    async def _refuse_http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = {404: ("there is nothing at this path; ask /v1/chat/completions", "not_found"),
                 405: ("this path does not take this method", "method_not_allowed")}  # fmt: skip
        message, code = known.get(error.status_code, (error.detail, "invalid_request"))
        headers = {"connection": "close", **(error.headers or {})}
        return await self._refuse(request, ApiError(error.status_code, message, code, headers=headers))

    async def _fail(self, request: Request, error: Exception) -> Response:
        return await self._refuse(request, closing(internal("a request", error)))


class _Work:
    """One chat from the queue to its last byte."""

    def __init__(self, server: Server, request: Request, asked: Asked, held: Held) -> None:
        self.server, self.request, self.asked, self.held = server, request, asked, held
        self.completion = Completion(asked, server.settings.name)
        self._reports: asyncio.Queue[Report] = asyncio.Queue()
        report = _reporter(asyncio.get_running_loop(), self._reports)
        self.job = Job(asked, report, time.monotonic() + server.settings.timeout)

    async def whole(self, began: float) -> dict[str, Any]:
        """Wait for the whole answer, and give it up when the client leaves."""
        self.server.engine.submit(self.job)
        answer = asyncio.ensure_future(self.completion.whole(self._following()))
        gone = asyncio.ensure_future(_disconnected(self.request))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ApiError(499, "the client left before the answer's end", "client_left")
            made = answer.result()
            self._count(began)
            return made
        finally:
            gone.cancel()
            answer.cancel()
            self._end()
            del answer, gone  # an error of the task holds this frame, which would hold the task

    async def stream(self, began: float) -> StreamingResponse:
        """Answer in server-sent events."""
        self.server.engine.submit(self.job)

        async def events() -> AsyncIterator[bytes]:
            try:
                async for event in self.completion.chunks(self._following()):
                    yield event
                self._count(began)
            finally:
                self._end()

        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return _Stream(events(), self._end, media_type="text/event-stream", headers=headers)

    async def _following(self) -> AsyncIterator[Report]:
        """Yield the engine's reports up to the last answer's end or an error."""
        left = self.asked.choices
        while left:
            try:
                async with asyncio.timeout(max(0.0, self.job.deadline - time.monotonic()) + GRACE):
                    report = await self._reports.get()
            except TimeoutError:
                yield ApiError(504, "the answer took longer than this server allows; ask for fewer tokens, or later",
                               "timeout")  # fmt: skip
                return
            left -= isinstance(report, Finished)
            yield report
            if isinstance(report, ApiError):
                return

    def _end(self) -> None:
        if len(self.job.done) < self.asked.choices and not self.job.over:
            self.server.engine.leave(self.job)
        self.held.release()

    def _count(self, began: float) -> None:
        usage, metrics, seconds = self.completion.usage(), self.server.metrics, time.monotonic() - began
        metrics.seconds.observe(seconds)
        metrics.tokens.labels("prompt").inc(usage["prompt_tokens"])
        metrics.tokens.labels("answer").inc(self.completion.tokens)
        pictures, prompt, answer = len(self.asked.conversation.images), usage["prompt_tokens"], self.completion.tokens
        log.info("answered in %.2f s: %d pictures, %d + %d tokens", seconds, pictures, prompt, answer)


def _reporter(loop: asyncio.AbstractEventLoop, reports: asyncio.Queue[Report]) -> Callable[[Report], None]:
    """Build a function that hands reports of the engine's threads to the event loop.

    It refers to neither job nor work: in a circle their pictures would stay until the garbage collector comes.
    """

    def report(one: Report) -> None:
        try:
            loop.call_soon_threadsafe(reports.put_nowait, one)
        except RuntimeError:  # the loop is closed: the server was made to stop at once
            log.warning("a report came after the server had ended")

    return report


class _Stream(StreamingResponse):
    """A stream that is cleaned up after even when the client left before its first byte."""

    def __init__(self, content: AsyncIterator[bytes], end: Callable[[], None], **options: Any) -> None:
        super().__init__(content, **options)
        self._end = end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


async def _disconnected(request: Request) -> None:
    """Return when the client has left; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(value), status, headers=headers, media_type="application/json")
