"""Write an InternVL model as the two files llama.cpp reads: a text GGUF (Qwen or InternLM) and an mmproj GGUF (clip).

Tensors come in under the names that transformers' `InternVLForConditionalGeneration.state_dict()` gives them, as
float32 arrays. Names, keys and storage types going out are those of llama.cpp's own converter (`convert_hf_to_gguf.py`
for InternVL3 and 3.5, at the revision that llama-cpp-python 0.3.36 carries), so that a file written here is read like a
published one; in particular `v.position_embd.weight` keeps the class token's row first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import gguf
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.float32]]

StorageType = Literal["f32", "f16", "bf16", "q8_0"]
TextKind = Literal["qwen2", "qwen3", "qwen3moe", "internlm2", "llama"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_TENSOR_TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}

_TEXT_NAMES = (
    (r"model\.language_model\.embed_tokens\.weight", "token_embd.weight"),
    (r"model\.language_model\.norm\.weight", "output_norm.weight"),
    (r"lm_head\.weight", "output.weight"),
    (r"model\.language_model\.layers\.(\d+)\.input_layernorm\.weight", r"blk.\1.attn_norm.weight"),
    (r"model\.language_model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", r"blk.\1.attn_\2.\3"),
    (r"model\.language_model\.layers\.(\d+)\.self_attn\.([qk])_norm\.weight", r"blk.\1.attn_\2_norm.weight"),
    (r"model\.language_model\.layers\.(\d+)\.self_attn\.o_proj\.weight", r"blk.\1.attn_output.weight"),
    (r"model\.language_model\.layers\.(\d+)\.post_attention_layernorm\.weight", r"blk.\1.ffn_norm.weight"),
    (r"model\.language_model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight", r"blk.\1.ffn_\2.weight"),
    (r"model\.language_model\.layers\.(\d+)\.mlp\.gate\.weight", r"blk.\1.ffn_gate_inp.weight"),
    (r"model\.language_model\.layers\.(\d+)\.mlp\.experts\.(gate|up|down)_proj", r"blk.\1.ffn_\2_exps.weight"),
)
_VISION_NAMES = (
    (r"model\.vision_tower\.embeddings\.cls_token", "v.class_embd"),
    (r"model\.vision_tower\.embeddings\.position_embeddings", "v.position_embd.weight"),
    (r"model\.vision_tower\.embeddings\.patch_embeddings\.projection\.(weight|bias)", r"v.patch_embd.\1"),
    (r"model\.vision_tower\.encoder\.layer\.(\d+)\.layernorm_before\.(weight|bias)", r"v.blk.\1.ln1.\2"),
    (r"model\.vision_tower\.encoder\.layer\.(\d+)\.layernorm_after\.(weight|bias)", r"v.blk.\1.ln2.\2"),
    (r"model\.vision_tower\.encoder\.layer\.(\d+)\.attention\.([qkv])_proj\.(weight|bias)", r"v.blk.\1.attn_\2.\3"),
    (r"model\.vision_tower\.encoder\.layer\.(\d+)\.attention\.([qk])_norm\.weight", r"v.blk.\1.attn_\2_norm.weight"),
    (
        r"model\.vision_tower\.encoder\.layer\.(\d+)\.attention\.projection_layer\.(weight|bias)",
        r"v.blk.\1.attn_out.\2",
    ),
    (r"model\.vision_tower\.encoder\.layer\.(\d+)\.lambda_([12])", r"v.blk.\1.ls\2.weight"),
    (r"model\.vision_tower\.encoder\.layer\.(\d+)\.mlp\.fc1\.(weight|bias)", r"v.blk.\1.ffn_up.\2"),
    (r"model\.vision_tower\.encoder\.layer\.(\d+)\.mlp\.fc2\.(weight|bias)", r"v.blk.\1.ffn_down.\2"),
    (r"model\.multi_modal_projector\.layer_norm\.(weight|bias)", r"mm.model.mlp.0.\1"),
    (r"model\.multi_modal_projector\.linear_1\.(weight|bias)", r"mm.model.mlp.1.\1"),
    (r"model\.multi_modal_projector\.linear_2\.(weight|bias)", r"mm.model.mlp.3.\1"),
)


@dataclass(frozen=True)
class TextShape:
    """A language model of the Qwen family.

    Attributes:
        vocab: rows of the embedding table, padding rows included.
        width: hidden size; a multiple of heads.
        heads: query heads; a multiple of kv_heads.
        kv_heads: key and value heads.
        ffn: inner width of the gated feed-forward layer.
        tied: whether the output projection is the embedding table (then no `output.weight` is written).
        kind: `general.architecture`. Qwen2 has biases of queries, keys and values, Qwen3 norms of queries and keys, and
            InternLM, whose third is a "llama", neither; the rows of its queries and keys come as llama.cpp's converter
            permutes them.
        head_dim: width of a head; 0 for width / heads, as Qwen2 has it.
        experts, experts_used, expert_ffn: of Qwen3-MoE: experts of a layer, those of one token, their inner width.
    """

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    context_length: int
    tied: bool
    rope_theta: float = 1_000_000.0
    norm_eps: float = 1e-6
    kind: TextKind = "qwen2"
    head_dim: int = 0
    experts: int = 0
    experts_used: int = 0
    expert_ffn: int = 0

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.head_dim or self.width // self.heads

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor the text GGUF holds, by GGUF name, in numpy order (rows first)."""
        q_width, kv_width = self.head_width * self.heads, self.head_width * self.kv_heads
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocab, self.width)}
        for layer in range(self.layers):
            block = f"blk.{layer}"
            shapes[f"{block}.attn_norm.weight"] = (self.width,)
            for name, rows in (("q", q_width), ("k", kv_width), ("v", kv_width)):
                shapes[f"{block}.attn_{name}.weight"] = (rows, self.width)
                if self.kind == "qwen2":
                    shapes[f"{block}.attn_{name}.bias"] = (rows,)
                elif name != "v" and self.kind in ("qwen3", "qwen3moe"):
                    shapes[f"{block}.attn_{name}_norm.weight"] = (self.head_width,)
            shapes[f"{block}.attn_output.weight"] = (self.width, q_width)
            shapes[f"{block}.ffn_norm.weight"] = (self.width,)
            shapes |= {f"{block}.{name}": shape for name, shape in self._feed_forward_shapes()}
        shapes["output_norm.weight"] = (self.width,)
        if not self.tied:
            shapes["output.weight"] = (self.vocab, self.width)
        return shapes

    def _feed_forward_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        if self.experts:
            yield "ffn_gate_inp.weight", (self.experts, self.width)
        count, suffix = ((self.experts,), "_exps") if self.experts else ((), "")
        inner = self.expert_ffn if self.experts else self.ffn
        yield f"ffn_gate{suffix}.weight", (*count, inner, self.width)
        yield f"ffn_up{suffix}.weight", (*count, inner, self.width)
        yield f"ffn_down{suffix}.weight", (*count, self.width, inner)


