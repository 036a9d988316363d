"""A small SentencePiece vocabulary with InternVL's special tokens, as the models with a text part of InternLM have it.

Source of the format: `tokenization_internlm2.py` of InternVL2.5-8B. Text is cut at the added tokens, and SentencePiece
encodes each part between them by itself. `<s>` begins the prompt.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import gguf
import sentencepiece

from training.export_gguf import TokenizerSpec

from .vocabulary import CHAT_TEMPLATE, CONTROL_TOKENS, IM_END, training_text

if TYPE_CHECKING:
    from collections.abc import Iterator

BOS = "<s>"
_BYTES = 256
_FIRST = 3 + _BYTES  # <unk>, <s>, </s> and the bytes


@dataclass(frozen=True)
class Encoded:
    """What `PieceTokenizer.encode` returns."""

    ids: list[int]


class PieceTokenizer:
    """A trained vocabulary, with those methods of `tokenizers.Tokenizer` that the reference uses.

    Args:
        vocab: the most tokens it may have.
        space_prefix: whether it spells the beginning of every text with a space (`add_dummy_prefix`).
    """

    def __init__(self, vocab: int, *, space_prefix: bool) -> None:
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter("".join(training_text()).split("\n")),
            model_writer=written,
            model_type="bpe",
            vocab_size=vocab - len(CONTROL_TOKENS) - 8,
            hard_vocab_limit=False,
            character_coverage=1.0,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            add_dummy_prefix=space_prefix,
            num_threads=1,
            minloglevel=2,
        )
        self.space_prefix = space_prefix
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
        self._added = {token: self.pieces.get_piece_size() + at for at, token in enumerate(CONTROL_TOKENS)}
        self._names = {index: token for token, index in self._added.items()}
        self._cut = re.compile(f"({'|'.join(map(re.escape, self._added))})")

    def encode(self, text: str, *, add_special_tokens: bool) -> Encoded:
        """The ids of a text, its added tokens read as such."""
        ids = [self.pieces.bos_id()] if add_special_tokens else []
        for part in self._cut.split(text):
            ids += [self._added[part]] if part in self._added else self.pieces.encode(part)
        return Encoded(ids)

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """The text of ids."""
        return "".join(self._decoded(ids, skip_special_tokens))

    def _decoded(self, ids: list[int], skip_special_tokens: bool) -> Iterator[str]:
        for is_added, run in groupby(ids, self._names.__contains__):
            if not is_added:
                yield self.pieces.decode(list(run))
            elif not skip_special_tokens:
                yield from (self._names[index] for index in run)

    def token_to_id(self, token: str) -> int:
        """The id of an added token."""
        return self._added[token]

    def get_vocab(self, *, with_added_tokens: bool) -> dict[str, int]:
        """Texts and ids of the tokens that spell text."""
        ordinary = range(_FIRST, self.pieces.get_piece_size())
        found = {self.pieces.id_to_piece(index): index for index in ordinary}
        return found | (self._added if with_added_tokens else {})

    def spec(self, vocab: int) -> TokenizerSpec:
        """The vocabulary for a GGUF, as llama.cpp's converter writes it, filled up with unused rows."""
        kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
        kinds += [gguf.TokenType.BYTE] * _BYTES
        size = self.pieces.get_piece_size()
        kinds += [gguf.TokenType.NORMAL] * (size - _FIRST) + [gguf.TokenType.CONTROL] * len(self._added)
        kinds += [gguf.TokenType.UNUSED] * (vocab - len(kinds))
        spare = range(size + len(self._added), vocab)
        return TokenizerSpec(
            tokens=(
                *(self.pieces.id_to_piece(index) for index in range(size)),
                *self._added,
                *(f"[PAD{index}]" for index in spare),
            ),
            types=tuple(map(int, kinds)),
            merges=(),
            eos=self._added[IM_END],
            pad=self.pieces.eos_id(),
            bos=self.pieces.bos_id(),
            chat_template=CHAT_TEMPLATE,
            scores=(
                *(self.pieces.get_score(index) for index in range(size)),
                *(-1000.0 for _ in range(vocab - size)),
            ),
            space_prefix=self.space_prefix,
        )
