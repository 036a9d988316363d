"""The sequences of the KV cache: what each one holds, whether a request uses it, and which one suits a prompt best.

Every question has a sequence with room for a whole context. Candidates (several answers to one question) take branches
beside it: sequences without room of their own, which share the positions of the prompt with the question's and count
against its context with the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from internvl_gguf.engine.kv_ledger import SequenceLedger, total_length
from internvl_gguf.errors import LibraryError, SessionStateError
from internvl_gguf.llama.sequence_state import read_state, write_state
from internvl_gguf.types import Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.llama.context import Context


class Sequences:
    """The sequences of a context and their ledgers.

    A request has no fixed sequence: it may run on any free one, and what it leaves there stays until another request
    needs the sequence, or its room.

    Attributes:
        ledgers: contents of each sequence.
        is_taken: for each sequence, whether a request runs on it, or keeps it for others of its question.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._wholes = range(context.n_parallel)
        self._branches = range(context.n_parallel, context.n_sequences)
        self.ledgers = [SequenceLedger() for _ in range(context.n_sequences)]
        self.is_taken = [False] * context.n_sequences
        self._used = [0] * context.n_sequences
        # Of a branch: the sequence with which it shares its first positions, and how many these are.
        self._stem = [-1] * context.n_sequences
        self._shared = [0] * context.n_sequences
        self._clock = 0

    @property
    def has_free(self) -> bool:
        """Whether a sequence with room of its own is free, so that another request can run."""
        return not all(self.is_taken[each] for each in self._wholes)

    def known_prefix(self, prompt: Sequence[Span]) -> int:
        """Return the length of the longest prefix of a prompt that a sequence holds, in positions."""
        return max(ledger.common_prefix(prompt) for ledger in self.ledgers)

    def acquire(self, prompt: Sequence[Span], most: int) -> tuple[int, int]:
        """Take a free sequence for a prompt, holding the longest prefix of the prompt that any sequence holds.

        If cutting the sequence with the longest prefix would throw away what another request needs (it runs there) or
        may need (a fork), the shared prefix is copied to the least recently used free sequence; copying computes
        nothing. From a branch it is always copied.

        Args:
            prompt: the whole prompt.
            most: most positions of it to reuse; those after them have to be decoded for their logits.

        Returns:
            The sequence, now taken, and how many positions of the prompt it holds.
        """
        shared = [min(ledger.common_prefix(prompt), most) for ledger in self.ledgers]
        best = max(
            range(len(shared)),
            key=lambda each: (shared[each], each in self._wholes, not self.is_taken[each], -self._used[each]),
        )
        keep = shared[best]
        if best in self._branches or self.is_taken[best] or keep < self.ledgers[best].length:
            free = [each for each in self._wholes if each != best and not self.is_taken[each]]
            spare = min(free, key=lambda each: self._used[each], default=None)
            if spare is not None and (
                best in self._branches or self.is_taken[best] or self._used[spare] <= self._used[best]
            ):
                self._copy(best, spare, keep)
                best = spare
        self._take(best)
        return best, self.cut(best, keep)

    def branch(self, stem: int, prompt: Sequence[Span], most: int) -> tuple[int, int] | None:
        """Take a free branch for a prompt, sharing what the sequence `stem` holds of it.

        Args:
            stem: a sequence that is taken.
            prompt, most: as in `acquire`.

        Returns:
            The branch, now taken, and how many positions of the prompt it holds; None if no branch is free.
        """
        free = [each for each in self._branches if not self.is_taken[each]]
        if not free:
            return None
        branch = min(free, key=lambda each: (self.ledgers[each].length > 0, self._used[each]))
        known = min(self.ledgers[stem].common_prefix(prompt), most)
        self._copy(stem, branch, known)
        self._stem[branch], self._shared[branch] = stem, self.ledgers[branch].length
        self._take(branch)
        return branch, self.ledgers[branch].length

    def release(self, sequence: int) -> None:
        """Mark a sequence free after its request has ended; its contents stay for later prompts."""
        self.is_taken[sequence] = False

    def room(self, stem: int) -> int:
        """Return how many more positions a sequence and all its branches together have room for."""
        own = sum(self.ledgers[each].length - self._shared[each] for each in self._branches_of(stem))
        return self._context.n_ctx - self.ledgers[stem].length - own

    def shared_with_branches(self, stem: int) -> int:
        """Return how many positions of a sequence its branches share at most."""
        return max((self._shared[each] for each in self._branches_of(stem)), default=0)

    def drop_idle_branch(self, stem: int) -> bool:
        """Empty the least recently used branch of a sequence on which no request runs; return whether there was one."""
        idle = [each for each in self._branches_of(stem) if not self.is_taken[each]]
        if not idle:
            return False
        self.cut(min(idle, key=lambda each: self._used[each]), 0)
        return True

    def has_branches(self) -> bool:
        """Return whether any branch holds anything."""
        return any(self.ledgers[each].length for each in self._branches)

    def stem_of(self, sequence: int) -> int:
        """Return the sequence that a branch branched off; any other sequence itself."""
        return self._stem[sequence] if sequence in self._branches else sequence

    def cut(self, sequence: int, length: int) -> int:
        """Cut a sequence to at most its first `length` positions, whole tiles only; return how many it keeps."""
        kept = self.ledgers[sequence].truncate(length)
        self._context.cut(sequence, kept)
        self._drop_branches(sequence, kept)
        return kept

    def export(self, prompt: Sequence[Span]) -> tuple[list[Span], NDArray[np.uint8]] | None:
        """Return spans and KV of the sequence that holds most of a prompt; None if no sequence holds any of it.

        Raises:
            LibraryError: llama.cpp refused.
        """
        best = max(range(len(self.ledgers)), key=lambda each: self.ledgers[each].common_prefix(prompt))
        known = self.ledgers[best].common_prefix(prompt)
        if known < self.ledgers[best].length:  # the rest belongs to another conversation and must not be saved with it
            best = self._prefix_only(best, known)
        return (self.ledgers[best].spans, read_state(self._context, best)) if best >= 0 and known else None

    def _prefix_only(self, sequence: int, length: int) -> int:
        """Return a sequence that holds only a prefix of another: a free one, else that one cut; -1 for none."""
        free = [each for each in self._wholes if each != sequence and not self.is_taken[each]]
        spare = min(free, key=lambda each: self._used[each], default=-1)
        if spare >= 0:
            self._copy(sequence, spare, length)
            return spare
        if self.is_taken[sequence]:
            return -1
        self.cut(sequence, length)
        return sequence

    def restore(self, spans: Sequence[Span], kv: NDArray[np.uint8]) -> None:
        """Put exported KV into the least recently used free sequence.

        Raises:
            LibraryError: llama.cpp refused, or the KV is not as long as the spans; the sequence is empty then.
            SessionStateError: requests run on all sequences.
        """
        free = [each for each in self._wholes if not self.is_taken[each]]
        if not free:
            raise SessionStateError("All conversations of this model are busy.", "Wait for an answer, then restore.")
        sequence = min(free, key=lambda each: self._used[each])
        self.cut(sequence, 0)
        write_state(self._context, sequence, kv)
        if self._context.last_position(sequence) != total_length(spans) - 1:
            self._context.cut(sequence, 0)
            raise LibraryError(
                "The saved KV cache is not of the length that was saved with it.", "Restore it with recompute=True."
            )
        for span in spans:
            self.ledgers[sequence].append(span)
        self._clock += 1
        self._used[sequence] = self._clock

    def cut_to_ledgers(self) -> None:
        """Cut every sequence back to its ledger: after an interruption llama.cpp may hold more."""
        for sequence, ledger in enumerate(self.ledgers):
            if self._context.last_position(sequence) >= ledger.length:
                self._context.cut(sequence, ledger.length)

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every ledger agrees with llama.cpp's view, and all contents have room."""
        for sequence, ledger in enumerate(self.ledgers):
            ledger.check_integrity(self._context.last_position(sequence))
        for stem in self._wholes:
            if self.room(stem) < 0:
                raise RuntimeError(f"sequence {stem} and its branches take {-self.room(stem)} positions too many")

    def _take(self, sequence: int) -> None:
        self._clock += 1
        self.is_taken[sequence] = True
        self._used[sequence] = self._clock

    def _copy(self, source: int, target: int, length: int) -> None:
        same = min(length, self._shared[source]) if self._stem[source] == target else 0
        self.ledgers[target].copy_prefix(self.ledgers[source], length)
        self._context.copy_prefix(source, target, self.ledgers[target].length)
        self._drop_branches(target, same)
        while target in self._wholes and self.room(target) < 0 and self.drop_idle_branch(target):
            pass

    def _branches_of(self, stem: int) -> Iterator[int]:
        return (each for each in self._branches if self._stem[each] == stem)

    def _drop_branches(self, sequence: int, same: int) -> None:
        """Note that only the first `same` positions of a sequence are what they were: its branches share no more.

        The rest of a branch takes room of its own from here on; one on which no request runs is emptied instead.
        """
        if sequence in self._branches:
            self._shared[sequence] = min(self._shared[sequence], self.ledgers[sequence].length)
            if not self.ledgers[sequence].length:
                self._stem[sequence] = -1
            return
        for branch in list(self._branches_of(sequence)):
            if self._shared[branch] <= same and same:
                continue
            if self.is_taken[branch]:
                self._shared[branch] = min(self._shared[branch], same)
            else:
                self.cut(branch, 0)
