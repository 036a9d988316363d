"""Names that options have in transformers, vLLM, llama.cpp, Ollama and OpenAI's interface, and what they are here."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

from internvl_gguf.errors import InvalidRequestError

_Class = TypeVar("_Class", bound=type)


@dataclass(frozen=True)
class ForeignNames:
    """The names of other tools for the options of one thing.

    Attributes:
        whose: what has the options, for messages: "a question".
        called: names elsewhere and those here.
        otherwise: names elsewhere of what is done otherwise here or not at all, and what to do.
    """

    whose: str
    called: Mapping[str, str]
    otherwise: Mapping[str, str]

    def has(self, name: str) -> bool:
        """Return whether other tools have an option of this name."""
        return name in self.called or name in self.otherwise

    def unknown(self, name: object, known: Collection[str], what: str = "option") -> InvalidRequestError:
        """The error of a name that does not exist; it says what is meant here, or which name is near.

        Args:
            name: the name.
            known: the names there are.
            what: "option" or "field".
        """
        message = f"There is no {what} {name!r} of {self.whose}."
        if name in self.called:
            return InvalidRequestError(message, f"It is called {self.called[str(name)]} here.")
        if name in self.otherwise:
            return InvalidRequestError(message, self.otherwise[str(name)])
        near = difflib.get_close_matches(str(name), known, 1)
        question = f"Did you mean {near[0]}? " if near else ""
        return InvalidRequestError(message, f"{question}The {what}s are {', '.join(known)}.")


def refuses_foreign_names(names: ForeignNames) -> Callable[[_Class], _Class]:
    """Make a dataclass answer an unknown keyword with an `InvalidRequestError` in place of a bare TypeError."""

    def decorate(kind: _Class) -> _Class:
        make = kind.__init__  # type: ignore[misc]  # of this class, whose subclasses make their own
        known = [each.name for each in fields(kind)]

        @functools.wraps(make)
        def checked(self: Any, *given: Any, **named: Any) -> None:
            for name in named:
                if name not in known:
                    raise names.unknown(name, known)
            make(self, *given, **named)

        kind.__init__ = checked  # type: ignore[misc]
        return kind

    return decorate


_ONE_ANSWER: Final = "A question has one answer: ask it several times, with a temperature and another seed each time."
_LOGPROBS: Final = "Session.next_token_logprobs gives the probabilities of an answer's first token."
_OF_ASK: Final = "It belongs to a question: give it to ask, stream, batch or each."
_FILES: Final = "models are kept where HF_HUB_CACHE says."

OF_PICTURES: Final = {
    "max_num": "max_tiles",
    "max_dynamic_patch": "max_tiles",
    "min_num": "min_tiles",
    "min_dynamic_patch": "min_tiles",
    "use_thumbnail": "thumbnail",
}
OF_SAMPLING: Final = {
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "n_predict": "max_tokens",
    "repetition_penalty": "repeat_penalty",
    "repeat_last_n": "penalty_last_n",
    "stop_strings": "stop",
    "stop_sequences": "stop",
}
SAMPLING_OTHERWISE: Final = {
    "do_sample": "A temperature above 0 samples, as temperature=0.8; without one the likeliest token is taken.",
    "num_beams": "There is no beam search: leave it out.",
    "length_penalty": "It belongs to beam search, which there is none of: leave it out.",
    "min_tokens": "An answer has no least length: ask for a longer one in the question.",
    "min_new_tokens": "An answer has no least length: ask for a longer one in the question.",
    "n": _ONE_ANSWER,
    "num_return_sequences": _ONE_ANSWER,
    "logprobs": _LOGPROBS,
    "top_logprobs": _LOGPROBS,
    "prompt_logprobs": _LOGPROBS,
}
OF_FORMS: Final = {
    **dict.fromkeys(("response_format", "guided_json", "guided_decoding", "format", "json_schema"), "schema"),
    **dict.fromkeys(("output_schema", "response_model", "output_type", "json"), "schema"),
    "guided_choice": "choices",
    "choice": "choices",
    "guided_regex": "regex",
    "guided_grammar": "grammar",
    "functions": "tools",
    "function_call": "tool_choice",
}
SAMPLING: Final = ForeignNames(
    "SamplingParams",
    OF_SAMPLING,
    {**SAMPLING_OTHERWISE, **dict.fromkeys((*OF_FORMS, "schema", "choices", "grammar", "regex", "tools"), _OF_ASK)},
)
PICTURE: Final = ForeignNames("a Picture", {**OF_PICTURES, "path": "source", "image": "source", "url": "source"}, {})
VIDEO: Final = ForeignNames(
    "a Video",
    {
        **dict.fromkeys(("path", "video", "url", "file"), "source"),
        **dict.fromkeys(("num_frames", "num_segments", "n_frames", "nframes", "max_frames"), "frames"),
        **dict.fromkeys(("video_start", "start_time"), "start"),
        **dict.fromkeys(("video_end", "end_time"), "end"),
        **dict.fromkeys(("sample_fps", "video_fps", "frame_rate"), "fps"),
        "max_num": "max_tiles",
    },
    {"bound": "Give it as start and end, in seconds."},
)
QUESTION: Final = ForeignNames(
    "a question",
    {
        "image": "images",
        "image_path": "images",
        "picture": "images",
        "pictures": "images",
        "question": "prompt",
        "text": "prompt",
        "custom_id": "id",
        **OF_PICTURES,
        **OF_SAMPLING,
        **OF_FORMS,
    },
    {
        **SAMPLING_OTHERWISE,
        "stream": "Session.stream gives the answer piece by piece.",
        "system": "Give it to Session.open, Session.set_system or a Question of a batch.",
        "messages": "A session keeps its own; Session.continue_with takes those of another one.",
    },
)
ENGINE: Final = ForeignNames(
    "Session.open",
    {
        **dict.fromkeys(
            ("max_model_len", "num_ctx", "ctx_size", "context_length", "max_seq_len", "max_length"), "n_ctx"
        ),
        **dict.fromkeys(("max_num_seqs", "n_seq_max", "num_parallel", "batch_size"), "n_parallel"),
        **dict.fromkeys(("gpu_memory_utilization", "max_memory", "gpu_memory"), "vram"),
        **dict.fromkeys(("ngl", "gpu_layers", "num_gpu", "num_gpu_layers", "device_map", "device"), "n_gpu_layers"),
        **dict.fromkeys(("threads", "num_threads", "num_thread"), "n_threads"),
        **dict.fromkeys(("cache_type_k", "type_k", "kv_cache_dtype"), "kv_type"),
        **dict.fromkeys(("flash_attention", "attn_implementation"), "flash_attn"),
    },
    {
        "cache_dir": f"Set the variable INTERNVL_CACHE for what is computed; {_FILES}",
        "quantization": 'Name the quant with the model, as "InternVL3-8B-Instruct:Q4_K_M".',
        "quant": 'Name the quant with the model, as "InternVL3-8B-Instruct:Q4_K_M".',
        **dict.fromkeys((*OF_SAMPLING, *SAMPLING_OTHERWISE, *OF_FORMS), _OF_ASK),
    },
)


def of_engine(of_questions: Collection[str]) -> ForeignNames:
    """Return the names for `Session.open`, which is not given the options of questions either."""
    return ForeignNames(ENGINE.whose, ENGINE.called, {**dict.fromkeys(of_questions, _OF_ASK), **ENGINE.otherwise})
