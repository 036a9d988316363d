"""Several answers to one question, judged: which of them is the best, and how sure that is.

    judge           what a judge gets and returns: Candidate, JudgedQuestion, Verdict, Judge
    judges          a judge by name, or of the caller's own, run and checked
    vote            self-consistency over final answers, weighted by confidence; when it is decided
    certainty       Borda voting over self-certainty, for free text
    ballot          the candidates that count, and those of them with equal answers
    answer_key      what of an answer is compared, and when two are equal
    final_answer    the final answer in a text
    options         the options of a multiple-choice question
    normalise       texts and numbers in one spelling
    same_boxes      boxes that lie in the same places

Nothing is asked of a model here, and neither llama.cpp nor numpy is known.
"""

from __future__ import annotations

from internvl_gguf.judging.answer_key import AnswerKey, answer_key
from internvl_gguf.judging.certainty import POWER, certainty
from internvl_gguf.judging.judge import Candidate, Judge, JudgedQuestion, Verdict
from internvl_gguf.judging.judges import JUDGES, judge_of, judged, verdict_of
from internvl_gguf.judging.vote import is_decided, vote

__all__ = [
    "JUDGES",
    "POWER",
    "AnswerKey",
    "Candidate",
    "Judge",
    "JudgedQuestion",
    "Verdict",
    "answer_key",
    "certainty",
    "is_decided",
    "judge_of",
    "judged",
    "verdict_of",
    "vote",
]
