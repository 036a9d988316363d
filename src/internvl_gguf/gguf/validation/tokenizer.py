"""Validate the vocabulary of a text model: byte-level BPE with Qwen2's pre-split, or SentencePiece, and InternVL's
special tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gguf import GGUFValueType, TokenType

from internvl_gguf.gguf.arch.base import Key
from internvl_gguf.gguf.arch.text_architecture import SENTENCEPIECE, TextArchitecture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from internvl_gguf.gguf.header import GGUFHeader

NOT_INTERNVL_HINT: Final = "Use the text GGUF of an InternVL model; its mmproj comes with it."

_SPECIAL_TOKENS: Final = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")

GROUNDING_TOKENS: Final = ("<ref>", "</ref>", "<box>", "</box>")
THINKING_TOKENS: Final = ("<think>", "</think>")

_BYTE: Final = re.compile(rb"<0x[0-9A-F]{2}>")

_DEFAULT_BOS: Final = 1  # of llama.cpp, for a SentencePiece vocabulary

_PAIR: Final = re.compile(rb"^[^\n][^ \n]* [^\n]", re.MULTILINE)

_TOKEN_ID_KEYS: Final = tuple(
    f"tokenizer.ggml.{name}_token_id"
    for name in (
        *("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "fim_pre", "fim_suf", "fim_mid"),
        *("fim_pad", "fim_rep", "fim_sep", "prefix", "suffix", "middle"),
    )
)

# Every key that llama.cpp's vocabulary loader reads, in the type that it insists on.
TOKENIZER_KEYS: Final = {
    "tokenizer.ggml.model": Key("STRING"),
    "tokenizer.ggml.pre": Key("STRING"),
    "tokenizer.ggml.tokens": Key("[STRING]"),
    "tokenizer.ggml.token_type": Key("[INT32]"),
    "tokenizer.ggml.merges": Key("[STRING]"),
    "tokenizer.ggml.suppress_tokens": Key("[INT32]"),
    "tokenizer.ggml.token_type_count": Key("UINT32"),
    "tokenizer.ggml.add_bos_token": Key("BOOL"),
    "tokenizer.ggml.add_eos_token": Key("BOOL"),
    "tokenizer.ggml.add_sep_token": Key("BOOL"),
    "tokenizer.ggml.add_space_prefix": Key("BOOL"),
    "tokenizer.ggml.remove_extra_whitespaces": Key("BOOL"),
    "tokenizer.ggml.normalizer.lowercase": Key("BOOL"),
    "tokenizer.ggml.normalizer.strip_accents": Key("BOOL"),
    "tokenizer.chat_template": Key("STRING"),
    **dict.fromkeys(_TOKEN_ID_KEYS, Key("UINT32")),
}


def check_tokenizer(header: GGUFHeader, architecture: TextArchitecture) -> list[bytes]:
    """Return the tokens of a vocabulary, after checking that its arrays match and that it can encode every prompt.

    Raises:
        ModelFileError: it is another kind of tokenizer, or damaged.
    """
    _check_kind(header, architecture)
    tokens = header.array("tokenizer.ggml.tokens", GGUFValueType.STRING).raw_strings()
    types = header.array("tokenizer.ggml.token_type", GGUFValueType.INT32)
    if types.count != len(tokens):
        raise header.error(f"it has {len(tokens)} tokens but the types of {types.count}")
    if not set(types.numbers()) <= {int(kind) for kind in TokenType}:
        raise header.error("a token is of an unknown type")
    _check_scores(header, len(tokens))
    _check_strings(header, tokens, "token")
    if len(set(tokens)) != len(tokens):  # llama.cpp asserts this
        raise header.error("a token appears twice in its vocabulary")
    if architecture.tokenizer == SENTENCEPIECE:
        _check_pieces(header, tokens, types.numbers())
    else:
        _check_byte_pairs(header, tokens)
    for key in _TOKEN_ID_KEYS:
        header.bounded_integer(key, 0, len(tokens) - 1, default=0)
    return tokens


def _check_kind(header: GGUFHeader, architecture: TextArchitecture) -> None:
    model, title = header.text("tokenizer.ggml.model"), architecture.title
    if not architecture.pre_tokenizers:
        if model != architecture.tokenizer:
            raise header.error(f'its tokenizer is "{model}", not that of {title}', NOT_INTERNVL_HINT)
        return
    pre = header.text("tokenizer.ggml.pre")
    if model != architecture.tokenizer or pre not in architecture.pre_tokenizers:
        raise header.error(f'its tokenizer is "{model}" with the pre-split "{pre}", not that of {title}')


def _check_byte_pairs(header: GGUFHeader, tokens: list[bytes]) -> None:
    missing = sorted(set(_byte_letters()) - set(tokens))
    if missing:  # llama.cpp would silently drop such bytes of a prompt
        raise header.error(f"its vocabulary has no token {missing[0].decode()}, which stands for a byte")
    merges = header.array("tokenizer.ggml.merges", GGUFValueType.STRING).raw_strings()
    joined = _check_strings(header, merges, "merge")
    if sum(1 for _ in _PAIR.finditer(joined)) != len(merges):
        raise header.error("a merge of its tokenizer is not a pair")


def _check_pieces(header: GGUFHeader, tokens: list[bytes], types: Sequence[int]) -> None:
    """Check a SentencePiece vocabulary: llama.cpp merges by scores, and ends the process at a byte without a token."""
    scores = header.array("tokenizer.ggml.scores", GGUFValueType.FLOAT32).numbers()
    if not all(map(math.isfinite, scores)):
        raise header.error("a score of its tokenizer is not a number")
    of_bytes = {token for token, kind in zip(tokens, types, strict=True) if kind == TokenType.BYTE}
    if wrong := next((token for token in sorted(of_bytes) if not _BYTE.fullmatch(token)), None):
        raise header.error(f"its token {wrong.decode()} is to stand for a byte, and names none")
    missing = {b"<0x%02X>" % byte for byte in range(256)} - of_bytes
    if missing:
        raise header.error(f"its vocabulary has no token {min(missing).decode()}, which stands for a byte")


def first_token_id(header: GGUFHeader, architecture: TextArchitecture) -> int | None:
    """Return the id of the token that llama.cpp puts in front of a prompt; None where it puts none."""
    if architecture.tokenizer != SENTENCEPIECE or not header.boolean("tokenizer.ggml.add_bos_token", True):
        return None
    return header.integer("tokenizer.ggml.bos_token_id", _DEFAULT_BOS)


def begins_with_space(header: GGUFHeader, architecture: TextArchitecture) -> bool:
    """Return whether the vocabulary spells the beginning of every text with a space."""
    return architecture.tokenizer == SENTENCEPIECE and header.boolean("tokenizer.ggml.add_space_prefix", True)


def _check_scores(header: GGUFHeader, n_vocab: int) -> None:
    found = header.key_values.get("tokenizer.ggml.scores")
    if found is None:
        return
    item_type = GGUFValueType.INT32 if found.type_name.endswith("INT32") else GGUFValueType.FLOAT32
    if header.array("tokenizer.ggml.scores", item_type).count != n_vocab:
        raise header.error("its tokenizer has another number of scores than of tokens")


def _check_strings(header: GGUFHeader, strings: list[bytes], what: str) -> bytes:
    """Check that strings are UTF-8, not empty, and free of NULs, which end a string in llama.cpp; return one a line."""
    joined = b"\n".join(strings)
    try:
        joined.decode("utf-8")
    except UnicodeDecodeError as error:
        raise header.error(f"a {what} of its tokenizer is not UTF-8 ({error.reason})") from None
    if b"\0" in joined or not all(strings):
        raise header.error(f"a {what} of its tokenizer is empty or holds a NUL byte")
    return joined


def _byte_letters() -> list[bytes]:
    """Return GPT-2's 256 letters that stand for bytes: printable Latin-1 for itself, the rest from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(substitutes)).encode() for byte in range(256)]


