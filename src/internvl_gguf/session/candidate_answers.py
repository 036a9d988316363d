"""Several answers to one question, written at once, of which a judge chooses one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from internvl_gguf.engine import Handle, TileProgress
from internvl_gguf.judging import Candidate, Judge, JudgedQuestion, Verdict, certainty, is_decided, judged, vote
from internvl_gguf.session.answer import AnswerStream, mean_of
from internvl_gguf.session.call_reader import AnswerPiece
from internvl_gguf.session.candidate_samplings import samplings_of
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prepare import PreparedQuestion
from internvl_gguf.types import FinishReason, Message, Reply, SelectedFrom, Selection

CandidateProgress = Callable[[int, int, int], None]
"""Called with the candidates that have ended, all candidates, and the tokens of all so far."""

_UNBOTHERED: Final[tuple[Judge, ...]] = (vote, certainty)
"""Judges that leave aborted candidates out by themselves, and say how many they were."""

question_numbers: Final = itertools.count(1)
"""Numbers for `candidates_of` of `Engine.submit`, of all questions of this process."""


@dataclass(frozen=True)
class BestOf:
    """Several answers to a question, and which of them was chosen.

    Attributes:
        reply: the chosen answer; its `selection` says the same as JSON can hold.
        candidates: all answers in their order; those that were not needed any more, or cut short by `abort`, have the
            finish_reason "aborted" and what was written of them.
        verdict: what the judge found.
        scores: its scores, one for each candidate, in order.
    """

    reply: Reply
    candidates: tuple[Candidate, ...]
    verdict: Verdict

    @property
    def scores(self) -> tuple[float, ...]:
        """Scores of the candidates, in order; what they are is the judge's matter."""
        return self.verdict.scores


class CandidateAnswers:
    """The answers to one question, from their submission to the choice of one; stands in for an `AnswerStream`.

    Args:
        runtime, question, history, on_tiles, evicts: as in `AnswerStream`; the question says how many candidates, and
            who judges them.
        on_candidate: called with each candidate that has ended, in the order in which they end.
        on_progress: see `CandidateProgress`.
        n_kept: how many of the best are wanted; more than one are never ended early.
        top_logprobs, keeps_tags: as in `AnswerStream`.

    Attributes:
        handle: of all answers together.
        streams: the answers, in order.
        text: the chosen answer; "" before it was chosen.
    """

    def __init__(
        self,
        runtime: ModelRuntime,
        question: PreparedQuestion,
        history: Sequence[Message],
        on_tiles: TileProgress | None,
        *,
        evicts: bool = True,
        on_candidate: Callable[[Candidate], None] | None = None,
        on_progress: CandidateProgress | None = None,
        n_kept: int = 1,
        top_logprobs: int | None = None,
        keeps_tags: bool = False,
    ) -> None:
        number = next(question_numbers)
        self._engine, self._n_kept = runtime.engine, n_kept
        self._question, self._history = question, history
        self._samplings = samplings_of(question.sampling)
        self._on_candidate, self._on_progress = on_candidate, on_progress
        self.streams = [
            AnswerStream(
                runtime,
                replace(question, sampling=sampling),
                history,
                None if index else on_tiles,
                evicts=evicts,
                top_logprobs=top_logprobs,
                keeps_tags=keeps_tags,
                candidates_of=number,
                tells_certainty=True,
            )
            for index, sampling in enumerate(self._samplings)
        ]
        self._ended: dict[int, Candidate] = {}
        self._best_of: BestOf | None = None
        self.handle = CandidateHandles([stream.handle for stream in self.streams])
        self.text = ""

    def pieces(self) -> Iterator[AnswerPiece]:
        """Wait for the answers, and yield the chosen one, as a whole.

        Raises:
            InternVLError: the error that one of them, or the judge, ended in; the others end with it.
        """
        try:
            while not self.take_ready():
                self._engine.work_until(lambda: self.handle.is_readable)
        except BaseException:
            self.handle.cancel()
            raise
        reply = self.reply()
        if reply.thinking:
            yield AnswerPiece(thinking=reply.thinking)
        yield AnswerPiece(reply.text)

    def take_ready(self) -> bool:
        """Take what is there of the answers, without waiting; return whether all have ended.

        Raises:
            InternVLError: the error that one of them ended in.
        """
        for index, stream in enumerate(self.streams):
            if index not in self._ended and stream.take_ready():
                self._end(index)
        if len(self._ended) < len(self.streams) and self._is_decided():
            self.handle.cancel()
            for index in range(len(self.streams)):
                if index not in self._ended:
                    self._end(index)
        if self._on_progress:
            tokens = sum(len(stream.handle.tokens) for stream in self.streams)
            self._on_progress(len(self._ended), len(self.streams), tokens)
        return len(self._ended) == len(self.streams)

    def _end(self, index: int) -> None:
        stream = self.streams[index]
        stream.finish()
        reply = stream.reply()
        self_certainty = mean_of(each.certainty for each in stream.handle.logprobs)
        candidate = Candidate(index, reply, self._samplings[index].seed, reply.logprob, self_certainty)
        self._ended[index] = candidate
        if self._on_candidate:
            self._on_candidate(candidate)

    def _is_decided(self) -> bool:
        """Return whether no answer that is still written can change the choice."""
        if self._question.judge is not vote or self._n_kept > 1 or not self._ended:
            return False
        return is_decided(self._asked, list(self._ended.values()), len(self.streams))

    @property
    def _asked(self) -> JudgedQuestion:
        message = self._question.message
        return JudgedQuestion(message.text, message.pictures, tuple(self._history), self._question.form)

    def best_of(self) -> BestOf:
        """Return all answers and the chosen one, once all have ended.

        Raises:
            InvalidRequestError: the judge raised an error, or returned something else than it has to.
        """
        if self._best_of is None:
            candidates = tuple(self._ended[index] for index in range(len(self.streams)))
            verdict = self._verdict(candidates)
            reply = _with_reading(candidates[verdict.best].reply, candidates)
            self.text = reply.text
            notices = (*reply.notices, *self._notices(candidates))
            reply = replace(reply, selection=_selection(candidates, verdict), notices=notices)
            self._best_of = BestOf(reply, candidates, verdict)
        return self._best_of

    def _verdict(self, candidates: Sequence[Candidate]) -> Verdict:
        """Return what the judge finds. It is not asked about answers that `abort` cut: somebody wants to go on."""
        judge = self._question.judge
        ended = [each for each in candidates if each.reply.finish_reason != "aborted"]
        if not ended:
            tokens = [each.reply.usage.completion_tokens for each in candidates]
            return Verdict(tokens.index(max(tokens)), tuple(map(float, tokens)), 0.0, "none had ended")
        if judge in _UNBOTHERED or len(ended) == len(candidates):
            return judged(judge, self._asked, candidates)
        verdict = judged(judge, self._asked, ended)
        scores = {each.index: score for each, score in zip(ended, verdict.scores, strict=True)}
        least = min(verdict.scores)
        return Verdict(
            ended[verdict.best].index,
            tuple(scores.get(each.index, least) for each in candidates),
            verdict.confidence,
            f"{verdict.reason} ({len(candidates) - len(ended)} unfinished)",
            tuple(tuple(ended[place].index for place in group) for group in verdict.groups),
        )

    def _notices(self, candidates: Sequence[Candidate]) -> Iterator[str]:
        if all(each.reply.finish_reason == "length" for each in candidates):
            yield f"All {len(candidates)} answers were cut at their limit; more max_tokens lets them end."
        if any(stream.handle.report.has_waited for stream in self.streams):
            yield (
                f"The context of {self._engine.n_ctx:,} had no room for all {len(candidates)} answers at once, so some "
                "waited for others. It is faster with a larger n_ctx, or fewer max_tokens."
            )

    def finish(self) -> list[AnswerPiece]:
        """Return what was held back: nothing."""
        return []

    def reply(self) -> Reply:
        """Return the chosen answer. Raises as `best_of`."""
        return self.best_of().reply

    def partial(self) -> Callable[[], Any] | None:
        """Return a function that reads the value of the chosen answer; None if it has no form, or is not chosen yet."""
        return self.streams[self._best_of.verdict.best].partial() if self._best_of else None

    def messages(self, *, is_whole: bool) -> list[Message]:
        """Return the question and the chosen answer as the conversation keeps them."""
        return self.streams[self.best_of().verdict.best].messages(is_whole=is_whole)


