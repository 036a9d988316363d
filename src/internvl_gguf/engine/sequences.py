"""The sequences of the KV cache: what each one holds, whether a request uses it, and which one suits a prompt best."""

from __future__ import annotations

from collections.abc import Sequence
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
    needs the sequence.

    Attributes:
        ledgers: contents of each sequence.
        is_taken: for each sequence, whether a request runs on it.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.ledgers = [SequenceLedger() for _ in range(context.n_sequences)]
        self.is_taken = [False] * context.n_sequences
        self._used = [0] * context.n_sequences
        self._clock = 0

    @property
    def has_free(self) -> bool:
        """Whether a sequence is free, so that another request can run."""
        return not all(self.is_taken)

    def known_prefix(self, prompt: Sequence[Span]) -> int:
        """Return the length of the longest prefix of a prompt that a sequence holds, in positions."""
        return max(ledger.common_prefix(prompt) for ledger in self.ledgers)

    def acquire(self, prompt: Sequence[Span], most: int) -> tuple[int, int]:
        """Take a free sequence for a prompt, holding the longest prefix of the prompt that any sequence holds.

        If cutting the sequence with the longest prefix would throw away what another request needs (it runs there) or
        may need (a fork), the shared prefix is copied to the least recently used free sequence; copying computes
        nothing.

        Args:
            prompt: the whole prompt.
            most: most positions of it to reuse; those after them have to be decoded for their logits.

        Returns:
            The sequence, now taken, and how many positions of the prompt it holds.
        """
        self._clock += 1
        shared = [min(ledger.common_prefix(prompt), most) for ledger in self.ledgers]
        best = max(range(len(shared)), key=lambda each: (shared[each], not self.is_taken[each], -self._used[each]))
        keep = shared[best]
        if self.is_taken[best] or keep < self.ledgers[best].length:
            free = [each for each in range(len(shared)) if each != best and not self.is_taken[each]]
            spare = min(free, key=lambda each: self._used[each], default=None)
            if spare is not None and (self.is_taken[best] or self._used[spare] <= self._used[best]):
                self._copy(best, spare, keep)
                best = spare
        self.is_taken[best] = True
        self._used[best] = self._clock
        return best, self.cut(best, keep)

    def release(self, sequence: int) -> None:
        """Mark a sequence free after its request has ended; its contents stay for later prompts."""
        self.is_taken[sequence] = False

    def cut(self, sequence: int, length: int) -> int:
        """Cut a sequence to at most its first `length` positions, whole tiles only; return how many it keeps."""
        kept = self.ledgers[sequence].truncate(length)
        self._context.cut(sequence, kept)
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
        free = [each for each in range(len(self.ledgers)) if each != sequence and not self.is_taken[each]]
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
        free = [each for each in range(len(self.ledgers)) if not self.is_taken[each]]
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
        """Raise RuntimeError unless every ledger agrees with llama.cpp's view of its sequence."""
        for sequence, ledger in enumerate(self.ledgers):
            ledger.check_integrity(self._context.last_position(sequence))

    def _copy(self, source: int, target: int, length: int) -> None:
        self.ledgers[target].copy_prefix(self.ledgers[source], length)
        self._context.copy_prefix(source, target, self.ledgers[target].length)