@dataclass(frozen=True)
class VisionShape:
    """An InternViT with its projector.

    Attributes:
        image_size: side of a tile in pixels; a multiple of patch_size * scale_factor.
        projection: width of the text model the embeddings go to.
        scale_factor: pixel-unshuffle factor; scale_factor**2 patches make one visual token.
        act: activation of the feed-forward layers; the projector always has GELU.
        qkv_bias: whether query, key and value projections have a bias (InternViT-300M yes, 6B no).
        qk_norm: whether queries and keys are normalised over the whole width (6B).
        rms_norm: RMSNorm in place of LayerNorm. llama.cpp decides this by the 6B's width and depth alone, so it may be
            true for 3200 x 45 layers only, and must be true there.
        min_tiles, max_tiles: how many tiles the model was trained to see, without the thumbnail.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    ffn: int
    projection: int
    scale_factor: int = 2
    norm_eps: float = 1e-6
    act: Literal["gelu", "silu"] = "gelu"
    qkv_bias: bool = True
    qk_norm: bool = False
    rms_norm: bool = False
    min_tiles: int = 1
    max_tiles: int = 12

    def __post_init__(self) -> None:
        if self.rms_norm != (self.width == 3200 and self.layers == 45):
            raise ValueError("llama.cpp applies RMSNorm to an InternViT of width 3200 and 45 layers, and to no other")

    @property
    def patches(self) -> int:
        """Patches of a tile, the class token not counted."""
        return (self.image_size // self.patch_size) ** 2

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor the mmproj GGUF holds, by GGUF name, in numpy order."""
        width, merged = self.width, self.width * self.scale_factor**2
        norm_parts = ("weight",) if self.rms_norm else ("weight", "bias")
        shapes: dict[str, tuple[int, ...]] = {
            "v.class_embd": (1, 1, width),
            "v.position_embd.weight": (1, self.patches + 1, width),
            "v.patch_embd.weight": (width, 3, self.patch_size, self.patch_size),
            "v.patch_embd.bias": (width,),
        }
        for layer in range(self.layers):
            block = f"v.blk.{layer}"
            for part in norm_parts:
                shapes[f"{block}.ln1.{part}"] = shapes[f"{block}.ln2.{part}"] = (width,)
            for name in "qkv":
                shapes[f"{block}.attn_{name}.weight"] = (width, width)
                if self.qkv_bias:
                    shapes[f"{block}.attn_{name}.bias"] = (width,)
                if self.qk_norm and name != "v":
                    shapes[f"{block}.attn_{name}_norm.weight"] = (width,)
            for name, rows, columns in (
                ("attn_out", width, width),
                ("ffn_up", self.ffn, width),
                ("ffn_down", width, self.ffn),
            ):
                shapes[f"{block}.{name}.weight"] = (rows, columns)
                shapes[f"{block}.{name}.bias"] = (rows,)
            shapes[f"{block}.ls1.weight"] = shapes[f"{block}.ls2.weight"] = (width,)
        for index, rows, columns in ((1, self.projection, merged), (3, self.projection, self.projection)):
            shapes[f"mm.model.mlp.{index}.weight"] = (rows, columns)
            shapes[f"mm.model.mlp.{index}.bias"] = (rows,)
        shapes["mm.model.mlp.0.weight"] = shapes["mm.model.mlp.0.bias"] = (merged,)
        return shapes


