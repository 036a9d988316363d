"""The routes of the service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from internvl_gguf._version import __version__
from internvl_gguf.server import anthropic_messages, message_answer, openai_chat, openai_responses, response_answer
from internvl_gguf.server.answering import Answerer, AnswerEvent, Asking
from internvl_gguf.server.api_errors import (
    RefusedRequestError,
    anthropic_body,
    failure_of,
    is_expected,
    openai_body,
)
from internvl_gguf.server.chat_request import AnswerDefaults, ChatRequest
from internvl_gguf.server.clips import has_decoder
from internvl_gguf.server.guard import Guard, GuardSettings, error_response
from internvl_gguf.server.json_body import BodyReader, ClientLeftError
from internvl_gguf.server.metrics import CONTENT_TYPE, Metrics
from internvl_gguf.server.model_pool import ModelPool, ServedModel, stopping_error
from internvl_gguf.server.openapi import description
from internvl_gguf.server.pictures import PictureSources
from internvl_gguf.server.responding import ErrorBody, EventStream, Frame, Outcome, whole
from internvl_gguf.utils.notices import Notice
from internvl_gguf.utils.safe_text import safe_name

logger: Final = logging.getLogger("internvl_gguf.server")
PAGE: Final = Path(__file__).parent / "page"

_FRESH: Final = {"cache-control": "no-cache"}
"""A browser asks whether what it has is current: modules of two versions would not fit together."""

_LONGEST_PATH: Final = 80  # characters in a line of the log

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class ServiceSettings:
    """Settings of a service: what it offers, and to whom.

    Attributes:
        guard: who may ask.
        sources: where pictures may come from.
        defaults: what the owner chose for fields that a request leaves out.
        max_body: most bytes of a request's body.
        tell_request: told of each request that ended: method, path, status and seconds.
    """

    guard: GuardSettings
    sources: PictureSources
    defaults: AnswerDefaults = field(default_factory=AnswerDefaults)
    max_body: int = 64 * 2**20
    tell_request: Notice | None = None


class Service:
    """The service on some models. Used in the thread of the event loop only.

    Args:
        pool: the models.
        settings: what it offers.

    Attributes:
        app: the ASGI application.
        is_stopping: whether it takes no more requests.
    """

    def __init__(self, pool: ModelPool, settings: ServiceSettings) -> None:
        self.pool = pool
        self.is_stopping = False
        self._settings = settings
        self._metrics = Metrics(pool.models)
        self._answerer = Answerer(pool, settings.sources, settings.defaults, self._metrics)
        self._bodies = BodyReader(settings.max_body, max(8 * settings.max_body, 2**29))
        app: ASGIApp = Guard(self._routes(), settings.guard)
        self.app = _RequestLines(app, settings.tell_request) if settings.tell_request else app

    @property
    def busy(self) -> int:
        """Number of requests that are not answered yet."""
        return sum(model.users for model in self.pool.models)

    async def close(self) -> None:
        """Unload the models."""
        self._answerer.close()
        await self.pool.close()
        remote = self._settings.sources.remote
        if remote is not None:
            await remote.aclose()

    def _routes(self) -> Starlette:
        chat, responses, messages = "/v1/chat/completions", "/v1/responses", "/v1/messages"
        routes = [
            Route("/", self._page, methods=["GET"]),
            Route("/health", self._health, methods=["GET"]),
            Route("/v1/health", self._health, methods=["GET"]),
            Route("/metrics", self._metrics_text, methods=["GET"]),
            Route("/openapi.json", self._openapi, methods=["GET"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/models/{name:path}", self._model, methods=["GET"]),
            Route(chat, self._endpoint(self._chat, openai_body), methods=["POST"]),
            Route(f"{chat}/input_tokens", self._endpoint(self._chat_tokens, openai_body), methods=["POST"]),
            Route(responses, self._endpoint(self._responses, openai_body), methods=["POST"]),
            Route(f"{responses}/input_tokens", self._endpoint(self._response_tokens, openai_body), methods=["POST"]),
            Route(messages, self._endpoint(self._messages, anthropic_body), methods=["POST"]),
            Route(f"{messages}/count_tokens", self._endpoint(self._message_tokens, anthropic_body), methods=["POST"]),
            Route("/favicon.ico", self._icon, methods=["GET"]),
            Mount("/page", _PageFiles(directory=PAGE)),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _unexpected})

    def _endpoint(
        self, answer: Callable[[Request, dict[str, Any], Outcome], Awaitable[Response]], error_body: ErrorBody
    ) -> Handler:
        """Return the handler of an interface: it reads the body, and answers errors in the interface's shape."""

        async def handle(request: Request) -> Response:
            path = request.url.path
            outcome = Outcome(lambda status: self._metrics.responded(path, status), self._metrics.cancelled)
            try:
                if self.is_stopping:
                    raise stopping_error()
                body = await self._bodies.read(request.headers, request.receive)
                response = await answer(request, body, outcome)
            except ClientLeftError:
                outcome.end(499)
                return Response(status_code=204)  # nobody reads it
            except Exception as error:
                if not is_expected(error):
                    logger.exception("A request failed")
                failure = failure_of(error)
                response = JSONResponse(error_body(failure), failure.status, headers=failure.headers)
            if not isinstance(response, EventStream):
                outcome.end(response.status_code)
            return response

        return handle

    async def _chat(self, request: Request, body: dict[str, Any], outcome: Outcome) -> Response:
        asked, wishes = openai_chat.parse(body, self._settings.defaults)
        answer = openai_chat.ChatAnswer(self.pool.find(asked.model).name, asked, wishes)
        if wishes.streams:
            return self._stream(request, asked, answer.frames, openai_body, None, outcome, tells=wishes.tells_progress)
        await self._collect(request, asked, answer.add)
        return JSONResponse(answer.completion())

    async def _responses(self, request: Request, body: dict[str, Any], outcome: Outcome) -> Response:
        asked, wishes = openai_responses.parse(body, self._settings.defaults)
        answer = response_answer.ResponseAnswer(self.pool.find(asked.model).name, asked, body)
        if wishes.streams:
            return self._stream(
                request,
                asked,
                answer.frames,
                response_answer.error_body,
                "error",
                outcome,
                tells=wishes.tells_progress,
            )
        await self._collect(request, asked, answer.add)
        return JSONResponse(answer.response())

    async def _messages(self, request: Request, body: dict[str, Any], outcome: Outcome) -> Response:
        asked, wishes = anthropic_messages.parse(body, self._settings.defaults)
        answer = message_answer.MessageAnswer(self.pool.find(asked.model).name)
        if wishes.streams:
            return self._stream(
                request, asked, answer.frames, anthropic_body, "error", outcome, tells=wishes.tells_progress
            )
        await self._collect(request, asked, answer.add)
        return JSONResponse(answer.message())

    async def _chat_tokens(self, request: Request, body: dict[str, Any], outcome: Outcome) -> Response:
        asked, _ = openai_chat.parse(body, self._settings.defaults)
        return await self._counted(request, asked, "chat.completion.input_tokens")

    async def _response_tokens(self, request: Request, body: dict[str, Any], outcome: Outcome) -> Response:
        asked, _ = openai_responses.parse(body, self._settings.defaults)
        return await self._counted(request, asked, "response.input_tokens")

    async def _message_tokens(self, request: Request, body: dict[str, Any], outcome: Outcome) -> Response:
        asked, _ = anthropic_messages.parse(body, self._settings.defaults)
        return await self._counted(request, asked, "message.input_tokens")

    async def _counted(self, request: Request, asked: ChatRequest, kind: str) -> Response:
        prepared, model = await whole(request, self._answerer.count(asked))
        per_tile = model.runtime.vision.tokens_per_tile
        return JSONResponse(openai_chat.counted(prepared, model.runtime.engine.n_ctx, per_tile, kind))

    def _stream(
        self,
        request: Request,
        asked: ChatRequest,
        frames: Callable[[AnswerEvent], list[Frame]],
        error_body: ErrorBody,
        error_event: str | None,
        outcome: Outcome,
        *,
        tells: bool,
    ) -> Response:
        events = self._answerer.events(Asking(asked, client_of(request)))
        return EventStream(events, frames, error_body, error_event, outcome, tells_progress=tells)

    async def _collect(self, request: Request, asked: ChatRequest, add: Callable[[AnswerEvent], None]) -> None:
        """Answer a request whole, as long as its client is there."""

        async def collect() -> None:
            async with aclosing(self._answerer.events(Asking(asked, client_of(request)))) as events:
                async for event in events:
                    add(event)

        await whole(request, collect())

    async def _page(self, request: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers=_FRESH)

    async def _icon(self, request: Request) -> Response:
        return FileResponse(PAGE / "icon.svg", media_type="image/svg+xml", headers=_FRESH)

    async def _health(self, request: Request) -> Response:
        model = self.pool.models[0]
        states = {each.name: each.state for each in self.pool.models}
        if self.is_stopping:
            status = "stopping"
        elif model.state == "ready" and not model.has_died:
            status = "ok"
        elif model.state == "unloaded" and model.n_ctx is not None:
            status = "ok"  # it was idle, or gave way to another: the next request loads it
        else:
            status = "failed" if model.state == "failed" else "loading"
        body = {"status": status, "models": states, "version": __version__}
        return JSONResponse(body, 200 if status == "ok" else 503, headers={"cache-control": "no-store"})

    async def _metrics_text(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(description())

    async def _models(self, request: Request) -> Response:
        models = [await self._model_json(model) for model in self.pool.models]
        pages = {"has_more": False, "first_id": models[0]["id"], "last_id": models[-1]["id"]}
        return JSONResponse({"object": "list", "data": models, **pages})

    async def _model(self, request: Request) -> Response:
        try:
            return JSONResponse(await self._model_json(self.pool.find(request.path_params["name"])))
        except RefusedRequestError as error:
            return error_response(request.url.path, failure_of(error))

    async def _model_json(self, model: ServedModel) -> dict[str, Any]:
        """Return a model as OpenAI's clients read it, and Anthropic's, which have other names for the same."""
        aliases = list(self.pool.aliases) if model is self.pool.models[0] else []
        return {
            "id": model.name,
            "object": "model",
            "created": model.created,
            "owned_by": "internvl-gguf",
            "status": model.state,
            "aliases": aliases,
            "input_modalities": ["text", "image", *(["video"] if has_decoder() else [])],
            "output_modalities": ["text"],
            "context_length": model.n_ctx,
            "tile_size": model.tile_size,
            "can_think": await asyncio.to_thread(model.can_think),
            "type": "model",
            "display_name": model.name,
            "created_at": datetime.fromtimestamp(model.created, UTC).isoformat(timespec="seconds"),
            "max_input_tokens": model.n_ctx,
        }


class _PageFiles(StaticFiles):
    """The files of the page."""

    def file_response(self, *args: Any, **more: Any) -> Response:
        """Return a file, which is asked for anew each time."""
        response = super().file_response(*args, **more)
        response.headers.update(_FRESH)
        return response


def client_of(request: Request) -> Hashable:
    """Return who asks, as far as can be told: the key, and the address it comes from."""
    key = request.headers.get("authorization") or request.headers.get("x-api-key")
    return hash(key), request.client.host if request.client else None


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    known = {
        404: _missing(request.url.path),
        405: ("The address does not take this method.", "GET /openapi.json lists what it takes."),
    }
    message, hint = known.get(status, ("The request cannot be answered.", "GET /openapi.json says what can."))
    refused = RefusedRequestError(message, hint, status=status, code="not_found" if status == 404 else None)
    response = error_response(request.url.path, failure_of(refused))
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)  # the methods that it takes
    return response


_NOT_OFFERED: Final = {
    "/v1/completions": ("Texts without a conversation are not completed here.", "Use /v1/chat/completions."),
    "/v1/embeddings": ("The models have no vectors that compare texts or pictures.", "Ask about them instead."),
}


def _missing(path: str) -> tuple[str, str]:
    """Return what happened and what to do for an address that is not there: most often a wrong base URL."""
    if path in _NOT_OFFERED:
        return _NOT_OFFERED[path]
    if path.startswith("/v1/v1/"):
        return "The address has /v1 twice.", "Leave /v1 out of the base URL."
    if path.startswith(("/chat/completions", "/responses", "/messages", "/models")):
        return "The address lacks /v1.", "Put /v1 at the end of the base URL."
    return "There is nothing at this address.", "GET /openapi.json lists what there is."


class _RequestLines:
    """Tells of each request that ended: method, path, status and seconds."""

    def __init__(self, app: ASGIApp, tell: Notice) -> None:
        self._app = app
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.monotonic(), 499

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            path = safe_name(scope["path"], _LONGEST_PATH)
            self._tell(f"{scope['method']} {path} {status} {time.monotonic() - started:.2f} s")


async def _unexpected(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, failure_of(error))
