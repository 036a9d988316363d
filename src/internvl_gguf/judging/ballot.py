"""The candidates of a vote: which of them count, and which answered the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from internvl_gguf.judging.answer_key import AnswerKey
from internvl_gguf.judging.judge import Candidate


def counted(candidates: Sequence[Candidate]) -> list[int]:
    """Return the places of the candidates that count: those that ended by themselves, else those that were cut off.

    One that was cut off by max_tokens or aborted could otherwise win by being short. Aborted ones count if all were.
    """
    reasons = [each.reply.finish_reason for each in candidates]
    for counting in ("stop", "length"):
        if counting in reasons:
            return [place for place, reason in enumerate(reasons) if reason == counting]
    return list(range(len(candidates)))


@dataclass
class Group:
    """Candidates with equal answers.

    Attributes:
        key: the answer of the first of them, which all are compared with; None for one that equals no other.
        places: their places, in order.
    """

    key: AnswerKey | None
    places: list[int]


def grouped(places: Sequence[int], keys: Sequence[AnswerKey | None]) -> list[Group]:
    """Return candidates by their answers, in the order of the first of each group.

    A candidate joins the first group whose first answer equals its own, so that what comes later changes no group,
    though boxes that equal a third one need not equal each other. One without a key stands alone.

    Args:
        places: the candidates to group, in order.
        keys: of all candidates, by their places.
    """
    groups: list[Group] = []
    known: dict[AnswerKey, Group] = {}
    for place in places:
        key = keys[place]
        found = known.get(key) if key is not None else None
        if found is None and key is not None and key.kind == "boxes":
            found = next((each for each in groups if each.key is not None and each.key.is_same(key)), None)
        if found is not None:
            found.places.append(place)
            continue
        groups.append(Group(key, [place]))
        if key is not None:
            known[key] = groups[-1]
    return groups


def tally(n_agreed: int, candidates: Sequence[Candidate]) -> str:
    """Return how many agree, as people read it: "5 of 8 agree (1 cut off, 2 unfinished)"."""
    reasons = [each.reply.finish_reason for each in candidates]
    left_out = {"cut off": reasons.count("length"), "unfinished": reasons.count("aborted")}
    notes = ", ".join(f"{count} {what}" for what, count in left_out.items() if count)
    agree = f"{n_agreed} of {len(candidates)} agree" if len(candidates) > 1 else "the only answer"
    return f"{agree} ({notes})" if notes else agree
