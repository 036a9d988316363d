"""A small byte-level BPE vocabulary with Qwen2's pre-split and InternVL's special tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from training.export_gguf import TokenizerSpec, byte_level

from .cases import OFFICIAL_SYSTEM, REFERENCES

if TYPE_CHECKING:
    from collections.abc import Iterator

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
IMG, IMG_END, IMG_CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
CONTROL_TOKENS = (
    END_OF_TEXT,
    IM_START,
    IM_END,
    IMG,
    IMG_END,
    IMG_CONTEXT,
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
)
USER_DEFINED_TOKENS = ("<tool_call>", "</tool_call>")

# Qwen2's pre-split, as its tokenizer.json states it.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SAMPLE = """
The quick brown fox jumps over the lazy dog. A red circle, a green square and a blue triangle are shown in the picture.
There are seven stars on the left and three on the right; what is the colour of the one in the middle? It is yellow.
Read the word, count the shapes, describe the image in one sentence, and say which of them is larger than the other.
"""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_tokenizer(vocab: int) -> Tokenizer:
    """Train a tokenizer of at most `vocab` tokens on the prompts of all cases and a sample of plain English."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = [byte_level(bytes([byte])) for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(CONTROL_TOKENS) - len(USER_DEFINED_TOKENS) - 8,
        min_frequency=2,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in USER_DEFINED_TOKENS])
    return tokenizer


def tokenizer_spec(tokenizer: Tokenizer, vocab: int) -> TokenizerSpec:
    """The same vocabulary for a GGUF, filled up with unused rows to `vocab` tokens."""
    texts = {index: text for text, index in tokenizer.get_vocab().items()}
    tokens = [texts.get(index, f"[PAD{index}]") for index in range(vocab)]
    types = [gguf.TokenType.NORMAL if index in texts else gguf.TokenType.UNUSED for index in range(vocab)]
    for token in CONTROL_TOKENS:
        types[tokens.index(token)] = gguf.TokenType.CONTROL
    for token in USER_DEFINED_TOKENS:
        types[tokens.index(token)] = gguf.TokenType.USER_DEFINED
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return TokenizerSpec(
        tokens=tuple(tokens),
        types=tuple(int(kind) for kind in types),
        merges=tuple(" ".join(pair) for pair in merges),
        eos=tokenizer.token_to_id(IM_END),
        pad=tokenizer.token_to_id(END_OF_TEXT),
        bos=tokenizer.token_to_id(END_OF_TEXT),
        chat_template=CHAT_TEMPLATE,
    )


def training_text() -> Iterator[str]:
    """The texts that a vocabulary is trained on: those of all cases, and a sample of plain English."""
    yield _SAMPLE
    yield OFFICIAL_SYSTEM
    for case in dict.fromkeys(case for reference in REFERENCES for case in reference.cases):
        yield from (f"user\n{turn.prompt.replace('<image>', '')}assistant\n" for turn in case.turns)
