"""A byte-level BPE tokenizer in Qwen2's form, learned on the demo model's own phrases.

llama.cpp computes the same tokens from `tokenizer.ggml.model = gpt2`, `tokenizer.ggml.pre = qwen2`. The merges are
few: each common word becomes one token, while capitals and digits stay single, so that reading is spelling.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>",
    "</ref>", "<box>", "</box>",
)  # fmt: skip
# Written by the model and read in prompts as one token each, also in text that users typed (Qwen2.5 has them so).
TOOL_TOKENS = ("<tool_call>", "</tool_call>")
_TOOL_MARKS = re.compile("(" + "|".join(map(re.escape, TOOL_TOKENS)) + ")")
_SPECIAL_MARKS = re.compile("(" + "|".join(map(re.escape, SPECIAL_TOKENS)) + ")")
_ALL_MARKS = re.compile("(" + "|".join(map(re.escape, (*SPECIAL_TOKENS, *TOOL_TOKENS))) + ")")
# Qwen2's pre-tokenizer, with Python's classes for letters and numbers.
_PIECES = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\w]?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each byte value."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, spare = [], 256
    for byte in range(256):
        if byte in printable:
            table.append(chr(byte))
        else:
            table.append(chr(spare))
            spare += 1
    return table


_BYTE_CHARACTERS = byte_characters()


def pieces(text: str) -> list[str]:
    """The text cut as Qwen2 cuts it before any merge, each piece as GPT-2 byte characters."""
    return ["".join(_BYTE_CHARACTERS[byte] for byte in piece.encode()) for piece in _PIECES.findall(text)]


def _joins_capitals(merged: str) -> bool:
    """Whether a merge would join capitals, or a space and a lone capital: spelling needs them apart."""
    lone = len(merged) > 1 and re.fullmatch(r"[^a-z]*[A-Z]", merged) is not None
    return lone or sum("A" <= c <= "Z" for c in merged) > 1


@dataclass(frozen=True)
class Tokenizer:
    """Merges in order of rank; ids are bytes, then early merges, special tokens, tool tokens, late merges, unused rows.

    Attributes:
        merges: pairs in order of rank.
        size: rows of the vocabulary.
        early: how many merges have ids before the special tokens. The later ones were learned for a model that was
            trained before, whose ids had to keep their meaning. None for a vocabulary without late merges and without
            tool tokens.
    """

    merges: tuple[tuple[str, str], ...]
    size: int
    early: int | None = None

    @cached_property
    def tokens(self) -> list[str]:
        """Every token's text in GPT-2 byte characters, special tokens as written."""
        merged = [left + right for left, right in self.merges]
        known = [*_BYTE_CHARACTERS, *merged[: self.early], *SPECIAL_TOKENS]
        if self.early is not None:
            known += [*TOOL_TOKENS, *dict.fromkeys(text for text in merged[self.early :] if text not in known)]
        return known + [f"<unused{index}>" for index in range(self.size - len(known))]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token text to id."""
        return {token: index for index, token in enumerate(self.tokens)}

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    @cached_property
    def _known_pieces(self) -> dict[str, list[int]]:
        return {}

    def special(self, token: str) -> int:
        """The id of a special token.

        Raises:
            KeyError: no such token.
        """
        return self.ids[token]

    def pieces_of(self, piece: str) -> list[str]:
        """The tokens' texts of one piece, in byte characters."""
        parts = list(piece)
        while len(parts) > 1:
            ranks = [self._ranks.get(pair, len(self.merges)) for pair in pairwise(parts)]
            best = min(ranks)
            if best == len(self.merges):
                break
            at = ranks.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return parts

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; of special tokens only those of tools are known in it."""
        return self._encode(text, _TOOL_MARKS) if self.early is not None else self._plain(text)

    def encode_marked(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens are written out, as `<ref>` and `<box>` are."""
        return self._encode(text, _SPECIAL_MARKS if self.early is None else _ALL_MARKS)

    def _encode(self, text: str, marks: re.Pattern[str]) -> list[int]:
        out: list[int] = []
        for index, part in enumerate(marks.split(text)):
            out += [self.ids[part]] if index % 2 else self._plain(part)
        return out

    def _plain(self, text: str) -> list[int]:
        known, out = self._known_pieces, []
        for piece in pieces(text):
            if piece not in known:
                known[piece] = [self.ids[part] for part in self.pieces_of(piece)]
            out += known[piece]
        return out

    def decode(self, ids: Iterable[int], marked: bool = False) -> str:
        """The text of ids, special tokens left out or, with `marked`, written out."""
        values = {character: byte for byte, character in enumerate(_BYTE_CHARACTERS)}
        texts = (self.tokens[i] for i in ids)
        text = "".join(t for t in texts if marked or t not in SPECIAL_TOKENS)
        return bytes(values[character] for character in text if character in values).decode("utf-8", "replace")


def learn(corpus: Counter[str], merges: int, size: int, known: Tokenizer | None = None) -> Tokenizer:
    """The tokenizer whose merges are the most frequent pairs, one after another, within the corpus's pieces.

    With `known`, its merges stay first and its ids stay what they are; up to `merges` are found in all.
    """
    found = list(known.merges) if known else []
    early = None if known is None else len(found) if known.early is None else known.early
    words = [
        (known.pieces_of(piece) if known else [*piece], count) for piece, count in sorted(_piece_counts(corpus).items())
    ]
    while len(found) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for parts, count in words:
            for pair in pairwise(parts):
                if not _joins_capitals(pair[0] + pair[1]):
                    pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        found.append(best)
        for parts, _ in words:
            at = 0
            while at < len(parts) - 1:
                if (parts[at], parts[at + 1]) == best:
                    parts[at : at + 2] = [best[0] + best[1]]
                at += 1
    return Tokenizer(tuple(found), size, early)


def _piece_counts(corpus: Counter[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text, count in corpus.items():
        for piece in pieces(text):
            counts[piece] += count
    return counts
