"""Ask every question of a task several times, and count what each judge would have chosen right.

Each question gets the largest number of answers once, by `Session.best_of`, with seeds that make it repeatable. What
fewer would have got is estimated from these (`estimators`), so that the whole curve costs one run. A question whose
answers are all right, or all wrong, is shown to no judge: whatever it chose, the count is the same.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from internvl_gguf.bench.best_of.estimators import mean_sum, paired_gain, pass_at, subsets
from internvl_gguf.bench.best_of.judges import MeasuredJudge
from internvl_gguf.bench.best_of.settings import BestOfSettings
from internvl_gguf.bench.quality.accuracy import MAX_TOKENS, wilson_interval
from internvl_gguf.bench.quality.matching import is_relaxed
from internvl_gguf.bench.quality.sets import PictureItem, read_task
from internvl_gguf.bench.results import ORACLE, BestOfResult, JudgedAnswers
from internvl_gguf.config import AskOptions
from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.judging import Candidate, JudgedQuestion, judged
from internvl_gguf.judging.ballot import counted
from internvl_gguf.session.candidate_samplings import samplings_of
from internvl_gguf.utils.notices import Notice, log_notice

if TYPE_CHECKING:
    from internvl_gguf.bench.speed import StageProgress
    from internvl_gguf.session import Session


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question with all its answers.

    Attributes:
        number: its place in the task.
        item: the question as the task has it.
        asked: what a judge sees of it.
        candidates: its answers.
        right: for each of them, whether it is right by the relaxed rules.
    """

    number: int
    item: PictureItem
    asked: JudgedQuestion
    candidates: tuple[Candidate, ...]
    right: tuple[bool, ...]

    @property
    def is_mixed(self) -> bool:
        """Whether some answers are right and some are wrong."""
        return any(self.right) and not all(self.right)


@dataclass(frozen=True)
class MeasuredBestOf:
    """What was counted, and what is needed to take the time of it.

    Attributes:
        result: without seconds.
        asked: the questions that could be asked, with their places in the task.
        judging: seconds that a judge takes for each candidate, by its name.
    """

    result: BestOfResult
    asked: tuple[tuple[int, PictureItem], ...]
    judging: dict[str, float]


def measure_best_of(
    session: Session,
    task: str | None,
    settings: BestOfSettings,
    judges: Sequence[MeasuredJudge],
    on_progress: StageProgress = lambda what, done: None,
    on_notice: Notice = log_notice,
) -> MeasuredBestOf:
    """Ask all questions of a task, `settings.most` answers each, and let every judge choose among them.

    Args:
        session: of the configuration; its conversation is cleared.
        task: path of a file of questions (see `quality.sets`); None for the demo model's held-out ones.
        settings: how many answers, and how they are sampled.
        judges: who chooses. Any `judging.Judge` can be measured.
        on_progress: called with the task's name and the fraction that is done.
        on_notice: called with one line for each question that could not be asked.

    Raises:
        InvalidRequestError: the task cannot be read, or has no question with an answer or none that can be asked; a
            judge that raised an error, or gave no scores.
        LibraryError: llama.cpp refused, or the model computes what is no number.
    """
    session.clear()
    picture_set = read_task(task)
    answered: list[AnsweredQuestion] = []
    reason = ""
    for number, item in enumerate(picture_set.items):
        try:
            answered.append(_answered(session, number, item, settings))
        except (PictureError, InvalidRequestError) as error:
            reason = error.message
            on_notice(f"{picture_set.place(item)}: {reason}")
        on_progress(picture_set.name, (number + 1) / len(picture_set.items))
    if not answered:
        raise InvalidRequestError(f"No question of {picture_set.name} can be asked: {reason}", "Check the questions.")
    skipped = len(picture_set.items) - len(answered) + len(picture_set.problems)
    counting = _Counting(settings, answered)
    for judge in judges:
        counting.count(judge)
    return MeasuredBestOf(
        counting.result(picture_set.name, skipped),
        tuple((each.number, each.item) for each in answered),
        counting.judging,
    )


def question_options(item: PictureItem, number: int, settings: BestOfSettings, judge: object = None) -> AskOptions:
    """Return how a question of a task is asked; None leaves the judge out, which one answer does not need."""
    options: AskOptions = {"sampling": settings.sampling(number, item.max_tokens or MAX_TOKENS), "judge": judge}
    if item.max_tiles is not None:
        options["max_tiles"] = item.max_tiles
    return options


