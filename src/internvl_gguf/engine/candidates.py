"""Candidates: several answers to one question, written at once, with the positions of the question held once.

The first candidate runs on a sequence with room for a whole context, as any request does. Once it has read the prompt,
the others branch off, and all together have the room of that one context. Where it becomes short, branches of answers
that have ended are dropped first; then the candidate that has written least waits until others have ended, and reads
what it wrote once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from internvl_gguf.engine.kv_ledger import total_length

if TYPE_CHECKING:
    from internvl_gguf.engine.request import Request
    from internvl_gguf.engine.sequences import Sequences

_LEAST_BEGUN: Final = 32
"""Tokens that a candidate has room for, beside as many for each that runs already, before it begins."""


@dataclass
class _Question:
    """The candidates of one question.

    Attributes:
        stem: the sequence with room of its own that they share; -1 before there is one.
        holder: the candidate that runs on it; None if that has ended.
        members: all that have not ended.
    """

    stem: int = -1
    holder: Request | None = None
    members: list[Request] = field(default_factory=list)


class Candidates:
    """Places candidates on sequences, and keeps room for them. Used by the thread that works with the scheduler.

    Args:
        sequences: of the context.
        n_batch: most positions decoded in one call.
        n_draft: most tokens guessed at once.
    """

    def __init__(self, sequences: Sequences, n_batch: int, n_draft: int) -> None:
        self._sequences = sequences
        self._n_batch, self._n_draft = n_batch, n_draft
        self._questions: dict[int, _Question] = {}

    def register(self, requests: Sequence[Request]) -> None:
        """Note waiting requests that are candidates: their sequence is kept until the last of them has ended."""
        for request in requests:
            if request.candidates_of is not None:
                question = self._questions.setdefault(request.candidates_of, _Question())
                if request not in question.members:
                    question.members.append(request)

    def have_begun(self, request: Request) -> bool:
        """Return whether a request is a candidate of a question that has a sequence already."""
        return request.candidates_of is not None and self._questions[request.candidates_of].stem >= 0

    def place(self, request: Request) -> tuple[int, int] | None:
        """Return a sequence for a request and how many positions of it that holds; None if it has to wait."""
        question = None if request.candidates_of is None else self._questions[request.candidates_of]
        if question is None or question.stem < 0:
            if not self._sequences.has_free:
                return None
            sequence, known = self._sequences.acquire(request.spans, request.logits_from)
            self._has_room(sequence, request.logits_from + 1 - known + self._n_draft)  # of branches of earlier answers
            if question:
                question.stem, question.holder = sequence, request
            return sequence, known
        return self._place_beside(request, question)

    def _place_beside(self, request: Request, question: _Question) -> tuple[int, int] | None:
        stem = question.stem
        known = min(self._sequences.ledgers[stem].common_prefix(request.spans), request.logits_from)
        others = [other for other in question.members if other.is_admitted]
        wanted = request.logits_from + 1 - known + _LEAST_BEGUN * (len(others) + 1)
        has_room = self._has_room(stem, wanted + self._needed(others))
        if has_room and known >= request.length - 1:  # the prompt is read
            place = self._sequences.branch(stem, request.spans, request.logits_from)
            if place:
                return place
        if others and not has_room:
            request.report.has_waited = True
            return None
        if question.holder is not None:
            return None
        question.holder = request
        return stem, self._sequences.cut(stem, known)

    def _has_room(self, stem: int, wanted: int) -> bool:
        """Return whether so many positions more have room; branches that nobody needs give way to them."""
        while self._sequences.room(stem) < wanted:
            if not self._sequences.drop_idle_branch(stem):
                return False
        return True

    def make_room(self, running: Sequence[Request]) -> list[Request]:
        """Drop what no request needs, so that the next step has room; return the candidates that have to wait for it.

        Args:
            running: all running requests.
        """
        if not self._sequences.has_branches():
            return []
        paused: list[Request] = []
        for stem in {self._sequences.stem_of(request.sequence) for request in running}:
            here = [each for each in running if self._sequences.stem_of(each.sequence) == stem]
            paused += self._make_room(stem, here)
        return paused

    def _make_room(self, stem: int, running: list[Request]) -> list[Request]:
        paused: list[Request] = []
        while running and self._sequences.room(stem) < self._needed(running):
            if self._sequences.drop_idle_branch(stem):
                continue
            longest = self._sequences.shared_with_branches(stem)
            is_held = any(request.sequence == stem for request in running)
            if not is_held and self._sequences.ledgers[stem].length > longest:
                self._sequences.cut(stem, longest)
                continue
            branched = [request for request in running if request.sequence != stem]
            if not branched or len(running) == 1:
                break  # one alone always has room; it only guesses fewer tokens
            shortest = min(reversed(branched), key=lambda request: total_length(request.spans) - request.length)
            running.remove(shortest)
            shortest.report.has_waited = True
            paused.append(shortest)
            self.pause(shortest)
        return paused

    def _needed(self, running: Sequence[Request]) -> int:
        return sum(min(request.pending, self._n_batch) for request in running) + self._n_draft

    def pause(self, request: Request) -> None:
        """Take a running candidate from its branch, which is emptied; it goes on later from what it has written."""
        branch, request.sequence = request.sequence, -1
        request.unread, request.tile_run = [], None
        self._sequences.release(branch)
        self._sequences.cut(branch, 0)

    def branched(self, running: Sequence[Request]) -> list[Request]:
        """Return those of the running requests that are on branches."""
        return [request for request in running if self._sequences.stem_of(request.sequence) != request.sequence]

    def release(self, request: Request) -> None:
        """Free the sequence of a request that has ended; calling it twice is harmless."""
        question = None if request.candidates_of is None else self._questions.get(request.candidates_of)
        if question is None:
            if request.is_admitted:
                self._sequences.release(request.sequence)
            return
        if question.holder is request:
            question.holder = None
        elif request.is_admitted and request.sequence != question.stem:
            self._sequences.release(request.sequence)
        if request in question.members:
            question.members.remove(request)
        if not question.members:
            if question.stem >= 0:
                self._sequences.release(question.stem)
            del self._questions[request.candidates_of or 0]
