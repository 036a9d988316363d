"""Tokens scored one by one: what a configuration thinks of them, beside what the reference thought."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from internvl_gguf.bench.quality.divergence import DivergenceSum, log_softmax
from internvl_gguf.bench.quality.packed_rows import ReferenceRow
from internvl_gguf.bench.quality.reference_logits import ReferenceHead
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.types import Span, TokenSpan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.engine import Engine, Report

N_DRAFT: Final = 63
"""`EngineConfig.n_draft` for a session that scores: 64 rows of logits come from one computation. It is a multiple of
four since llama.cpp's kernels for quantised weights take rows by fours and what is left over in another way, whose
last bits are others."""


@dataclass(frozen=True)
class Passage:
    """Tokens to score, and what stands before them.

    Attributes:
        prompt: ends in text.
        tokens: the tokens, at least one.
    """

    prompt: tuple[Span, ...]
    tokens: tuple[int, ...]

    @property
    def positions(self) -> int:
        """Of the prompt."""
        return total_length(self.prompt)

    @property
    def length(self) -> int:
        """Positions that scoring takes: the last token is only looked up."""
        return self.positions + len(self.tokens) - 1


@dataclass(frozen=True)
class Subject:
    """The configuration that is measured.

    Attributes:
        engine: runs it.
        model: names and fingerprints of its files; "text" is the text model's name.
        vocabulary: `vocabulary_digest` of it.
    """

    engine: Engine
    model: dict[str, str]
    vocabulary: str

    def head(self, set_name: str, *content: object) -> ReferenceHead:
        """What its distributions over a set belong to.

        Args:
            set_name: the set in words.
            content: all that makes it this set, texts and numbers.
        """
        digest = hashlib.blake2b(repr(content).encode(errors="surrogatepass"), digest_size=16).hexdigest()
        return ReferenceHead(self.model, self.engine.model.n_vocab, self.vocabulary, set_name, digest)


class References(Protocol):
    """Where the reference's distributions go to, or come from: `reference_logits` has one of each."""

    def begin(self, number: int, positions: int, tokens: Sequence[int]) -> None:
        """The next rows are those of this item."""

    def exchange(self, log_probs: NDArray[np.float64]) -> ReferenceRow:
        """Give ours, get the reference's."""


def text_passages(tokens: Sequence[int], n_ctx: int) -> list[Passage]:
    """A text in chunks of `n_ctx` tokens, of each of which the second half is scored.

    Chunks begin anew, nothing is put before them, and what is left at the end is not used. The tokens that are scored
    are those that llama-perplexity scores: of a chunk, all but the first n_ctx // 2 + 1.

    Args:
        tokens: of the whole text.
        n_ctx: 3 or more.
    """
    first = n_ctx // 2 + 1
    starts = range(0, len(tokens) - n_ctx + 1, n_ctx)
    chunks = [tuple(tokens[start : start + n_ctx]) for start in starts]
    return [Passage((TokenSpan(chunk[:first]),), chunk[first:]) for chunk in chunks]


def score(engine: Engine, number: int, passage: Passage, references: References, sums: DivergenceSum) -> Report:
    """Score the tokens of a passage.

    Args:
        engine: of the configuration that is measured.
        number: the item that the passage is, for `references`.
        passage: fits the context.
        references: where the reference's distributions go to or come from.
        sums: told of every token.

    Returns:
        What it took.

    Raises:
        BenchmarkError: the reference cannot be read or written, or is of other tokens.
        InternVLError: what else ended it.
    """
    references.begin(number, passage.positions, passage.tokens)

    def take(row: int, logits: NDArray[np.float32]) -> None:
        log_probs = log_softmax(logits)
        reference = references.exchange(log_probs)
        sums.add(reference.log_probs, reference.top, log_probs, passage.tokens[row])

    known = TokenSpan(passage.tokens[:-1])
    prompt = [*passage.prompt, known] if known.length else passage.prompt
    return engine.submit_scores(prompt, len(passage.tokens), take).result()
