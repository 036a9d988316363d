"""The fields of requests: used, ignored or refused.

A field that would change the answer and is not supported is refused by name, as is one that nobody knows: an ignored
wish is worse than an error. One that changes nothing in an answer is ignored. From these tables come the checks, the
tables in docs/server.md and the OpenAPI description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from internvl_gguf.config import MAX_BEST_OF, MAX_LAST_N, MAX_SEED, MAX_TOP_K
from internvl_gguf.types import PictureLayout
from internvl_gguf.utils.kinds import JudgeName

MOST_CHOICES: Final = 16
MOST_TOP_LOGPROBS: Final = 20
MOST_STOPS: Final = 16

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Used:
    """A field that is used.

    Attributes:
        schema: JSON schema of its values; null is accepted, too, as if it were left out.
        about: what it does, for docs.
    """

    schema: Schema
    about: str


@dataclass(frozen=True)
class Ignored:
    """A field that is accepted and changes nothing.

    Attributes:
        why: why it changes nothing, for docs.
    """

    why: str


@dataclass(frozen=True)
class Refused:
    """A field that is refused unless its value asks for nothing.

    Attributes:
        why: what is missing, for docs and errors.
        neutral: values that ask for nothing; null always does.
    """

    why: str
    neutral: tuple[Any, ...] = field(default=())

    def is_neutral(self, value: object) -> bool:
        """Return whether a value asks for nothing; false is not 0 and true not 1, as JSON has it."""
        return value is None or any(
            value == each and isinstance(value, bool) == isinstance(each, bool) for each in self.neutral
        )


Field = Used | Ignored | Refused
Fields = Mapping[str, Field]


def _number(low: float | None, high: float | None, about: str) -> Used:
    bounds = {"minimum": low, "maximum": high}
    return Used({"type": "number", **{name: bound for name, bound in bounds.items() if bound is not None}}, about)


def _whole(low: int, high: int | None, about: str) -> Used:
    return Used({"type": "integer", "minimum": low, **({} if high is None else {"maximum": high})}, about)


def _named(name: str) -> Schema:
    """Return the schema of an object that openapi.py describes."""
    return {"type": "object", "$ref": f"#/components/schemas/{name}"}


def _tools_named(name: str) -> Used:
    return Used({"type": "array", "items": _named(name)}, "what the answer may call; the client runs it")


_TEXT: Final[Schema] = {"type": "string"}
_OBJECT: Final[Schema] = {"type": "object"}
MODEL: Final = Used(_TEXT, "one that `/v1/models` lists; left out, the first of them")
STREAM: Final = Used({"type": "boolean"}, "the answer as server-sent events")
TEMPERATURE: Final = _number(0, None, "0 takes the likeliest token each time; left out, the server's, which is 0")
TOP_P: Final = Used(
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "the likeliest tokens up to this sum of probability"
)
STOP: Final = Used(
    {"oneOf": [_TEXT, {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": MOST_STOPS}]},
    "end the answer at this text, or at one of these",
)
SEED: Final = _whole(-1, MAX_SEED, "makes sampling repeatable; choice number i takes seed + i; -1 draws one")
MAX_TOKENS: Final = _whole(1, None, "most tokens of an answer; left out, the server's `--max-tokens`")
PROGRESS: Final = Used(
    {"type": "boolean"},
    "with `stream`: events with `progress` while the request waits and while pictures and prompt are read; without it "
    "these are comments of the stream",
)
TOP_LOGPROBS: Final = _whole(0, MOST_TOP_LOGPROBS, "how many of the likeliest tokens are told at each place")

SAMPLING_EXTRAS: Final[Fields] = {
    "min_p": Used(
        {"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "drop tokens below this fraction of the likeliest"
    ),
    "repeat_penalty": Used({"type": "number", "exclusiveMinimum": 0}, "divides the logits of recent tokens; 1 is off"),
    "repetition_penalty": Used({"type": "number", "exclusiveMinimum": 0}, "the same, as vLLM calls it"),
    "penalty_last_n": _whole(0, MAX_LAST_N, "how many tokens back the penalties look"),
    "repeat_last_n": _whole(0, MAX_LAST_N, "the same, as llama.cpp calls it"),
}
PENALTIES: Final[Fields] = {
    "presence_penalty": _number(None, None, "subtracted from the logits of recent tokens"),
    "frequency_penalty": _number(None, None, "subtracted for each recent occurrence of a token"),
}
TOP_K: Final = _whole(0, MAX_TOP_K, "keep the k likeliest tokens; 0 keeps all")
PICTURE_FIELDS: Final[Fields] = {
    "max_tiles": _whole(1, None, "most tiles of a picture whose `detail` is `auto`, the thumbnail not counted"),
    "min_tiles": _whole(1, None, "fewest tiles of a picture"),
    "layout": Used(
        {"type": "string", "enum": list(PictureLayout.__args__)},  # type: ignore[attr-defined]
        "how several pictures stand in the prompt",
    ),
    "thumbnail": Used({"type": "boolean"}, "whether the whole picture follows its tiles in one more"),
    "fit_pictures": Used(
        {"type": "boolean"}, "false makes it an error, instead of fewer tiles, that pictures do not fit the context"
    ),
}
THINKING_FIELDS: Final[Fields] = {
    "thinking_budget": _whole(1, None, "tokens after which a thought is ended; it asks for one, too"),
    "keep_thinking": Used({"type": "boolean"}, "false leaves the thoughts of earlier answers out of the prompt"),
}
"""Beside what each interface calls thinking itself."""
_EFFORT: Final = Used(
    {"enum": ["none", "minimal", "low", "medium", "high", "xhigh"]},
    "how long to think before the answer; a model that cannot does not",
)
BEST_OF_FIELDS: Final[Fields] = {
    "best_of": _whole(
        1,
        MAX_BEST_OF,
        "write so many answers, and give the one that the judge finds best once all have ended; the pictures and the "
        "prompt are read once",
    ),
    "judge": Used({"type": "string", "enum": list(JudgeName.choices)}, "what chooses among them; left out, a vote"),
}
FRAME_TIMES: Final = Used({"type": "boolean"}, "the time of each frame of a clip stands in the prompt")
_CHOICES: Final[Schema] = {"type": "array", "minItems": 1}
FORM_FIELDS: Final[Fields] = {
    "json_schema": Used(_OBJECT, "the answer is JSON of this schema, as llama.cpp calls it"),
    "grammar": Used(_TEXT, "the answer is of this grammar, in GBNF or llguidance's Lark"),
    "structured_outputs": Used(
        _named("StructuredOutputs"), "the answer is JSON of a schema (`json`), or of `regex`, `choice` or `grammar`"
    ),
    "guided_json": Used({"oneOf": [_OBJECT, _TEXT]}, "the same as `structured_outputs.json`, as vLLM called it before"),
    "guided_regex": Used(_TEXT, "the same as `structured_outputs.regex`"),
    "guided_choice": Used(_CHOICES, "the same as `structured_outputs.choice`"),
    "guided_grammar": Used(_TEXT, "the same as `structured_outputs.grammar`"),
    "format_in_prompt": Used(
        {"type": "boolean"}, "false leaves the keys of a schema and the choices out of the prompt, which ends with them"
    ),
}
"""What an answer is bound to, in the words of other runtimes, in all interfaces."""
PARALLEL_CALLS: Final = Used({"type": "boolean"}, "false: at most one call of a tool in an answer")
NO_EFFECT: Final = "changes nothing in an answer"
_OTHER_SAMPLERS: Final = "this sampler is not offered"

OTHER_RUNTIMES: Final[Fields] = {
    "cache_prompt": Ignored("what is known of a prompt is never read again"),
    "id_slot": Ignored("a request runs wherever most of its prompt is known"),
    "timings_per_token": Ignored("timings come with the end of the answer"),
    "n_keep": Ignored("nothing of a prompt is dropped"),
    "keep_alive": Ignored("`--idle-unload` says how long a model stays"),
    "add_generation_prompt": Ignored("an answer goes on with the conversation's last turn if that is an assistant's"),
    "continue_final_message": Ignored("an answer goes on with the conversation's last turn if that is an assistant's"),
    "chat_template_kwargs": Used(_OBJECT, "`enable_thinking` alone: whether to think; the prompt is the published one"),
    "reasoning_format": Ignored("thoughts always stand apart from the answer"),
    "include_reasoning": Ignored("thoughts always stand apart from the answer"),
    "separate_reasoning": Ignored("thoughts always stand apart from the answer"),
    "chat_template": Refused("the prompt is the published one"),
    "use_beam_search": Refused("answers are sampled", (False,)),
    "length_penalty": Refused("answers are sampled", (1, 0)),
    "ignore_eos": Refused("an answer ends where the model ends it", (False,)),
    "min_tokens": Refused("an answer ends where the model ends it", (0,)),
    "stop_token_ids": Refused("give the texts as `stop`", ([],)),
    "typical_p": Refused(_OTHER_SAMPLERS, (1,)),
    "typ_p": Refused(_OTHER_SAMPLERS, (1,)),
    "tfs_z": Refused(_OTHER_SAMPLERS, (1,)),
    "top_a": Refused(_OTHER_SAMPLERS, (0,)),
    "mirostat": Refused(_OTHER_SAMPLERS, (0,)),
    "mirostat_tau": Ignored("mirostat is not offered"),
    "mirostat_eta": Ignored("mirostat is not offered"),
    "dry_multiplier": Refused(_OTHER_SAMPLERS, (0,)),
    "xtc_probability": Refused(_OTHER_SAMPLERS, (0,)),
    "dynatemp_range": Refused(_OTHER_SAMPLERS, (0,)),
    "samplers": Refused("the order of the samplers is fixed"),
}
"""Fields that llama-server, vLLM and Ollama have beside OpenAI's."""

