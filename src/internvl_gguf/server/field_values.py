"""The values of fields of requests, checked by their tables."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from internvl_gguf.config import SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.server.chat_request import AnswerDefaults, Body
from internvl_gguf.server.field_homes import home_of
from internvl_gguf.server.fields import MOST_STOPS, PICTURE_FIELDS, Fields, Refused, Used
from internvl_gguf.utils.arguments import shown
from internvl_gguf.utils.kinds import JudgeName
from internvl_gguf.utils.options import options_of

_THINKING_ELSEWHERE: Final = ("thinking", "think", "enable_thinking", "reasoning", "reasoning_effort", "effort")
"""Names of other interfaces and runtimes for what each interface asks for thinking by."""
_OF_THINKING: Final[Mapping[str, str]] = {
    "reasoning_effort": 'reasoning_effort: "high" lets the model think before it answers, "none" keeps it from that',
    "reasoning": 'reasoning: {"effort": "high"} lets the model think before it answers, "none" keeps it from that',
    "thinking": 'thinking: {"type": "enabled"} lets the model think before it answers, "disabled" keeps it from that',
}
"""What asks for thinking in each interface, by its field."""


def check_fields(body: Body, fields: Fields) -> Body:
    """Return the fields of a body that are used and not null.

    Raises:
        RefusedRequestError: a field that is refused, or that nobody knows.
    """
    found: dict[str, Any] = {}
    for name, value in body.items():
        known = fields.get(name)
        if known is None:
            raise _unknown(name, fields)
        if isinstance(known, Refused) and not known.is_neutral(value):
            raise RefusedRequestError(
                f"The field {name} is not supported: {known.why}.",
                "Leave it out.",
                code="unsupported_parameter",
                param=name,
            )
        if isinstance(known, Used) and value is not None:
            found[name] = value
    return found


def _unknown(name: str, fields: Fields) -> RefusedRequestError:
    shown = name if len(name) <= 60 and name.isprintable() else "with a name of another kind"
    near = difflib.get_close_matches(name[:60], fields, n=1)
    meant = next((each for each in _OF_THINKING if each in fields), "") if name in _THINKING_ELSEWHERE else ""
    home = home_of(name, fields)
    hint = f"Did you mean {near[0]}?" if near else "Leave it out."
    if meant or home:
        hint = f"Use {_OF_THINKING[meant]}." if meant else f"Give it as {home}."
    return RefusedRequestError(
        f"There is no field {shown}.", hint, code="unknown_parameter", param=shown if shown == name else None
    )


def wrong(param: str, what: str, hint: str) -> RefusedRequestError:
    """Return the error of a field whose value cannot be used."""
    return RefusedRequestError(f"{param} {what}.", hint, code="invalid_value", param=param)


def switch(body: Body, name: str, *, default: bool = False) -> bool:
    """Return a field that is true or false.

    Raises:
        RefusedRequestError: it is something else.
    """
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise wrong(name, "is neither true nor false", "Give true or false.")
    return value


def whole(body: Body, name: str, low: int, high: int, default: int) -> int:
    """Return a field that is a whole number within bounds, both included.

    Raises:
        RefusedRequestError: it is something else.
    """
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise wrong(name, f"is no whole number from {low} to {high}", "Give one.")
    return value


_SAMPLING_NAMES: Final[Mapping[str, Sequence[str]]] = {
    "max_tokens": ("max_completion_tokens", "max_output_tokens", "max_tokens"),
    "stop": ("stop", "stop_sequences"),
    "repeat_penalty": ("repeat_penalty", "repetition_penalty"),
    "penalty_last_n": ("penalty_last_n", "repeat_last_n"),
}
"""The names of our options in the interfaces, where these are others."""


def sampling_of(body: Body, defaults: AnswerDefaults, n: int = 1) -> SamplingParams:
    """Return how the tokens of an answer are chosen, and the best of several answers.

    Args:
        body: the fields of a request.
        defaults: what the owner chose. His `best_of` does not count for greedy answers, or for fewer than are wanted.
        n: number of answers that are wanted.

    Raises:
        RefusedRequestError: a value of another kind or out of range, or answers that would all be equal.
    """
    chosen = {}
    for name, declared in options_of(SamplingParams).items():
        if name == "thinking":  # `thinking_fields` reads it
            continue
        values = [_checked(declared, each, body[each]) for each in _SAMPLING_NAMES.get(name, (name,)) if each in body]
        if values:
            chosen[name] = values[0]  # all are checked, the first of the names counts
    sampling = replace(defaults.sampling, best_of=1).changed({**chosen, "best_of": 1})
    best_of = chosen.get("best_of", defaults.sampling.best_of)
    is_greedy = sampling.temperature == 0 or sampling.top_k == 1
    if "best_of" not in body and (is_greedy or n > best_of):
        best_of = 1
    if "best_of" in body and n > best_of:
        raise wrong("n", f"is {n}, and best_of is {best_of}", "Write as many answers as are given, or more.")
    if "judge" in body and best_of == 1:
        raise wrong("judge", "has one answer to choose from", "Give best_of, too.")
    try:
        return replace(sampling, best_of=best_of)
    except InvalidRequestError as error:
        raise RefusedRequestError(
            f"best_of: {error.message}", error.hint, code="invalid_value", param="best_of"
        ) from None


def _checked(declared: Any, given: str, value: Any) -> Any:
    if declared.name == "seed" and value == -1:
        return None
    if declared.name == "judge" and value not in JudgeName.choices:
        raise wrong(
            given, f"is {shown(value)}, which is no judge of this server", f"Give {' or '.join(JudgeName.choices)}."
        )
    if declared.name == "stop":
        takes_one = given == "stop"  # Anthropic's stop_sequences are a list
        texts = [value] if isinstance(value, str) and takes_one else value
        if not isinstance(texts, list) or not all(isinstance(each, str) and each for each in texts):
            what = "is neither a text nor a list of texts" if takes_one else "is no list of texts"
            raise wrong(given, what, "Give texts that are not empty.")
        if len(texts) > MOST_STOPS:
            raise wrong(given, f"has more than {MOST_STOPS} texts", "Give fewer.")
    if isinstance(value, float) and value.is_integer() and declared.name in ("max_tokens", "top_k", "seed", "best_of"):
        value = int(value)  # JavaScript writes no difference
    try:
        return declared.checked(value, given)
    except InvalidRequestError as error:
        raise RefusedRequestError(error.message, error.hint, code="invalid_value", param=given) from None


def clip_wishes_of(body: Body) -> dict[str, Any]:
    """Return what a request says about all its clips, by the names of `Video`: `max_tiles`, and vLLM's words.

    Raises:
        RefusedRequestError: vLLM's words in a shape that cannot be used.
    """
    found = {"max_tiles": body["max_tiles"]} if "max_tiles" in body else {}
    media = body.get("media_io_kwargs", {})
    kinds = media.get("video", {}) if isinstance(media, dict) and set(media) <= {"video"} else None
    if not isinstance(kinds, dict) or not set(kinds) <= {"num_frames", "fps"}:
        raise wrong("media_io_kwargs", "is no object that it can be", 'Give {"video": {"num_frames": 8, "fps": 1}}.')
    for name, ours in (("num_frames", "frames"), ("fps", "fps")):
        if kinds.get(name) not in (None, -1):  # -1: as many as there are, or at any rate
            found[ours] = kinds[name]
    return found


def pictures_of(body: Body, defaults: AnswerDefaults) -> Any:
    """Return how the pictures of a request are cut and laid out.

    Raises:
        RefusedRequestError: a value of another kind, or limits that no grid satisfies.
    """
    given = {name: body[name] for name in (*PICTURE_FIELDS, "frame_times") if name in body}
    try:
        return type(defaults.pictures)(**{**vars(defaults.pictures), **given})
    except InvalidRequestError as error:
        raise RefusedRequestError(
            error.message, error.hint, code="invalid_value", param=next(iter(given), None)
        ) from None
