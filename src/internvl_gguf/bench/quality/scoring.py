"""Score given tokens one by one: the distributions of a configuration beside those of the reference."""

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
"""`EngineConfig.n_draft` for a session that scores: 64 rows of logits come from one computation. That number is a
multiple of four since llama.cpp's kernels for quantised weights process four rows at once, and compute remaining rows
with another kernel whose last bits differ."""


@dataclass(frozen=True)
class Passage:
    """Tokens to score, and the prompt before them.

    Attributes:
        prompt: ends in text.
        tokens: the tokens, at least one.
    """

    prompt: tuple[Span, ...]
    tokens: tuple[int, ...]

    @property
    def positions(self) -> int:
        """Positions of the prompt."""
        return total_length(self.prompt)

    @property
    def length(self) -> int:
        """Positions that scoring needs: the last token is looked up in the logits, not decoded."""
        return self.positions + len(self.tokens) - 1


@dataclass(frozen=True)
class ScoredModel:
    """The configuration being measured.

    Attributes:
        engine: the engine that runs it.
        model: names and fingerprints of its files; "text" is the text model's name.
        vocabulary: its `vocabulary_digest`.
    """

    engine: Engine
    model: dict[str, str]
    vocabulary: str

    def head(self, set_name: str, *content: object) -> ReferenceHead:
        """Return the head of a file of its distributions over a set.

        Args:
            set_name: description of the set.
            content: texts and numbers that identify the set.
        """
        digest = hashlib.blake2b(repr(content).encode(errors="surrogatepass"), digest_size=16).hexdigest()
        return ReferenceHead(self.model, self.engine.model.n_vocab, self.vocabulary, set_name, digest)


class References(Protocol):
    """Writes or reads the reference's distributions; see `ReferenceWriter` and `ReferenceReader`."""

    def begin(self, number: int, positions: int, tokens: Sequence[int]) -> None:
        """Begin an item: the next rows belong to it."""

    def exchange(self, log_probs: NDArray[np.float64]) -> ReferenceRow:
        """Take the distribution of this configuration; return the reference's."""


def text_passages(tokens: Sequence[int], n_ctx: int) -> list[Passage]:
    """Cut a text into chunks of `n_ctx` tokens, and score the second half of each.

    Each chunk starts with an empty context and no added token; tokens left over at the end are not used. The scored
    tokens are those of llama-perplexity: all of a chunk but the first n_ctx // 2 + 1.

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
        engine: of the configuration being measured.
        number: number of the passage's item, for `references`.
        passage: fits the context.
        references: writes or reads the reference's distributions.
        sums: accumulates the result of every token.

    Returns:
        The engine's report.

    Raises:
        BenchmarkError: the reference cannot be read or written, or is of other tokens.
        InternVLError: the engine failed.
    """
    references.begin(number, passage.positions, passage.tokens)

    def take(row: int, logits: NDArray[np.float32]) -> None:
        log_probs = log_softmax(logits)
        reference = references.exchange(log_probs)
        sums.add(reference.log_probs, reference.top, log_probs, passage.tokens[row])

    known = TokenSpan(passage.tokens[:-1])
    prompt = [*passage.prompt, known] if known.length else passage.prompt
    return engine.submit_scores(prompt, len(passage.tokens), take).result()
