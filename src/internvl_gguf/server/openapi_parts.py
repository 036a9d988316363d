"""Parts of the OpenAPI description: messages, forms of answers, and tools."""

from __future__ import annotations

from typing import Any, Final

from internvl_gguf.tiling import MAX_TILES_LIMIT

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
_SWITCH: Final[Schema] = {"type": ["boolean", "null"]}
_JSON_SCHEMA: Final[Schema] = {"type": "object", "description": "A JSON schema."}
_NAME: Final[Schema] = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}


def reference(name: str) -> Schema:
    """Return the reference to a schema of the description."""
    return {"$ref": f"#/components/schemas/{name}"}


def described(properties: Schema, optional: Schema | None = None) -> Schema:
    """Return the schema of an object that has all `properties`, perhaps those that are `optional`, and others."""
    return {"type": "object", "required": list(properties), "properties": {**properties, **(optional or {})}}


def _content(part: str, *, or_null: bool = False) -> Schema:
    kinds = [_TEXT, {"type": "array", "items": reference(part)}]
    return {"oneOf": [*kinds, {"type": "null"}] if or_null else kinds}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def chat_messages() -> dict[str, Schema]:
    """Return the schemas of messages of chat completions."""
    calls = {"type": ["array", "null"], "items": reference("ChatCall")}
    function = described({"name": _TEXT}, {"arguments": {"type": ["string", "object"]}})
    return {
        "ChatMessage": {
            "anyOf": [
                described({"role": {"enum": ["system", "developer", "user"]}, "content": _content("ChatPart")}),
                described(
                    {"role": {"const": "assistant"}},
                    {"content": _content("ChatPart", or_null=True), "tool_calls": calls},
                ),
                described(
                    {"role": {"enum": ["tool", "function"]}, "content": _content("ChatPart")},
                    {"tool_call_id": _TEXT_OR_NULL},
                ),
            ]
        },
        "ChatCall": described({"function": function}, {"id": _TEXT_OR_NULL}),
    }


def clip_wishes() -> Schema:
    """Return the schemas of what a part may say beside its clip."""
    seconds: Schema = {"type": ["number", "null"], "minimum": 0}
    count: Schema = {"type": "integer", "minimum": 1}
    return {
        "frames": {"anyOf": [count, {"enum": ["auto", None]}]},
        "fps": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "start": seconds,
        "end": seconds,
        "max_tiles": _or_null({**count, "maximum": MAX_TILES_LIMIT}),
    }


def media_options() -> Schema:
    """Return the schema of vLLM's `media_io_kwargs`, as far as it is taken."""
    counts: Schema = {
        "num_frames": {"anyOf": [{"type": "integer", "minimum": 1}, {"enum": [-1, None]}]},
        "fps": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"enum": [-1, None]}]},
    }
    video = {**described({}, counts), "additionalProperties": False}
    return {**described({}, {"video": video}), "additionalProperties": False}


def anthropic_messages() -> dict[str, Schema]:
    """Return the schemas of messages of Anthropic's interface."""
    roles = ["system", "developer", "user", "assistant"]
    shown = [
        described({"type": {"const": "text"}, "text": _TEXT}),
        described({"type": {"const": "image"}, "source": reference("AnthropicSource")}),
    ]
    use = {"type": {"const": "tool_use"}, "id": _TEXT, "name": _TEXT, "input": {"type": "object"}}
    result = {"type": {"const": "tool_result"}, "tool_use_id": _TEXT}
    about = {"content": _content("AnthropicResult", or_null=True), "is_error": _SWITCH}
    return {
        "AnthropicMessage": described({"role": {"enum": roles}, "content": _content("AnthropicBlock")}),
        "AnthropicBlock": {"oneOf": [*shown, described(use), described(result, about)]},
        "AnthropicResult": {"oneOf": shown},
    }


def forms() -> dict[str, Schema]:
    """Return the schemas of what an answer is bound to."""
    plain = [
        described({"type": {"const": "text"}}),
        described({"type": {"const": "json_object"}}, {"schema": _or_null(_JSON_SCHEMA)}),
    ]
    words = {"name": _TEXT_OR_NULL, "description": _TEXT_OR_NULL, "strict": _SWITCH}
    kind: Schema = {"type": {"const": "json_schema"}}
    named = described({**kind, "json_schema": described({"schema": _JSON_SCHEMA}, words)})
    format_or_null = _or_null(reference("FlatFormat"))
    outputs = {
        "json": {"type": ["object", "string", "null"]},
        "json_object": _SWITCH,
        "regex": _TEXT_OR_NULL,
        "choice": {"type": ["array", "null"], "minItems": 1},
        "grammar": _TEXT_OR_NULL,
        "disable_fallback": {},
        "disable_any_whitespace": {},
    }
    return {
        "ResponseFormat": {"oneOf": [*plain, named]},
        "FlatFormat": {"oneOf": [*plain, described({**kind, "schema": _JSON_SCHEMA}, words)]},
        "ResponseText": described({}, {"format": format_or_null, "verbosity": {"enum": ["medium", None]}}),
        "OutputConfig": {**described({}, {"format": format_or_null, "effort": {}}), "additionalProperties": False},
        "StructuredOutputs": {**described({}, outputs), "additionalProperties": False},
    }


def tools() -> dict[str, Schema]:
    """Return the schemas of tools and of the choice among them."""
    about = {"description": _TEXT_OR_NULL, "parameters": _or_null(_JSON_SCHEMA)}
    function: Schema = {"type": {"const": "function"}}
    chosen = described({**function, "function": described({"name": _TEXT})})
    flat = described({**function, "name": _TEXT})
    allowed: Schema = {"type": {"const": "allowed_tools"}}
    mode = {"enum": ["auto", "required"]}
    of_chat = described({"mode": mode, "tools": {"type": "array", "items": chosen}})
    kinds: Schema = {"type": {"enum": ["auto", "any", "none"]}}
    one_at_most = {"disable_parallel_tool_use": _SWITCH}
    return {
        "ChatTool": described({**function, "function": described({"name": _NAME}, about)}),
        "ChatToolChoice": {"oneOf": [chosen, described({**allowed, "allowed_tools": of_chat})]},
        "ResponseTool": described({**function, "name": _NAME}, about),
        "ResponseToolChoice": {
            "oneOf": [flat, described({**allowed, "mode": mode, "tools": {"type": "array", "items": flat}})]
        },
        "AnthropicTool": described(
            {"name": _NAME},
            {"type": {"enum": ["custom", None]}, "description": _TEXT_OR_NULL, "input_schema": _or_null(_JSON_SCHEMA)},
        ),
        "AnthropicToolChoice": {
            "oneOf": [
                described(kinds, one_at_most),
                described({"type": {"const": "tool"}, "name": _TEXT}, one_at_most),
            ]
        },
    }
