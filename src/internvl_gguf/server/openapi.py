"""The OpenAPI description of the service, made of the same tables of fields that requests are checked by."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from internvl_gguf._version import __version__
from internvl_gguf.server.fields import CHAT_FIELDS, MESSAGES_FIELDS, RESPONSES_FIELDS, Fields, Refused, Used
from internvl_gguf.server.openapi_parts import (
    anthropic_messages,
    chat_messages,
    clip_wishes,
    described,
    forms,
    media_options,
    reference,
    tools,
)

_CONVERSATION: Final = {"messages": [{"role": "user", "content": "What is red?"}], "max_tokens": 30}
_EXAMPLES: Final = {
    "ChatRequest": _CONVERSATION,
    "MessagesRequest": _CONVERSATION,
    "ResponsesRequest": {"input": "What is red?", "max_output_tokens": 30},
}
_ERROR: Final = {"$ref": "#/components/schemas/Error"}
_STATUSES: Final = {
    400: "The request cannot be used; the error says why.",
    401: "The server's key is missing or wrong.",
    403: "The Host or Origin is not allowed.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    500: "The server failed; its log says more.",
    501: "The server lacks what binds an answer to a form.",
    503: "The model is being loaded or has died, or too many requests wait; Retry-After says when to ask again.",
}


@cache
def description() -> dict[str, Any]:
    """Return the description of the service, OpenAPI 3.1."""
    chat, responses, messages = "/v1/chat/completions", "/v1/responses", "/v1/messages"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "internvl serve",
            "version": __version__,
            "description": "Answers about pictures by InternVL models, by OpenAI's and Anthropic's interfaces.",
        },
        "security": [{}, {"bearer": []}],
        "paths": {
            "/health": {
                "get": _get("health", "Whether the server can answer.", "Health", key=False, also={503: "Health"})
            },
            "/metrics": {"get": _metrics()},
            "/v1/models": {"get": _get("models", "The models that the server has.", "Models")},
            "/v1/models/{model}": {"get": _one_model()},
            chat: {"post": _post("chat", "An answer to a conversation.", "ChatRequest", "Completion", streams=True)},
            f"{chat}/input_tokens": {
                "post": _post("chat_tokens", "What a conversation takes.", "ChatRequest", "Count")
            },
            responses: {
                "post": _post("respond", "An answer to a conversation.", "ResponsesRequest", "Response", streams=True)
            },
            f"{responses}/input_tokens": {
                "post": _post("respond_tokens", "What a conversation takes.", "ResponsesRequest", "Count")
            },
            messages: {
                "post": _post("message", "An answer to a conversation.", "MessagesRequest", "Message", streams=True)
            },
            f"{messages}/count_tokens": {
                "post": _post("message_tokens", "What a conversation takes.", "MessagesRequest", "Count")
            },
        },
        "components": {"schemas": _schemas(), "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(status): {"description": _STATUSES[status], "content": _json(_ERROR)} for status in statuses}


def _get(
    name: str, summary: str, schema: str, *, key: bool = True, also: Mapping[int, str] | None = None
) -> dict[str, Any]:
    responses = {"200": {"description": summary, "content": _json(reference(schema))}, **_errors(403)}
    if key:
        responses |= _errors(401)
    for status, other in (also or {}).items():
        responses[str(status)] = {"description": "It cannot at this moment.", "content": _json(reference(other))}
    return {"operationId": name, "summary": summary, "responses": responses, **({} if key else {"security": []})}


def _metrics() -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "metrics",
        "summary": "Counters in the text format of Prometheus.",
        "responses": {"200": {"description": "The counters.", "content": content}, **_errors(401, 403)},
    }


def _one_model() -> dict[str, Any]:
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    found = _get("model", "One model.", "Model")
    found["responses"] |= _errors(404)
    return {**found, "parameters": [name]}


def _post(name: str, summary: str, request: str, answer: str, *, streams: bool = False) -> dict[str, Any]:
    asked = {"application/json": {"schema": reference(request), "example": _EXAMPLES[request]}}
    content: dict[str, Any] = _json(reference(answer))
    if streams:
        content["text/event-stream"] = {"schema": reference("Event")}  # of each event
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": asked},
        "responses": {"200": {"description": summary, "content": content}, **_errors(*_STATUSES)},
    }


def _schemas() -> dict[str, Any]:
    text, whole = {"type": "string"}, {"type": "integer"}
    frames = {"type": "array", "items": text, "minItems": 1}
    return {
        "ChatRequest": _request(CHAT_FIELDS, "messages"),
        "ResponsesRequest": _request(RESPONSES_FIELDS, "input"),
        "MessagesRequest": _request(MESSAGES_FIELDS, "messages"),
        **chat_messages(),
        "ChatPart": {
            "oneOf": [
                described({"type": {"const": "text"}, "text": text}),
                described({"type": {"const": "refusal"}, "refusal": text}),
                described({"type": {"const": "image_url"}, "image_url": {"anyOf": [reference("ImageURL"), text]}}),
                described({"type": {"const": "video_url"}, "video_url": {"anyOf": [reference("VideoURL"), text]}}),
                described({"type": {"const": "video"}, "video": {"anyOf": [text, frames]}}, clip_wishes()),
            ]
        },
        "VideoURL": {**described({"url": text}, clip_wishes()), "additionalProperties": False},
        "MediaOptions": media_options(),
        "ImageURL": {
            "type": "object",
            "required": ["url"],
            "properties": {"url": text, "detail": {"enum": ["auto", "low", "high", None]}},
        },
        **anthropic_messages(),
        **forms(),
        **tools(),
        "AnthropicSource": {
            "oneOf": [
                described({"type": {"const": "base64"}, "media_type": text, "data": text}),
                described({"type": {"const": "url"}, "url": text}),
            ]
        },
        "Completion": described(
            {"id": text, "object": {"const": "chat.completion"}, "created": whole, "model": text,
             "choices": {"type": "array"}, "usage": {"type": "object"}}
        ),
        "Response": described(
            {"id": text, "object": {"const": "response"}, "status": text, "output": {"type": "array"}}
        ),
        "Message": described(
            {"id": text, "type": {"const": "message"}, "role": {"const": "assistant"}, "content": {"type": "array"},
             "usage": {"type": "object"}}
        ),
        "Event": {"type": "object", "required": ["data"], "properties": {"event": text, "data": text}},
        "Count": described(
            {"object": text, "input_tokens": whole, "context_length": whole, "images": {"type": "array"}}
        ),
        "Model": described(
            {"id": text, "object": {"const": "model"}, "created": whole, "owned_by": text, "status": text},
            {"can_think": {"type": ["boolean", "null"]}},
        ),
        "Models": described({"object": {"const": "list"}, "data": {"type": "array", "items": reference("Model")}}),
        "Health": described({"status": text, "models": {"type": "object"}, "version": text}),
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "object"}}},
    }  # fmt: skip


def _request(fields: Fields, required: str) -> dict[str, Any]:
    """Return the schema of a request: a field that is refused may only ask for nothing, and null is no field."""
    properties: dict[str, Any] = {}
    for name, known in fields.items():
        if isinstance(known, Used):
            schema = known.schema if name == required else {"anyOf": [known.schema, {"type": "null"}]}
            properties[name] = {**schema, "description": known.about}
        elif isinstance(known, Refused):
            properties[name] = {"enum": [None, *known.neutral], "description": f"Refused: {known.why}."}
        else:
            properties[name] = {"description": f"Ignored: {known.why}."}
    return {"type": "object", "required": [required], "properties": properties, "additionalProperties": False}
