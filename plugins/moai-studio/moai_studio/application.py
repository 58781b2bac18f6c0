"""The studio's web application: its page, and what the page asks for.

Knows: Starlette. Pictures come as the bytes of a request, answers go out line by line as they are made; no path and no
address is read from a request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from PIL.Image import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import moai
from moai.errors import ImageError, MoaiError
from moai.plugin_api import chat_template
from moai_studio.asking import answer, change, describe, perceive
from moai_studio.editing import derived_experts
from moai_studio.examples import examples, jpeg, thumbnail
from moai_studio.guard import LOOPBACK, Guard
from moai_studio.messages import Ask, Edited, Perceive, RestsOn, Skip, parse
from moai_studio.resting import rests_on
from moai_studio.runs import NONE, Opened, Runs, card
from moai_studio.sessions import Busy, Session, Sessions
from moai_studio.work import Work, stream

STATIC = Path(__file__).parent / "static"
MAX_PICTURE, MAX_REQUEST = 32 * 2**20, 2**19  # bytes of a body
PREVIEW = 1600  # pixels of the longer side that the page shows


class TooLarge(Exception):
    """Says in a sentence that a body is longer than it may be."""


class Studio:
    """Answer the page's requests.

    Args:
        runs: at hand.
        sessions: of the visitors.
    """

    def __init__(self, runs: Runs, sessions: Sessions | None = None) -> None:
        self.runs, self.sessions = runs, sessions or Sessions()

    # What is there ---------------------------------------------------------------------------------------------------

    async def state(self, request: Request) -> Response:
        """List the runs and examples at hand."""
        runs = await run_in_threadpool(self.runs.at_hand)
        titles = [{"id": one.id, "title": one.title} for one in (await run_in_threadpool(examples)).values()]
        return JSONResponse({"version": moai.__version__, "runs": runs, "examples": titles})

    async def session(self, request: Request) -> Response:
        """Begin a session."""
        return JSONResponse({"session": self.sessions.create()})

    async def example(self, request: Request) -> Response:
        """Return a small form of an example."""
        if request.path_params["name"] not in examples():
            raise ImageError("this example is not there; reload the page")
        return Response(await run_in_threadpool(thumbnail, request.path_params["name"]), media_type="image/jpeg")

    # Pictures --------------------------------------------------------------------------------------------------------

    async def upload(self, request: Request) -> Response:
        """Hold a picture, the bytes of the request."""
        session = self._session(request)
        data = await _body(request, MAX_PICTURE, "a picture of more than 32 MB; save it smaller, as JPEG")
        return self._held(session, await run_in_threadpool(moai.read_image, data))

    async def use_example(self, request: Request) -> Response:
        """Hold an example as a picture."""
        session, found = self._session(request), examples().get(request.path_params["name"])
        if found is None:
            raise ImageError("this example is not there; reload the page")
        return self._held(session, await run_in_threadpool(found.picture))

    def _held(self, session: Session, image: Image) -> Response:
        picture = self.sessions.hold(session, image)
        return JSONResponse({"id": picture.id, "width": image.width, "height": image.height})

    async def picture(self, request: Request) -> Response:
        """Return a picture as the page shows it."""
        image = self._session(request).picture(request.path_params["name"]).image
        return Response(await run_in_threadpool(_preview, image), media_type="image/jpeg")

    async def remove(self, request: Request) -> Response:
        """Hold a picture no longer."""
        self._session(request).pictures.pop(request.path_params["name"], None)
        return JSONResponse({})

    # Work ------------------------------------------------------------------------------------------------------------

    async def open(self, request: Request) -> Response:
        """Open a run; reports ``opened`` with its card."""
        name = request.path_params["name"]

        def job(work: Work) -> None:
            opened = self.runs.open(name)
            work.emit("opened", **describe_run(opened))

        return self._stream(self._session(request), job)

    async def perceive(self, request: Request) -> Response:
        """Perceive a picture; reports its findings as ``perceived``."""
        session, ask = self._session(request), parse(Perceive, await _json(request))

        def job(work: Work) -> None:
            opened, picture = self.runs.open(ask.run), session.picture(ask.picture)
            found = perceive(opened, picture, work, ask.again)
            work.emit("perceived", picture=ask.picture, **describe(opened, change(opened, picture, found, (), False)))

        return self._stream(session, job)

    async def edited(self, request: Request) -> Response:
        """Apply edits to a picture's findings; reports them as ``perceived``."""
        session, ask = self._session(request), parse(Edited, await _json(request))

        def job(work: Work) -> None:
            opened, picture = self.runs.open(ask.run), session.picture(ask.picture)
            changed = change(opened, picture, perceive(opened, picture, work), ask.edits, ask.derive)
            work.emit("perceived", picture=ask.picture, **describe(opened, changed))

        return self._stream(session, job)

    async def ask(self, request: Request) -> Response:
        """Answer a conversation."""
        session, ask = self._session(request), parse(Ask, await _json(request))
        return self._stream(session, lambda work: answer(self.runs.open(ask.run), session, ask, work))

    async def rests_on(self, request: Request) -> Response:
        """Find out what an answer rests on."""
        session, ask = self._session(request), parse(RestsOn, await _json(request))
        return self._stream(session, lambda work: rests_on(self.runs.open(ask.run), session, ask, work))

    async def stop(self, request: Request) -> Response:
        """Stop a work of this session, or an expert of it."""
        session, ask = self._session(request), parse(Skip, await _json(request))
        work = session.works.get(ask.work)
        if work is not None and ask.expert is None:
            work.stop()
        elif work is not None:
            work.skip(ask.expert)
        return JSONResponse({})

    def _session(self, request: Request) -> Session:
        return self.sessions.find(request.headers.get("x-moai-session"))

    def _stream(self, session: Session, job: Callable[[Work], None]) -> Response:
        return stream(
            job, lambda work: self.sessions.begin(session, work), lambda work: self.sessions.end(session, work)
        )


