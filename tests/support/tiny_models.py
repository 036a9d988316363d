"""A text model and an mmproj of a few dozen kilobytes that llama.cpp loads and runs, written in milliseconds.

The weights are random and fixed by `seed`; nothing they answer means anything. Every key and tensor of a published
InternVL file of the same kind is there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, TokenType

from internvl_gguf.gguf.arch import TEXT_ARCHITECTURES
from internvl_gguf.gguf.arch.base import MmprojShape, TensorSpec, TextShape
from internvl_gguf.gguf.arch.internvit import INTERNVIT
from internvl_gguf.gguf.arch.text_architecture import SENTENCEPIECE
from internvl_gguf.gguf.validation import MmprojFacts, TextModelFacts, validate_mmproj, validate_text_model
from tests.support.damage import Blueprint, Key, Tensor, array, header_of, number, real, text, truth, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
GROUNDING_TOKENS = ("<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
THINKING_TOKENS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
WORDS = ("th", "the", "in", "ing", "▁the", "us", "user", "▁a", "<i", "<im", "<img", "er", "an", "on", "re")
MERGED = ("th", "the", "in", "ing", "er", "an", "on", "re")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def write_tiny_text(path: Path, **overrides: Any) -> Path:
    """Write a text model; see `tiny_text` for what can be overridden."""
    return write(path, tiny_text(**overrides))


def write_tiny_mmproj(path: Path, **overrides: Any) -> Path:
    """Write an mmproj; see `tiny_mmproj` for what can be overridden."""
    return write(path, tiny_mmproj(**overrides))


def text_facts_of(plan: Blueprint) -> TextModelFacts:
    """What the package makes of a text model's plan; ModelFileError if it refuses it."""
    return validate_text_model(header_of(plan))


def mmproj_facts_of(plan: Blueprint) -> MmprojFacts:
    """What the package makes of an mmproj's plan; ModelFileError if it refuses it."""
    return validate_mmproj(header_of(plan))