CHAT_FIELDS: Final[Fields] = {
    "model": MODEL,
    "messages": Used({"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/ChatMessage"}},
                     "the conversation; if its last message is the assistant's, the answer goes on with it"),
    "stream": STREAM,
    "stream_options": Used(
        {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
        "`include_usage`: the last event carries the usage",
    ),
    "max_completion_tokens": MAX_TOKENS,
    "max_tokens": MAX_TOKENS,
    "temperature": TEMPERATURE,
    "top_p": TOP_P,
    **PENALTIES,
    "seed": SEED,
    "stop": STOP,
    "skip_special_tokens": Used(
        {"type": "boolean"},
        "false leaves the tags `<ref>` and `<box>` in the text, as vLLM does; `boxes` has what they say either way",
    ),
    "n": _whole(1, MOST_CHOICES, "number of answers, with `best_of` the best ones; the pictures and the prompt are "
                "read once for all of them"),
    "logprobs": Used({"type": "boolean"}, "how likely each token was, by the model's own distribution"),
    "top_logprobs": TOP_LOGPROBS,
    "top_k": TOP_K,
    **SAMPLING_EXTRAS,
    **BEST_OF_FIELDS,
    **PICTURE_FIELDS,
    "frame_times": FRAME_TIMES,
    "media_io_kwargs": Used(
        _named("MediaOptions"), "`video`: `num_frames` and `fps` of clips that do not say it themselves, as vLLM has it"
    ),
    "mm_processor_kwargs": Refused("say `max_tiles`, and `frames` or `fps` beside the URL of a clip", ({},)),
    "return_progress": PROGRESS,
    "response_format": Used(_named("ResponseFormat"), "the answer is JSON: any object, or of a schema"),
    **FORM_FIELDS,
    "tools": _tools_named("ChatTool"),
    "tool_choice": Used(
        {"oneOf": [{"enum": ["none", "auto", "required"]}, _named("ChatToolChoice")]},
        "whether the answer may, must or must not call tools, or which of them",
    ),
    "parallel_tool_calls": PARALLEL_CALLS,
    "user": Ignored(NO_EFFECT),
    "metadata": Ignored(NO_EFFECT),
    "store": Ignored("nothing is stored"),
    "service_tier": Ignored(NO_EFFECT),
    "safety_identifier": Ignored(NO_EFFECT),
    "prompt_cache_key": Ignored("what is known of a prompt is never read again"),
    "prompt_cache_retention": Ignored("what is known of a prompt is never read again"),
    "prediction": Ignored("it would only speed up"),
    "reasoning_effort": _EFFORT,
    **THINKING_FIELDS,
    "modalities": Refused("answers are text", (["text"],)),
    "audio": Refused("answers are text"),
    "logit_bias": Refused("the logits are the model's", ({},)),
    "verbosity": Refused("say it in the prompt", ("medium",)),
    "web_search_options": Refused("the model asks nobody", ({},)),
    "functions": Refused("it is the old form of `tools`: give those", ([],)),
    "function_call": Refused("it is the old form of `tool_choice`: give that", ("none", "auto")),
    **OTHER_RUNTIMES,
    "add_generation_prompt": Used({"type": "boolean"}, "refused unless it is what happens: false if the last message "
                                  "is the assistant's, else true"),
    "continue_final_message": Used({"type": "boolean"}, "the same the other way round"),
}  # fmt: skip