@dataclass(frozen=True)
class TokenizerSpec:
    """A vocabulary: byte-level BPE pre-split as Qwen2 does, or SentencePiece.

    Attributes:
        tokens: token texts by id; ordinary ones in GPT-2's byte-to-unicode form (see `byte_level`), special ones as
            they read. As many as the embedding table has rows.
        types: a `gguf.TokenType` for each token: NORMAL, CONTROL, USER_DEFINED or UNUSED.
        merges: "left right" pairs in byte-to-unicode form, first merge first.
        eos: id of the token that ends a turn.
        pad: id of the padding token.
        bos: id of a beginning token, if the vocabulary names one; it is added to prompts of a SentencePiece vocabulary.
        scores: of a SentencePiece vocabulary, whose tokens are spelled as they read, "▁" for a space; else empty.
        space_prefix: of a SentencePiece vocabulary: whether the beginning of every text gets a space.
    """

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    eos: int
    pad: int
    chat_template: str
    bos: int | None = None
    scores: tuple[float, ...] = ()
    space_prefix: bool = False


@dataclass(frozen=True)
class Metadata:
    """What a file says about its own origin; `basename` is the same in both files of a pair."""

    name: str
    basename: str
    license: str = "mit"
    description: str = ""


def byte_level(data: bytes) -> str:
    """Bytes as text in GPT-2's printable alphabet: one character a byte, 0x20 as U+0120.

    Printable latin-1 bytes stand for themselves, the other 68 follow from U+0100 on.
    """
    return "".join(_BYTE_ALPHABET[byte] for byte in data)