def tiny_text(
    *,
    n_layers: int = 2,
    width: int = 64,
    n_head: int = 4,
    n_head_kv: int = 2,
    n_ff: int = 96,
    n_ctx: int = 512,
    tied: bool = False,
    name: str = "Tiny InternVL",
    seed: int = 1,
    weights: bool = True,
    grounding: bool = False,
    spoken: tuple[str, ...] = (),
    padding: int = 0,
    thinking: bool = False,
    kind: str = "qwen2",
    head_dim: int = 0,
    space_prefix: bool = False,
    n_expert: int = 4,
    n_expert_used: int = 2,
) -> Blueprint:
    """The plan of a text model with InternVL's special tokens.

    Args:
        kind: its architecture; of qwen3moe alone are the experts, which share `n_ff` evenly.
        head_dim: width of a head; 0 for width / n_head, which qwen2 requires.
        space_prefix: of a SentencePiece vocabulary: whether it spells the beginning of a text with a space.
        spoken: more tokens of text, which no prompt has: nothing merges to them.
        padding: unused tokens behind all others, as converters add them where a table has more rows than tokens.
        grounding: whether those of boxes are among them.
        thinking: whether those of thoughts are.
        weights: False gives tensors without data, for headers of any size (see `damage.write_sparse`).
    """
    architecture = TEXT_ARCHITECTURES[kind]
    if architecture.tokenizer == SENTENCEPIECE:
        tokens, vocabulary = _pieces(grounding, space_prefix)
    else:
        tokens, vocabulary = _byte_pairs(grounding, spoken, thinking, padding)
    keys = [
        text("general.architecture", kind),
        text("general.type", "model"),
        text("general.name", name),
        number("general.file_type", 0),
        number("general.quantization_version", 2),
        number(f"{kind}.block_count", n_layers),
        number(f"{kind}.context_length", n_ctx),
        number(f"{kind}.embedding_length", width),
        number(f"{kind}.feed_forward_length", n_ff),
        number(f"{kind}.attention.head_count", n_head),
        number(f"{kind}.attention.head_count_kv", n_head_kv),
        real(f"{kind}.rope.freq_base", 1e6),
        real(f"{kind}.attention.layer_norm_rms_epsilon", 1e-6),
        *vocabulary,
        number("tokenizer.ggml.eos_token_id", tokens.index("<|im_end|>")),
        text("tokenizer.chat_template", "{% for m in messages %}{{ m['content'] }}{% endfor %}"),
    ]
    sizes = (n_expert, n_expert_used, n_ff // n_expert_used) if architecture.has_experts else (0, 0, 0)
    shape = TextShape(kind, n_layers, width, n_head, n_head_kv, n_ff, len(tokens), n_ctx, head_dim, *sizes)
    keys += _own_keys(shape, head_dim)
    names = {spec.name for spec in architecture.tensors(shape)} - ({"output.weight"} if tied else set())
    return Blueprint(keys, _tensors(architecture.tensors(shape, names), seed, weights))


def _own_keys(shape: TextShape, head_dim: int) -> Iterator[Key]:
    """The keys that the text models of InternVL3.5 have and those of InternVL3 lack."""
    if head_dim:
        for part in ("key", "value"):
            yield number(f"{shape.architecture}.attention.{part}_length", head_dim)
    if shape.n_expert:
        yield number(f"{shape.architecture}.expert_count", shape.n_expert)
        yield number(f"{shape.architecture}.expert_used_count", shape.n_expert_used)
        yield number(f"{shape.architecture}.expert_feed_forward_length", shape.n_ff_exp)


def tiny_mmproj(
    *,
    n_layers: int = 2,
    width: int = 32,
    n_head: int = 4,
    n_ff: int = 48,
    image_size: int = 32,
    patch_size: int = 8,
    projection: int = 64,
    scale_factor: int = 2,
    qkv_bias: bool = True,
    qk_norm: bool = False,
    rms_norm: bool = False,
    min_tiles: int | None = 1,
    max_tiles: int | None = 12,
    name: str = "Tiny InternVL",
    seed: int = 2,
    weights: bool = True,
) -> Blueprint:
    """The plan of an InternViT with its projector: image_size 32 and patch 8 give 4 visual tokens a tile.

    Args:
        min_tiles, max_tiles: what the file says of the tiles of a picture; None for a file that says nothing.
        weights: False gives tensors without data, for headers of any size (see `damage.write_sparse`).
    """
    keys = [
        text("general.architecture", "clip"),
        text("general.type", "mmproj"),
        text("general.name", name),
        number("general.file_type", 0),
        number("general.quantization_version", 2),
        truth("clip.has_vision_encoder", True),
        text("clip.projector_type", "internvl"),
        truth("clip.use_gelu", True),
        number("clip.vision.projection_dim", projection),
        number("clip.vision.image_size", image_size),
        number("clip.vision.patch_size", patch_size),
        number("clip.vision.embedding_length", width),
        number("clip.vision.feed_forward_length", n_ff),
        number("clip.vision.block_count", n_layers),
        number("clip.vision.attention.head_count", n_head),
        real("clip.vision.attention.layer_norm_epsilon", 1e-6),
        array("clip.vision.image_mean", GGUFValueType.FLOAT32, list(IMAGENET_MEAN)),
        array("clip.vision.image_std", GGUFValueType.FLOAT32, list(IMAGENET_STD)),
        number("clip.vision.projector.scale_factor", scale_factor),
    ]
    limits = (("min", min_tiles), ("max", max_tiles))
    keys += [number(f"clip.vision.preproc_{end}_tiles", value) for end, value in limits if value is not None]
    shape = MmprojShape(
        n_layers, width, n_head, n_ff, image_size, patch_size, (image_size // patch_size // scale_factor) ** 2,
        "rmsnorm" if rms_norm else "layernorm", projection_dim=projection, projector_hidden=projection,
    )  # fmt: skip
    return Blueprint(keys, _tensors(_encoder_tensors(shape, qkv_bias, qk_norm), seed, weights))


def _encoder_tensors(shape: MmprojShape, qkv_bias: bool, qk_norm: bool) -> Iterator[TensorSpec]:
    """The tensors of an encoder with or without biases of queries, keys and values, and norms of them."""
    biases = {f"attn_{part}.bias" for part in "qkv"}
    norms = {"attn_q_norm.weight", "attn_k_norm.weight"}
    names = {spec.name for spec in INTERNVIT.tensors(shape)}
    for layer in range(shape.n_layers):
        for part, is_there in ((biases, qkv_bias), (norms, qk_norm)):
            full = {f"{INTERNVIT.block}{layer}.{name}" for name in part}
            names = names | full if is_there else names - full
    for spec in INTERNVIT.tensors(shape, names):
        # Published files give these axes of one element.
        alone = {"v.class_embd": 2, "v.position_embd.weight": 1}.get(spec.name, 0)
        yield TensorSpec(spec.name, spec.shape + (1,) * alone, spec.storage)


def _tensors(specs: Iterable[TensorSpec], seed: int, weights: bool) -> list[Tensor]:
    random = np.random.default_rng(seed)
    tensors = []
    for name, shape in ((spec.name, spec.shape) for spec in specs):
        data = b""
        if weights:
            values = random.standard_normal(int(np.prod(shape)), dtype=np.float32) * 0.3
            if ("norm" in name or ".ln" in name or ".ls" in name) and name.endswith("weight"):
                values = values * 0.3 + 1.0
            data = values.astype(np.float32).tobytes()
        tensors.append(Tensor(name, shape, GGMLQuantizationType.F32, data))
    return tensors


def _byte_pairs(
    grounding: bool, spoken: tuple[str, ...], thinking: bool, padding: int
) -> tuple[tuple[str, ...], list[Key]]:
    """The tokens of a byte-level BPE vocabulary, and the keys of a file that has it."""
    tokens, types, merges = _vocabulary(grounding, spoken, thinking, padding)
    return tokens, [
        text("tokenizer.ggml.model", "gpt2"),
        text("tokenizer.ggml.pre", "qwen2"),
        array("tokenizer.ggml.tokens", GGUFValueType.STRING, list(tokens)),
        array("tokenizer.ggml.token_type", GGUFValueType.INT32, list(types)),
        array("tokenizer.ggml.merges", GGUFValueType.STRING, list(merges)),
        number("tokenizer.ggml.padding_token_id", tokens.index("<|endoftext|>")),
        truth("tokenizer.ggml.add_bos_token", False),
    ]


def _pieces(grounding: bool, space_prefix: bool) -> tuple[tuple[str, ...], list[Key]]:
    """The same of a SentencePiece vocabulary: bytes, letters, a few words, and InternVL's special tokens."""
    ordinary = [*(chr(code) for code in range(0x21, 0x7F)), "▁", "\n", *sorted(WORDS, key=len)]
    special = (*SPECIAL_TOKENS[1:], *(GROUNDING_TOKENS if grounding else ()))
    tokens = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *ordinary, *special)
    counts = {
        TokenType.UNKNOWN: 1, TokenType.CONTROL: 2, TokenType.BYTE: 256, TokenType.NORMAL: len(ordinary),
    }  # fmt: skip
    types = [int(kind) for kind, count in counts.items() for _ in range(count)]
    types += [int(TokenType.CONTROL)] * len(special)
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(ordinary))] + [-1000.0] * len(special)
    return tokens, [
        text("tokenizer.ggml.model", SENTENCEPIECE),
        text("tokenizer.ggml.pre", "default"),
        array("tokenizer.ggml.tokens", GGUFValueType.STRING, list(tokens)),
        array("tokenizer.ggml.scores", GGUFValueType.FLOAT32, scores),
        array("tokenizer.ggml.token_type", GGUFValueType.INT32, types),
        number("tokenizer.ggml.bos_token_id", 1),
        number("tokenizer.ggml.unknown_token_id", 0),
        truth("tokenizer.ggml.add_bos_token", True),
        truth("tokenizer.ggml.add_space_prefix", space_prefix),
    ]


@lru_cache(maxsize=4)
def _vocabulary(
    grounding: bool, spoken: tuple[str, ...], thinking: bool, padding: int
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """Tokens, their types and merges: the 256 bytes in GPT-2's alphabet, a few merges, the special tokens."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    tokens = [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(256 - len(printable))]
    merges = [f"{token[:-1]} {token[-1]}" for token in MERGED if len(token) == 2]
    merges += [f"{token[:2]} {token[2:]}" for token in MERGED if len(token) == 3]
    tokens += [*sorted(MERGED, key=len), *spoken]
    special = (*SPECIAL_TOKENS, *(GROUNDING_TOKENS if grounding else ()))
    added = THINKING_TOKENS if thinking else ()
    types = [int(TokenType.NORMAL)] * len(tokens) + [int(TokenType.CONTROL)] * len(special)
    types += [int(TokenType.USER_DEFINED)] * len(added) + [int(TokenType.UNUSED)] * padding
    unused = [f"[PAD{len(types) - padding + number}]" for number in range(padding)]
    return (*tokens, *special, *added, *unused), tuple(types), tuple(merges)
