"""An OpenAI-compatible server on 127.0.0.1 that answers as a test says, and records what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

OURS = {"owned_by": "internvl-gguf", "context_length": 1024}


@dataclass(frozen=True)
class Asked:
    """A request as it came.

    Attributes:
        path: its path.
        headers: by lower-case name.
        body: its JSON; None without a body.
    """

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """How the next question is answered.

    Attributes:
        pieces: pieces of text.
        status: HTTP status; another than 200 sends `document` alone.
        document: the JSON, or the text, of such an answer.
        headers: further headers.
        before: events before the first piece.
        last: fields of the last event, such as usage.
        finish: finish_reason of the last piece; None leaves it out.
        ends: "done", "cut" (the connection closes), "error" (an error event) or "waits" (until the client leaves).
        raw: bytes sent instead of the events.
    """

    pieces: Sequence[str] = ()
    status: int = 200
    document: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    before: Sequence[Mapping[str, Any]] = ()
    last: Mapping[str, Any] = field(default_factory=dict)
    finish: str | None = "stop"
    ends: str = "done"
    raw: bytes | None = None


class ChatServer:
    """A server; it runs until the `with` block ends.

    Args:
        *models: the entries of its list of models: names, or names with further fields.

    Attributes:
        asked: all requests, in order.
        answers: the answers to come; the last one stays.
        models_answer: an answer to the list of models instead of the list.
        measured: the answer of .../input_tokens.
        is_waiting: set when all of an answer that waits is sent.
        has_left: set when a client has closed the connection of an answer.
    """

    def __init__(self, *models: str | Mapping[str, Any]) -> None:
        self.asked: list[Asked] = []
        self.answers: list[Answer] = [Answer(["Yes."])]
        self.models_answer: Answer | None = None
        self.measured: Answer = Answer(status=404, document={"detail": "Not Found"})
        self.is_waiting = threading.Event()
        self.has_left = threading.Event()
        self.models = [{"id": each} if isinstance(each, str) else dict(each) for each in models or ("one",)]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def questions(self) -> list[Asked]:
        """The requests for an answer."""
        return [each for each in self.asked if each.path.endswith("/chat/completions")]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                return

            def do_GET(self) -> None:
                outer._record(self, None)
                models = Answer(document={"object": "list", "data": outer.models})
                _send_document(self, outer.models_answer or models)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer._record(self, body)
                if self.path.endswith("input_tokens"):
                    _send_document(self, outer.measured)
                    return
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if answer.status != 200 or answer.document is not None:
                    _send_document(self, answer)
                else:
                    try:
                        outer._stream(self, answer)
                    except ConnectionError:
                        outer.has_left.set()

        return Handler

    def _record(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.asked.append(Asked(handler.path, headers, body))

    def _stream(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.end_headers()
        if answer.raw is not None:
            handler.wfile.write(answer.raw)
            return
        handler.wfile.write(b": a comment\n\n")
        for event in answer.before:
            _send_event(handler, event)
        for piece in answer.pieces:
            _send_event(handler, {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
        if answer.ends == "waits":
            self.is_waiting.set()
            if handler.connection.recv(1) == b"":
                self.has_left.set()
            return
        if answer.ends == "error":
            _send_event(handler, {"error": {"message": "The model has died.", "type": "server_error"}})
        if answer.ends != "done":
            return
        _send_event(handler, {"choices": [{"index": 0, "delta": {}, "finish_reason": answer.finish}]})
        _send_event(handler, {"choices": [], **answer.last})
        handler.wfile.write(b"data: [DONE]\n\n")


def _send_event(handler: BaseHTTPRequestHandler, event: Mapping[str, Any]) -> None:
    handler.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
    handler.wfile.flush()


def _send_document(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    is_text = isinstance(answer.document, str)
    data = answer.document.encode() if is_text else json.dumps(answer.document).encode()
    handler.send_response(answer.status)
    handler.send_header("Content-Type", "text/html" if is_text else "application/json")
    handler.send_header("Content-Length", str(len(data)))
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)
