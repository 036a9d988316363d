"""Options of a question as callers give them: checked, with the fields of the sampling put together."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from internvl_gguf.config import AskOptions, PictureOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils import arguments
from internvl_gguf.utils.options import options_of

_CALLED_HERE: Final = {
    "image": "images",
    "picture": "images",
    "pictures": "images",
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "n_predict": "max_tokens",
    "repetition_penalty": "repeat_penalty",
    "repeat_last_n": "penalty_last_n",
    "stop_strings": "stop",
    "stop_sequences": "stop",
    "max_num": "max_tiles",
    "max_dynamic_patch": "max_tiles",
    "use_thumbnail": "thumbnail",
}
"""Names of options in transformers, llama.cpp, Ollama, OpenAI's interface and the model card, and those here."""
_DONE_OTHERWISE: Final = {
    "do_sample": "A temperature above 0 samples, as temperature=0.8; without one the likeliest token is taken.",
    "stream": "Session.stream gives the answer piece by piece.",
    "system": "Give it to Session.open, Session.set_system or a Question of a batch.",
}


def checked_options(options: Mapping[str, Any], shared: AskOptions | None = None) -> AskOptions:
    """Check the names and types of the options of a question; an option that is None is left out.

    Args:
        options: as `AskOptions`.
        shared: options that were checked before; those of the question replace them.

    Returns:
        The options of both; the fields of `SamplingParams` are in `sampling`.

    Raises:
        InvalidRequestError: an unknown option, or a value of another type or out of range; tile limits are checked
            later, with those of the session and of each picture.
    """
    if not isinstance(options, Mapping):
        raise arguments.wrong("options", options, 'Give a dict, as {"max_tiles": 6}.')
    for name in options:
        if name not in AskOptions.__annotations__:
            raise unknown_option("option", name, AskOptions.__annotations__)
    of_pictures, of_sampling = options_of(PictureOptions), options_of(SamplingParams)
    given: dict[str, Any] = {**(shared or {})}
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in of_sampling:
            fields[name] = value
        elif name in of_pictures:
            given[name] = of_pictures[name].checked(value)
        elif isinstance(value, SamplingParams):
            given[name] = value
        else:
            raise arguments.wrong(name, value, "Give a SamplingParams, or its fields by their names: temperature=0.8.")
    if fields:
        given["sampling"] = replace(given.get("sampling", SamplingParams()), **fields)
    return cast("AskOptions", given)


def unknown_option(what: str, name: object, known: Collection[str]) -> InvalidRequestError:
    """The error of a name that no option of a question has; it says what other tools' option is called here.

    Args:
        what: "option" or "field".
        name: the name.
        known: the names there are.
    """
    message = f"There is no {what} {name!r} of a question."
    if name in _CALLED_HERE:
        return InvalidRequestError(message, f"It is called {_CALLED_HERE[name]} here.")
    if name in _DONE_OTHERWISE:
        return InvalidRequestError(message, _DONE_OTHERWISE[name])
    near = difflib.get_close_matches(str(name), known, 1)
    question = f"Did you mean {near[0]}? " if near else ""
    return InvalidRequestError(message, f"{question}The {what}s are {', '.join(known)}.")
