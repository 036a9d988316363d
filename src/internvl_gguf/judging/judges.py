"""Judges by name and of the caller's own: run, and what they return checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from internvl_gguf.errors import InternVLError, InvalidRequestError
from internvl_gguf.judging.certainty import certainty
from internvl_gguf.judging.judge import Candidate, Judge, JudgedQuestion, Verdict
from internvl_gguf.judging.vote import vote
from internvl_gguf.utils.arguments import number, shown, whole, wrong
from internvl_gguf.utils.safe_text import error_line

JUDGES: Final[Mapping[str, Judge]] = MappingProxyType({"vote": vote, "certainty": certainty})
"""The judges that have a name."""


def judge_of(given: object) -> Judge:
    """Return the judge of a name, or the one that was given.

    Raises:
        InvalidRequestError: there is no judge of this name, or what was given cannot be called.
    """
    if isinstance(given, str) and given in JUDGES:
        return JUDGES[given]
    if callable(given):
        judge: Judge = given
        return judge
    raise wrong("judge", given, f"Give {' or '.join(map(repr, JUDGES))}, a Critic, or a function.")


def judged(judge: Judge, question: JudgedQuestion, candidates: Sequence[Candidate]) -> Verdict:
    """Return the verdict of a judge, checked.

    Raises:
        InvalidRequestError: the judge raised an error, which is its cause, or returned something else than it has to.
        InternVLError: an error of this package that the judge raised, as it is.
    """
    try:
        output = judge(question, candidates)
    except InternVLError:
        raise
    except Exception as error:
        raise InvalidRequestError(
            f"The judge raised {type(error).__name__}: {error_line(error)}.",
            'Mend the judge, or take judge="vote".',
        ) from error
    return verdict_of(output, len(candidates))


def verdict_of(output: object, n: int) -> Verdict:
    """Return what a judge returned as a verdict.

    Of scores alone the highest is the best, the first of equal ones. The confidence is the best score where all are
    from 0 to 1, as probabilities are; else the share of the best in their softmax.

    Args:
        output: a `Verdict`, or a finite number for each candidate.
        n: number of candidates.

    Raises:
        InvalidRequestError: it is something else, of another length, or has numbers that are not finite.
    """
    if isinstance(output, Verdict):
        return _checked(output, n)
    scores = _scores("The judge returned", output, n)
    best = max(range(n), key=scores.__getitem__)
    others = [score for place, score in enumerate(scores) if place != best]
    reason = f"score {scores[best]:.4g}" + (f" (next {max(others):.4g})" if others else "")
    return Verdict(best, scores, _confidence(scores, best), reason)


def _checked(verdict: Verdict, n: int) -> Verdict:
    scores = _scores("The judge's verdict has", verdict.scores, n)
    best = whole("best of the judge's verdict", verdict.best)
    if not 0 <= best < n:
        raise wrong("best of the judge's verdict", best, f"Give the place of a candidate, 0 to {n - 1}.")
    confidence = number("confidence of the judge's verdict", verdict.confidence)
    if not 0 <= confidence <= 1:
        raise wrong("confidence of the judge's verdict", confidence, "Give a number from 0 to 1.")
    return Verdict(best, scores, confidence, str(verdict.reason), verdict.groups)


def _scores(what: str, given: object, n: int) -> tuple[float, ...]:
    hint = f"Return a Verdict, or a list of {n} numbers, one for each candidate."
    if isinstance(given, str | bytes | Mapping) or not hasattr(given, "__iter__"):
        raise InvalidRequestError(f"{what} {shown(given)} as scores.", hint)
    values = list(given)
    if len(values) != n:
        raise InvalidRequestError(f"{what} {len(values)} scores for {n} candidates.", hint)
    scores = []
    for place, value in enumerate(values):
        try:
            scores.append(number(f"score {place}", value))
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{what} {shown(value)} as the score of candidate {place}.", hint) from error
        if not math.isfinite(scores[-1]):
            raise InvalidRequestError(f"{what} {shown(value)} as the score of candidate {place}.", hint)
    return tuple(scores)


def _confidence(scores: Sequence[float], best: int) -> float:
    if all(0 <= score <= 1 for score in scores):
        return scores[best]
    return 1 / math.fsum(math.exp(score - scores[best]) for score in scores)