def export_text(
    path: str | PathLike[str],
    tensors: Tensors,
    shape: TextShape,
    tokenizer: TokenizerSpec,
    metadata: Metadata,
    dtype: StorageType = "f32",
) -> None:
    """Write the language model of `tensors` as a text GGUF.

    Args:
        path: the file to write.
        tensors: the whole model's state dict; vision tensors in it are passed over.
        dtype: storage of the matrices; vectors stay float32.

    Raises:
        ValueError: a tensor is unknown, missing or of another shape than `shape` says; the tied output differs from
            the embedding table; the vocabulary does not have `shape.vocab` tokens.
    """
    _check_tokenizer(tokenizer, shape.vocab)
    chosen = dict(_renamed(_with_separate_experts(tensors), _TEXT_NAMES))
    output = chosen.pop("output.weight", None) if shape.tied else None
    if output is not None and not np.array_equal(output, chosen["token_embd.weight"]):
        raise ValueError("lm_head.weight differs from the embedding table; set tied=False")
    _check_shapes(chosen, shape.tensor_shapes())
    writer = gguf.GGUFWriter(path, shape.kind)
    _write_metadata(writer, metadata, gguf.GGUFType.MODEL, dtype)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    if shape.head_dim:
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
    if shape.kind == "llama":
        writer.add_vocab_size(shape.vocab)
    if shape.kind in ("internlm2", "llama"):
        writer.add_rope_dimension_count(shape.head_width)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.experts_used)
        writer.add_expert_feed_forward_length(shape.expert_ffn)
    _write_tokenizer(writer, tokenizer)
    _write_file(writer, chosen, shape.tensor_shapes(), dtype)


def export_mmproj(
    path: str | PathLike[str],
    tensors: Tensors,
    shape: VisionShape,
    metadata: Metadata,
    dtype: StorageType = "f32",
) -> None:
    """Write the vision encoder and projector of `tensors` as an mmproj GGUF.

    Args:
        path: the file to write.
        tensors: the whole model's state dict; language tensors in it are passed over.
        dtype: storage of the matrices. Vectors and position embeddings stay float32, and so does the patch
            convolution unless dtype is f16: llama.cpp has none in bfloat16 or Q8_0.

    Raises:
        ValueError: a tensor is unknown, missing or of another shape than `shape` says.
    """
    chosen = dict(_renamed(_with_separate_experts(tensors), _VISION_NAMES))
    _check_shapes(chosen, shape.tensor_shapes())
    writer = gguf.GGUFWriter(path, "clip")
    _write_metadata(writer, metadata, gguf.GGUFType.MMPROJ, dtype)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_uint32("clip.vision.projection_dim", shape.projection)
    writer.add_uint32("clip.vision.image_size", shape.image_size)
    writer.add_uint32("clip.vision.patch_size", shape.patch_size)
    writer.add_uint32("clip.vision.embedding_length", shape.width)
    writer.add_uint32("clip.vision.feed_forward_length", shape.ffn)
    writer.add_uint32("clip.vision.block_count", shape.layers)
    writer.add_uint32("clip.vision.attention.head_count", shape.heads)
    writer.add_array("clip.vision.image_mean", IMAGENET_MEAN)
    writer.add_array("clip.vision.image_std", IMAGENET_STD)
    writer.add_string("clip.projector_type", "internvl")
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", shape.norm_eps)
    writer.add_bool(f"clip.use_{shape.act}", True)
    writer.add_uint32("clip.vision.projector.scale_factor", shape.scale_factor)
    writer.add_uint32("clip.vision.preproc_min_tiles", shape.min_tiles)
    writer.add_uint32("clip.vision.preproc_max_tiles", shape.max_tiles)
    _write_file(writer, chosen, shape.tensor_shapes(), dtype)


def _byte_alphabet() -> tuple[str, ...]:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte) if byte in printable else chr(next(others)) for byte in range(256))


_BYTE_ALPHABET = _byte_alphabet()


def state_name(gguf_name: str) -> str:
    """The name that a tensor of either file has in the state dict: what `export_text` and `export_mmproj` undo.

    Raises:
        ValueError: neither file has a tensor of this name.
    """
    for pattern, replacement in (*_TEXT_NAMES, *_VISION_NAMES):
        groups = re.findall(r"\([^)]*\)", pattern)
        parts = re.split(r"\\(\d)", replacement)
        inverse = "".join(groups[int(part) - 1] if at % 2 else re.escape(part) for at, part in enumerate(parts))
        if match := re.fullmatch(inverse, gguf_name):
            values = dict(zip(parts[1::2], match.groups(), strict=True))
            plain = re.split(r"\([^)]*\)", pattern)
            filled = "".join(text + values.get(str(at), "") for at, text in enumerate(plain, 1))
            return filled.replace("\\", "")
    raise ValueError(f"no tensor of the model is called {gguf_name!r}")