def _answered(session: Session, number: int, item: PictureItem, settings: BestOfSettings) -> AnsweredQuestion:
    seen: list[JudgedQuestion] = []

    def see(question: JudgedQuestion, candidates: Sequence[Candidate]) -> list[float]:
        """A judge without an opinion: a vote would end as soon as it is decided, and all answers are wanted."""
        seen.append(question)
        return [0.0] * len(candidates)

    found = session.best_of(item.prompt, item.images, n=settings.most, **question_options(item, number, settings, see))
    session.clear()
    right = (is_relaxed(each.reply.text, item.answers, item.tolerance) for each in found.candidates)
    return AnsweredQuestion(number, item, seen[0], found.candidates, tuple(right))


class _Counting:
    """Counts right answers by judge and number of answers."""

    def __init__(self, settings: BestOfSettings, answered: Sequence[AnsweredQuestion]) -> None:
        self._settings, self._answered = settings, answered
        self._first_stays = settings.first_is_greedy
        self._one = self._passes(1)
        self._judged: list[JudgedAnswers] = []
        self.judging: dict[str, float] = {}

    def count(self, judge: MeasuredJudge) -> None:
        """Count what a judge chooses right of each number of answers."""
        shares: dict[int, list[float]] = {count: [] for count in self._settings.counts}
        seconds, n_judged = 0.0, 0
        for question in self._answered:
            if not question.is_mixed and n_judged:  # one is judged in any case, for its time
                for share in shares.values():
                    share.append(float(question.right[0]))
                continue
            started = time.perf_counter()
            scores = judged(judge.judge, question.asked, question.candidates).scores
            seconds += time.perf_counter() - started
            n_judged += len(question.candidates)
            for count, share in shares.items():
                share.append(self._share_right(judge, question, count, scores))
        self.judging[judge.name] = seconds / n_judged
        for count, share in shares.items():
            self._add(judge.name, count, share)

    def result(self, task: str, skipped: int) -> BestOfResult:
        """Return all counts, those of the oracle last."""
        for count in self._settings.counts:
            self._add(ORACLE, count, self._passes(count))
        questions, sampled_from = len(self._answered), int(self._first_stays)
        shares = [sum(each.right[sampled_from:]) / len(each.right[sampled_from:]) for each in self._answered]
        pass1 = math.fsum(shares)
        sampled = samplings_of(replace(self._settings.sampling(0, MAX_TOKENS), best_of=self._settings.most))[-1]
        tokens = [[each.reply.usage.completion_tokens for each in one.candidates] for one in self._answered]
        return BestOfResult(
            task=task,
            questions=questions,
            counts=self._settings.counts,
            seed=self._settings.seed,
            first_is_greedy=self._first_stays,
            temperature=sampled.effective_temperature,
            top_p=sampled.effective_top_p,
            pass1=pass1 / questions,
            pass1_low=wilson_interval(pass1, questions)[0],
            pass1_high=wilson_interval(pass1, questions)[1],
            mixed=sum(each.is_mixed for each in self._answered),
            tokens=tuple(
                math.fsum(mean_sum(each, count, first_stays=self._first_stays) for each in tokens) / questions
                for count in self._settings.counts
            ),
            judged=tuple(self._judged),
            skipped=skipped,
        )

    def _passes(self, count: int) -> list[float]:
        """Return for each question the probability that one of so many answers is right."""
        return [pass_at(each.right, count, first_stays=self._first_stays) for each in self._answered]

    def _share_right(
        self, judge: MeasuredJudge, question: AnsweredQuestion, count: int, scores: Sequence[float]
    ) -> float:
        """Return of how many of the subsets of so many answers the judge chooses a right one."""
        draw = random.Random(f"{self._settings.seed} {question.number} {count}")  # the same for every judge
        chosen = [
            question.right[_choice(judge, question, places, scores)]
            for places in subsets(len(question.right), count, first_stays=self._first_stays, draw=draw)
        ]
        return sum(chosen) / len(chosen)

    def _add(self, judge: str, count: int, shares: Sequence[float]) -> None:
        right = math.fsum(shares)
        low, high = wilson_interval(right, len(shares))
        self._judged.append(JudgedAnswers(judge, count, right, low, high, *paired_gain(self._one, shares)))


def _choice(judge: MeasuredJudge, question: AnsweredQuestion, places: Sequence[int], scores: Sequence[float]) -> int:
    """Return the place of the answer that a judge chooses among those at some places."""
    if len(places) == 1:
        return places[0]
    candidates = [question.candidates[place] for place in places]
    if judge.scores_alone:
        return max((places[each] for each in counted(candidates)), key=scores.__getitem__)
    return places[judged(judge.judge, question.asked, candidates).best]
