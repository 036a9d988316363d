"""The models and thresholds of a cascade, checked before one is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.local_files import check_exists
from internvl_gguf.models.names import HubModel, LocalModel, parse_model_name
from internvl_gguf.session.session import Session
from internvl_gguf.utils import arguments
from internvl_gguf.utils.sizes import counted

CascadeModel = str | Session
"""A model by its name or path, or an open session."""

_MODELS_HINT = "Give two models or more, the smallest first."
_THRESHOLD_HINT = "Give a number from 0 to 1."


def distinct_models(models: Sequence[str | os.PathLike[str] | Session]) -> tuple[CascadeModel, ...]:
    """Return the models of a cascade.

    Raises:
        InvalidRequestError: fewer than two, or one twice.
        ModelFileError: an unknown name, or no such file.
    """
    found: list[CascadeModel] = []
    identities: list[object] = []
    for model in arguments.items("models", models, _MODELS_HINT):
        given = model if isinstance(model, Session) else arguments.path("a model", model)
        identity = id(given.runtime) if isinstance(given, Session) else _parsed(given)
        if identity in identities:
            raise InvalidRequestError(
                f"{display_name(given)} is in the cascade twice.", "It would answer the same again: name another model."
            )
        found.append(given)
        identities.append(identity)
    if len(found) < 2:
        raise InvalidRequestError(f"A cascade of {len(found)} model{'s' * (not found)}.", _MODELS_HINT)
    return tuple(found)


def checked_thresholds(given: object, n_models: int) -> tuple[float, ...]:
    """Return a threshold for each model but the last.

    Raises:
        InvalidRequestError: one out of range, or another number of them.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        values = [_threshold(value) for value in given]
    else:
        values = [_threshold(given)] * (n_models - 1)
    if len(values) != n_models - 1:
        raise InvalidRequestError(
            f"There {'is' if len(values) == 1 else 'are'} {counted(len(values), 'threshold')} for {n_models} models.",
            f"Give one number for all, or one for each model but the last: here {n_models - 1}.",
        )
    return tuple(values)


def display_name(model: CascadeModel) -> str:
    """Return the name of a model in messages: as it was given, of an open session the name of its files."""
    return model.runtime.files.name if isinstance(model, Session) else model


def _threshold(value: object) -> float:
    found = arguments.number("threshold", value)
    if not 0 <= found <= 1:
        raise arguments.wrong("threshold", value, _THRESHOLD_HINT)
    return found


def _parsed(model: str) -> LocalModel | HubModel:
    parsed = parse_model_name(model, load_catalog())
    if isinstance(parsed, LocalModel):
        check_exists(parsed)
    return parsed