RESPONSES_FIELDS: Final[Fields] = {
    "model": MODEL,
    "input": Used({"oneOf": [_TEXT, {"type": "array", "items": {"type": "object"}}]},
                  "a question, or the items of a conversation"),
    "instructions": Used(_TEXT, "the system message"),
    "stream": STREAM,
    "max_output_tokens": MAX_TOKENS,
    "temperature": TEMPERATURE,
    "top_p": TOP_P,
    **PENALTIES,
    "top_logprobs": TOP_LOGPROBS,
    "include": Used({"type": "array", "items": _TEXT}, "`message.output_text.logprobs` only"),
    "seed": SEED,
    "stop": STOP,
    "top_k": TOP_K,
    **SAMPLING_EXTRAS,
    **BEST_OF_FIELDS,
    **PICTURE_FIELDS,
    "return_progress": PROGRESS,
    "text": Used(_named("ResponseText"), "`format`: the answer is JSON, any object or of a schema"),
    **FORM_FIELDS,
    "tools": _tools_named("ResponseTool"),
    "tool_choice": Used(
        {"oneOf": [{"enum": ["none", "auto", "required"]}, _named("ResponseToolChoice")]},
        "whether the answer may, must or must not call tools, or which of them",
    ),
    "parallel_tool_calls": PARALLEL_CALLS,
    "user": Ignored(NO_EFFECT),
    "metadata": Ignored("it is returned as it came"),
    "store": Ignored("nothing is stored"),
    "service_tier": Ignored(NO_EFFECT),
    "safety_identifier": Ignored(NO_EFFECT),
    "prompt_cache_key": Ignored("what is known of a prompt is never read again"),
    "prompt_cache_retention": Ignored("what is known of a prompt is never read again"),
    "reasoning": Used(
        {"type": "object", "properties": {"effort": _EFFORT.schema}},
        "`effort`, as `reasoning_effort` of chat completions",
    ),
    **THINKING_FIELDS,
    "stream_options": Ignored(NO_EFFECT),
    "max_tool_calls": Ignored("the server calls no tools, it only asks for calls"),
    "previous_response_id": Refused("nothing is stored: send the whole conversation as `input`"),
    "conversation": Refused("nothing is stored: send the whole conversation as `input`"),
    "background": Refused("nothing is stored: wait for the answer", (False,)),
    "prompt": Refused("no prompts are stored"),
    "truncation": Refused("nothing of a conversation is dropped", ("disabled",)),
    **OTHER_RUNTIMES,
}  # fmt: skip