def special_token_ids(header: GGUFHeader, tokens: list[bytes], architecture: TextArchitecture) -> tuple[int, ...]:
    """Return the ids of `<|im_start|>`, `<|im_end|>`, `<img>`, `</img>` and `<IMG_CONTEXT>`, in this order.

    They are looked up by their text: 151667 is `<IMG_CONTEXT>` in InternVL3 and `<think>` in InternVL3.5.

    Raises:
        ModelFileError: the vocabulary lacks one: a plain Qwen, or another model.
    """
    missing = [name for name in _SPECIAL_TOKENS if name.encode() not in tokens]
    if missing:
        lacking = f"its vocabulary has no {', '.join(missing)}"
        raise header.error(
            f"it is a plain {architecture.title} and no InternVL text model: {lacking}", NOT_INTERNVL_HINT
        )
    return tuple(tokens.index(name.encode()) for name in _SPECIAL_TOKENS)


def whole_tokens(header: GGUFHeader, tokens: list[bytes], names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return tags with their ids; none unless all of them are tokens of their own.

    Args:
        header: the header of the file.
        tokens: its vocabulary.
        names: the tags.
    """
    types = header.array("tokenizer.ggml.token_type", GGUFValueType.INT32).numbers()
    places = {token: place for place, token in enumerate(tokens) if token.startswith(b"<")}
    found = [(name, places[name.encode()]) for name in names if name.encode() in places]
    whole = (int(TokenType.CONTROL), int(TokenType.USER_DEFINED))
    return tuple(found) if len(found) == len(names) and all(types[place] in whole for _, place in found) else ()