def _with_separate_experts(tensors: Tensors) -> Tensors:
    """The tensors with `gate_up_proj` of experts, which transformers keeps in one, as two."""
    separate = {}
    for name, data in tensors.items():
        if name.endswith("mlp.experts.gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            separate[f"{stem}gate_proj"], separate[f"{stem}up_proj"] = np.split(data, 2, axis=1)
        else:
            separate[name] = data
    return separate


def _renamed(tensors: Tensors, names: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The tensors that `names` covers, under their GGUF names; a name no file has a place for is an error."""
    for name, data in tensors.items():
        for pattern, replacement in (*_TEXT_NAMES, *_VISION_NAMES):
            if re.fullmatch(pattern, name):
                if (pattern, replacement) in names:
                    yield re.sub(pattern, replacement, name), data
                break
        else:
            raise ValueError(f"no GGUF tensor is known for {name!r}")


def _check_shapes(tensors: Tensors, expected: dict[str, tuple[int, ...]]) -> None:
    if missing := expected.keys() - tensors.keys():
        raise ValueError(f"tensors missing: {', '.join(sorted(missing))}")
    if extra := tensors.keys() - expected.keys():
        raise ValueError(f"tensors that the shape has no place for: {', '.join(sorted(extra))}")
    for name, data in tensors.items():
        if data.shape != expected[name]:
            raise ValueError(f"{name} is {data.shape}, expected {expected[name]}")


def _check_tokenizer(tokenizer: TokenizerSpec, vocab: int) -> None:
    if not len(tokenizer.tokens) == len(tokenizer.types) == vocab:
        raise ValueError(
            f"{len(tokenizer.tokens)} tokens and {len(tokenizer.types)} types for an embedding table of {vocab} rows"
        )
    if len(set(tokenizer.tokens)) != vocab:
        raise ValueError("a token stands twice in the vocabulary")


def _write_metadata(writer: gguf.GGUFWriter, metadata: Metadata, kind: str, dtype: StorageType) -> None:
    writer.add_type(kind)
    writer.add_name(metadata.name)
    writer.add_basename(metadata.basename)
    if metadata.description:
        writer.add_description(metadata.description)
    writer.add_license(metadata.license)
    writer.add_file_type(_FILE_TYPES[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: TokenizerSpec) -> None:
    writer.add_tokenizer_model("llama" if tokenizer.scores else "gpt2")
    writer.add_tokenizer_pre("default" if tokenizer.scores else "qwen2")
    writer.add_token_list(list(tokenizer.tokens))
    writer.add_token_types(list(tokenizer.types))
    if tokenizer.scores:
        writer.add_token_scores(list(tokenizer.scores))
        writer.add_add_space_prefix(tokenizer.space_prefix)
    else:
        writer.add_token_merges(list(tokenizer.merges))
    writer.add_eos_token_id(tokenizer.eos)
    writer.add_pad_token_id(tokenizer.pad)
    if tokenizer.bos is not None:
        writer.add_bos_token_id(tokenizer.bos)
    writer.add_add_bos_token(bool(tokenizer.scores))
    writer.add_chat_template(tokenizer.chat_template)


def _tensor_type(name: str, dimensions: int, dtype: StorageType) -> gguf.GGMLQuantizationType:
    """The converter's rule: vectors, norms, embeddings of position and class, and rows of routers stay float32."""
    if dimensions == 1 or name in ("v.class_embd", "v.position_embd.weight") or ".ffn_gate_inp." in name:
        return gguf.GGMLQuantizationType.F32
    if name == "v.patch_embd.weight" and dtype in ("bf16", "q8_0"):
        return gguf.GGMLQuantizationType.F32
    return _TENSOR_TYPES[dtype]


def _write_file(
    writer: gguf.GGUFWriter, tensors: Tensors, order: dict[str, tuple[int, ...]], dtype: StorageType
) -> None:
    for name in order:
        data = np.ascontiguousarray(tensors[name], dtype=np.float32)
        kind = _tensor_type(name, data.ndim, dtype)
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
