"""Options of a question as callers give them: checked, with the fields of the sampling put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from internvl_gguf.config import AskOptions, PictureOptions, SamplingParams
from internvl_gguf.utils import arguments
from internvl_gguf.utils.foreign_names import QUESTION
from internvl_gguf.utils.options import options_of


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
            raise QUESTION.unknown(name, AskOptions.__annotations__)
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