def describe_run(opened: Opened) -> dict[str, Any]:
    """Describe an open run to the page: its card, and whether it answers, and follows conversations."""
    processor = None if opened.run is None else opened.run.processor
    return {
        "run": opened.name,
        "card": card(opened),
        "answers": opened.name != NONE,
        "follows": processor is not None and not _asks_once(processor),
        "derived": [expert.name for expert in derived_experts(opened.perceiver)],
    }


def _asks_once(processor: moai.MoaiProcessor) -> bool:
    """Tell whether a run has the template of single questions: it has then learnt no earlier turns."""
    templates = {chat_template("question_answer", None, token) for token in ("", processor.image_token)}
    return processor.chat_template in templates


def build_application(
    runs: Runs, hosts: Iterable[str] = LOOPBACK, key: str | None = None, sessions: Sessions | None = None
) -> Guard:
    """Build the application.

    Args:
        runs: at hand.
        hosts: under which it is reached; every other Host is refused.
        key: that requests have to show; None: none.
        sessions: of the visitors; new ones when left out.
    """
    studio = Studio(runs, sessions)
    routes = [
        Route("/", _page),
        Route("/api/state", studio.state),
        Route("/api/session", studio.session, methods=["POST"]),
        Route("/api/examples/{name}", studio.example, methods=["GET"]),
        Route("/api/examples/{name}", studio.use_example, methods=["POST"]),
        Route("/api/pictures", studio.upload, methods=["POST"]),
        Route("/api/pictures/{name}", studio.picture, methods=["GET"]),
        Route("/api/pictures/{name}", studio.remove, methods=["DELETE"]),
        Route("/api/runs/{name}", studio.open, methods=["POST"]),
        Route("/api/perceive", studio.perceive, methods=["POST"]),
        Route("/api/edited", studio.edited, methods=["POST"]),
        Route("/api/ask", studio.ask, methods=["POST"]),
        Route("/api/rests-on", studio.rests_on, methods=["POST"]),
        Route("/api/stop", studio.stop, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    handlers: dict[Any, Callable[..., Awaitable[Response]]] = {
        ImageError: _error(422),
        MoaiError: _error(400),
        Busy: _error(429),
        TooLarge: _error(413),
        ClientDisconnect: _error(400),
    }

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        studio.sessions.stop_all()

    return Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan), hosts, key)


async def _page(request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


def _error(status: int) -> Callable[..., Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error) or "the page has left"}, status)

    return handler


async def _json(request: Request) -> bytes:
    return await _body(request, MAX_REQUEST, "a request of more than 512 kB; ask with fewer turns or edits")


async def _body(request: Request, limit: int, sentence: str) -> bytes:
    """Read the body of a request, never more of it than ``limit``."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLarge(sentence)
        parts.append(part)
    return b"".join(parts)


def _preview(image: Image) -> bytes:
    shown = image.copy()
    shown.thumbnail((PREVIEW, PREVIEW))
    return jpeg(shown)