MESSAGES_FIELDS: Final[Fields] = {
    "model": MODEL,
    "messages": Used({"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/AnthropicMessage"}},
                     "the conversation; if its last message is the assistant's, the answer goes on with it"),
    "system": Used({"oneOf": [_TEXT, {"type": "array", "items": {"type": "object"}}]}, "the system message"),
    "max_tokens": MAX_TOKENS,
    "stream": STREAM,
    "temperature": TEMPERATURE,
    "top_p": TOP_P,
    "top_k": TOP_K,
    "stop_sequences": Used(
        {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": MOST_STOPS},
        "end the answer at one of these texts",
    ),
    **PENALTIES,
    "seed": SEED,
    **SAMPLING_EXTRAS,
    **BEST_OF_FIELDS,
    **PICTURE_FIELDS,
    "return_progress": PROGRESS,
    "output_config": Used(_named("OutputConfig"), "`format`: the answer is JSON of a schema; `effort` is ignored"),
    "output_format": Used(_named("FlatFormat"), "the same as `output_config.format`, as it was called before"),
    **FORM_FIELDS,
    "tools": _tools_named("AnthropicTool"),
    "tool_choice": Used(
        _named("AnthropicToolChoice"), "whether the answer may, must or must not call tools, or which; and how many"
    ),
    "metadata": Ignored(NO_EFFECT),
    "service_tier": Ignored(NO_EFFECT),
    "container": Ignored(NO_EFFECT),
    "cache_control": Ignored("what is known of a prompt is never read again"),
    "context_management": Refused("nothing of a conversation is dropped", ({},)),
    "thread": Refused("nothing is stored: send the whole conversation (`thread=False` in `tool_runner`)", (False,)),
    "mcp_servers": Refused("the model asks nobody", ([],)),
    "thinking": Used(
        {"type": "object", "properties": {"type": {"enum": ["enabled", "disabled", "adaptive"]},
                                          "budget_tokens": {"type": "integer", "minimum": 1}}},
        "whether to think before the answer; `adaptive` where the model can",
    ),
    **THINKING_FIELDS,
    **OTHER_RUNTIMES,
}  # fmt: skip
