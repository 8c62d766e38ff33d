"""`facegpt serve`: the application, which is the endpoints, what every error looks like, and the gate."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.params import Security
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from facegpt import __version__
from facegpt.commands.serve_answers import ClientGone, Service, address_of, answer_of, ask
from facegpt.commands.serve_chat import chat_routes, faces_of
from facegpt.commands.serve_faces import MEDIA_TYPES, NAME, KeptFace, make_file
from facegpt.commands.serve_gate import Gate, error_body
from facegpt.commands.serve_queue import QueueFull
from facegpt.commands.serve_schema import (
    ErrorBody,
    FaceReply,
    FaceRequest,
    ModelCard,
    ModelList,
    Status,
)
from facegpt.errors import FaceGPTError, RenderingError, SampleError

FOR_A_PICTURE = "Show me the 3D face of this person."  # asked when a picture comes without words
ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}}
RETRY_SECONDS = "2"
log = logging.getLogger("facegpt.serve")


def make_app(service: Service, largest_body: int = 20_000_000, key: str | None = None) -> FastAPI:
    """The server's application; see `facegpt.commands.serve` for what it offers."""

    @asynccontextmanager
    async def until_the_end(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    # No pages of documentation: they would load scripts from elsewhere.
    app = FastAPI(
        title="facegpt",
        version=__version__,
        description="A vision-language model that speaks in 3D faces.",
        docs_url=None,
        redoc_url=None,
        responses=ERRORS,
        lifespan=until_the_end,
    )
    app.add_middleware(Gate, largest=largest_body, key=key)
    _handle_errors(app)
    bearer = [] if key is None else [Security(HTTPBearer(auto_error=False))]  # for the schema; the gate looks
    app.include_router(_status_routes(service))
    app.include_router(_model_routes(service), dependencies=bearer)
    app.include_router(chat_routes(service), dependencies=bearer)
    app.include_router(_face_routes(service), dependencies=bearer)
    app.include_router(_file_routes(service))
    return app


def _status_routes(service: Service) -> APIRouter:
    router = APIRouter()

    def status(busy: bool) -> JSONResponse:
        queue = service.queue
        word = "stopped" if not queue.thread.is_alive() else "busy" if busy else "ok"
        return JSONResponse({"status": word, "waiting": len(queue.waiting)}, 200 if word == "ok" else 503)

    @router.get("/health", response_model=Status)
    async def health() -> Response:
        """Whether the server lives; 503 when it has to be started anew."""
        return status(busy=False)

    @router.get("/ready", response_model=Status)
    async def ready() -> Response:
        """Whether it would take a request now; 503 when the queue is full."""
        return status(busy=service.queue.full)

    return router


def _model_routes(service: Service) -> APIRouter:
    router, card = APIRouter(), {"id": service.name, "created": int(time.time())}

    @router.get("/v1/models", response_model=ModelList)
    async def models() -> dict[str, Any]:
        """The models of this server: one."""
        return {"data": [card]}

    @router.get("/v1/models/{name}", response_model=ModelCard)
    async def model(name: str) -> dict[str, Any]:
        """That model."""
        if name != service.name:
            raise HTTPException(404, f"there is no model {name[:60]!r}; this server has {service.name!r}")
        return card

    return router


def _face_routes(service: Service) -> APIRouter:
    router = APIRouter()
    glb: dict[int | str, dict[str, Any]] = {200: {"content": {MEDIA_TYPES["glb"]: {}}}}

    @router.post("/v1/faces", response_model=FaceReply, responses=glb)
    async def faces(body: FaceRequest, request: Request) -> Response:
        """The faces for a text, a picture or both; as a mesh, an answer without a face is an error (422)."""
        if body.text is None and body.image is None:
            raise SampleError("there is nothing to say a face for; give a text, an image or both")
        text = FOR_A_PICTURE if body.text is None else body.text
        turns = [("user", text, [] if body.image is None else [body.image])]
        question = await ask(service, turns, body.max_tokens, body.temperature, body.seed)
        spoken = await answer_of(question, request)
        turn = spoken.turn
        if body.format == "json":
            found = faces_of(service, spoken, question.notes, address_of(request))
            return JSONResponse({"text": turn.text, **found})
        if not turn.faces:
            raise HTTPException(422, f"the reply has no face, it is {turn.text[:200]!r}; ask in other words")
        face = KeptFace(turn.faces[0], turn.probabilities[0])
        content = await service.work(make_file, service.shelf.head, face, "glb", body.format == "rigged")
        return Response(content, media_type=MEDIA_TYPES["glb"])

    return router


def _file_routes(service: Service) -> APIRouter:
    router = APIRouter()
    files: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}}}

    @router.get("/v1/faces/{file}", response_class=Response, responses=files)
    async def face_file(file: str, rigged: bool = False) -> Response:
        """A face that was said, under the link that came with it: ID.glb, ID.png or ID.json."""
        match = NAME.fullmatch(file)
        name, kind = match.groups() if match else ("", "")
        content = await service.work(service.shelf.file, name, kind, rigged)
        if content is None:
            raise HTTPException(404, "there is no such face (any more); ask the model again")
        return Response(content, media_type=MEDIA_TYPES[kind])

    return router


def _handle_errors(app: FastAPI) -> None:
    """Every error is one sentence in OpenAI's form."""

    def reply(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse(error_body(status, sentence), status, headers)

    @app.exception_handler(FaceGPTError)
    async def expected(request: Request, error: FaceGPTError) -> Response:
        if isinstance(error, QueueFull):
            return reply(503, str(error), {"Retry-After": RETRY_SECONDS})
        if isinstance(error, RenderingError):
            return reply(500, f"the model speaks a face that is none: {error}")
        return reply(499 if isinstance(error, ClientGone) else 400, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return reply(400, f"{place[:200]}: {first['msg'][:300]}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers) if error.headers else None
        return reply(error.status_code, str(error.detail), headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("while answering %s", request.scope["path"], exc_info=error)
        return reply(500, "the server failed at this request; its log says why")
