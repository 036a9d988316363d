"""How sure a model is of an answer: told where it is asked for, of one answer and of the best of several."""

from __future__ import annotations

import math

import numpy as np
import pytest

from internvl_gguf import InvalidRequestError, Session
from tests.support.pictures import noise


def test_one_answer_tells_the_geometric_mean_of_its_probabilities(session: Session) -> None:
    """Of one token that is the likeliest one's own probability."""
    logprobs = session.next_token_logprobs("What is it?", [noise(1)])
    reply = session.ask("What is it?", [noise(1)], max_tokens=1, confidence=True)
    assert reply.logprob is not None
    assert reply.logprob == pytest.approx(float(np.max(logprobs)), abs=1e-5)
    assert reply.confidence == pytest.approx(math.exp(reply.logprob))
    assert reply.to_dict()["confidence"] == round(reply.confidence or 0, 4)


def test_nobody_pays_for_it_who_does_not_ask(session: Session) -> None:
    reply = session.ask("What is it?", max_tokens=2)
    assert reply.logprob is None
    assert reply.confidence is None
    assert reply.to_dict()["confidence"] is None


def test_of_several_answers_the_judge_is_asked(session: Session) -> None:
    reply = session.ask("What is it?", best_of=2, max_tokens=2, seed=1)
    assert reply.selection is not None
    assert reply.confidence == reply.selection.confidence


def test_it_is_asked_for_by_true_or_false(session: Session) -> None:
    with pytest.raises(InvalidRequestError, match=r"confidence is 0\.8") as refused:
        session.ask("What is it?", confidence=0.8)  # type: ignore[arg-type]
    assert refused.value.hint == "Give True or False."