class CandidateHandles:
    """The handles of several answers, as one.

    Args:
        handles: one for each answer.
    """

    def __init__(self, handles: Sequence[Handle]) -> None:
        self._handles = handles

    @property
    def is_readable(self) -> bool:
        """Whether reading one of them would not have to wait."""
        return any(handle.is_readable for handle in self._handles if not handle.is_over) or self.is_over

    @property
    def is_over(self) -> bool:
        """Whether all answers have ended and were read to their ends."""
        return all(handle.is_over for handle in self._handles)

    def cancel(self, reason: FinishReason = "aborted") -> None:
        """End all answers that have not ended; callable from any thread."""
        for handle in self._handles:
            handle.cancel(reason)


def ranked(best_of: BestOf) -> list[int]:
    """Return the numbers of all candidates, the best first: by their scores, behind all those that were cut off."""
    verdict, candidates = best_of.verdict, best_of.candidates
    others = [each for each in candidates if each.index != verdict.best]
    others.sort(key=lambda each: (_ENDINGS[each.reply.finish_reason], -verdict.scores[each.index]))
    return [verdict.best, *(each.index for each in others)]


_ENDINGS: Final[dict[FinishReason, int]] = {"stop": 0, "length": 1, "aborted": 2}


def _with_reading(reply: Reply, candidates: Sequence[Candidate]) -> Reply:
    """Return an answer with what encoding and reading the question took, whichever candidate did that."""
    usages, timings = [each.reply.usage for each in candidates], [each.reply.timings for each in candidates]
    usage = replace(
        reply.usage,
        cached_tokens=min(each.cached_tokens for each in usages),
        tiles_encoded=max(each.tiles_encoded for each in usages),
    )
    timing = replace(
        reply.timings,
        preprocess=max(each.preprocess for each in timings),
        encode=max(each.encode for each in timings),
        prefill=max(each.prefill for each in timings),
    )
    return replace(reply, usage=usage, timings=timing)


def _selection(candidates: Sequence[Candidate], verdict: Verdict) -> Selection:
    agreeing = {place: len(group) for group in verdict.groups for place in group}
    told = tuple(
        SelectedFrom(
            each.reply.text,
            each.reply.finish_reason,
            score,
            each.seed,
            each.logprob,
            each.certainty,
            each.reply.usage.completion_tokens,
            agreeing.get(each.index),
        )
        for each, score in zip(candidates, verdict.scores, strict=True)
    )
    return Selection(verdict.best, verdict.confidence, verdict.reason, told)
