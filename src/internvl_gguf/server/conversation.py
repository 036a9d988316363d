"""The turns of a conversation, in the order in which the prompt has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile

from internvl_gguf.server.chat_request import SentCall, Turn
from internvl_gguf.server.content import refused
from internvl_gguf.utils.safe_text import safe_name


def conversation(turns: Iterable[Turn], param: str) -> tuple[Turn, ...]:
    """Return the turns of a conversation, neighbours of one role joined.

    The published prompt has one system message at its beginning and then questions and answers in turn; several
    messages of one role in a row, which other models take, are one turn here. What a tool returned is a turn of its
    own, and stands in the order of the calls: the prompt has no ids.

    Raises:
        RefusedRequestError: no question, an empty one at the end, a picture in no question, or calls and results of
            tools that do not fit each other.
    """
    joined: list[Turn] = []
    for turn in turns:
        if turn.shown and turn.role not in ("user", "tool"):
            raise refused(
                param, f"have a picture or clip in a message of the {turn.role}", "Give it in a message of the user."
            )
        if joined and joined[-1].role == turn.role != "tool":
            before = joined[-1]
            thinking = "\n".join(filter(None, (before.thinking, turn.thinking)))
            joined[-1] = replace(
                before, parts=before.parts + turn.parts, calls=before.calls + turn.calls, thinking=thinking
            )
        else:
            joined.append(turn)
    if not any(turn.role == "user" for turn in joined):
        raise refused(param, "have no message of the user", "Ask something.")
    joined = _with_results_in_order(joined, param)
    last = joined[-1]
    if last.role == "system":
        raise refused(param, "end with a system message", "Give it before the question.")
    if last.role == "assistant" and joined[-2].role not in ("user", "tool"):
        raise refused(param, "end with an answer that follows no question", "Give it behind a message of the user.")
    if last.role == "user" and not last.shown and not last.text.strip():
        raise refused(param, "end with an empty question", "Ask something, or give a picture.")
    return tuple(joined)


def _with_results_in_order(turns: Sequence[Turn], param: str) -> list[Turn]:
    """Return the turns with what tools returned in the order of the calls.

    Raises:
        RefusedRequestError: a result without its call, or a call without its result.
    """
    found: list[Turn] = []
    index = 0
    while index < len(turns):
        turn = turns[index]
        if turn.role == "tool":
            raise refused(
                param,
                "have a result of a tool that follows no call",
                "Give it behind the assistant's message with the call.",
            )
        found.append(turn)
        index += 1
        if turn.calls:
            results = list(takewhile(lambda each: each.role == "tool", turns[index:]))
            found += _in_order(turn.calls, results, param)
            index += len(results)
    return found


def _in_order(calls: Sequence[SentCall], results: Sequence[Turn], param: str) -> list[Turn]:
    """Return results by their calls; one without an id belongs to the first call that has none yet."""
    placed: dict[int, Turn] = {}
    for result in results:
        fitting = [
            index for index, call in enumerate(calls) if not result.answers or result.answers in (call.id, call.name)
        ]
        place = next((index for index in fitting if index not in placed), None)
        if place is None:
            what = (
                "a call that has one already" if fitting else f"the call {_shown(result.answers)}, which is not there"
            )
            raise refused(
                param, f"have a result of {what}", "Give one for each call of the assistant's message before it."
            )
        placed[place] = result
    missing = [call for index, call in enumerate(calls) if index not in placed]
    if missing:
        shown = _shown(missing[0].id or missing[0].name)
        raise refused(
            param,
            f"have no result of the call {shown}",
            "Give what its tool returned behind it, or leave the call out.",
        )
    return [placed[index] for index in range(len(calls))]


def _shown(name: str) -> str:
    return safe_name(name, 64)
