"""Headers of GGUF files of published shapes and quants, written without weights: a sparse file does for the rest.

The text models are those of InternVL2.5 and 3 (Qwen2.5 and InternLM) and InternVL3.5 (Qwen3 and Qwen3-MoE), the two
vision encoders InternViT's. A quant is a mixture of types as llama.cpp's `llama-quantize` makes it
(`llama_tensor_get_type` in `src/llama-quant.cpp`, simplified to what changes a file's size: output and embedding rows,
values, down projections, and what rows of another length than a multiple of 256 fall back to). The vocabulary is made
up, of the published length.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from internvl_gguf.gguf.arch import TEXT_ARCHITECTURES
from internvl_gguf.gguf.arch.base import MmprojShape, TensorSpec, TextShape, VisionShape
from internvl_gguf.gguf.arch.internvit import INTERNVIT
from internvl_gguf.gguf.arch.text_architecture import SENTENCEPIECE

ALIGNMENT = 32
N_VOCAB = 151_674
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
F32 = GGMLQuantizationType.F32
Value = int | float | bool | str | list[str] | list[float] | list[int]
Entry = tuple[str, tuple[int, ...], GGMLQuantizationType]


@dataclass(frozen=True, kw_only=True)
class PublishedText(TextShape):
    """Sizes of a published text model.

    Attributes:
        name: of the size.
        n_vocab, n_ctx_train: as those of `TextShape`, always known.
        tied: whether it has no output matrix of its own.
    """

    name: str
    n_vocab: int = N_VOCAB
    n_ctx_train: int = 32768
    tied: bool = False


TEXT = {
    shape.name: shape
    for shape in (
        PublishedText("qwen2", 24, 896, 14, 2, 4864, name="0.5B"),
        PublishedText("qwen2", 28, 1536, 12, 2, 8960, name="1.5B"),
        PublishedText("qwen2", 28, 3584, 28, 4, 18944, name="7B"),
        PublishedText("qwen2", 48, 5120, 40, 8, 13824, name="14B"),
        PublishedText("qwen2", 64, 5120, 40, 8, 27648, name="32B"),
        PublishedText("qwen2", 80, 8192, 64, 8, 29568, name="72B"),
        *(
            replace(shape, name=f"Qwen3 {shape.name}", n_vocab=151_936, n_ctx_train=40_960)
            for shape in (
                PublishedText("qwen3", 28, 1024, 16, 8, 3072, 128, name="0.6B"),
                PublishedText("qwen3", 28, 2048, 16, 8, 6144, 128, name="1.7B"),
                PublishedText("qwen3", 36, 2560, 32, 8, 9728, 128, name="4B"),
                PublishedText("qwen3", 36, 4096, 32, 8, 12288, 128, name="8B"),
                PublishedText("qwen3", 40, 5120, 40, 8, 17408, 128, name="14B"),
                PublishedText("qwen3", 64, 5120, 64, 8, 25600, 128, name="32B"),
                PublishedText("qwen3moe", 48, 2048, 32, 4, 6144, 128, 128, 8, 768, name="30B-A3B"),
                PublishedText("qwen3moe", 94, 4096, 64, 4, 12288, 128, 128, 8, 1536, name="235B-A22B"),
            )
        ),
        *(
            replace(shape, name=f"InternLM2.5 {shape.name}", n_vocab=92_553)
            for shape in (
                PublishedText("internlm2", 24, 2048, 16, 8, 8192, name="1.8B"),
                PublishedText("internlm2", 32, 4096, 32, 8, 14336, name="7B"),
                PublishedText("internlm2", 48, 6144, 48, 8, 16384, name="20B"),
            )
        ),
        PublishedText("llama", 48, 4096, 32, 2, 10240, 128, name="InternLM3 8B", n_vocab=128_512),
    )
}
VISION = {
    "InternViT-300M": VisionShape(24, 1024, 16, 4096, 448, 14, 256, "layernorm"),
    "InternViT-6B": VisionShape(45, 3200, 25, 12800, 448, 14, 256, "rmsnorm"),
}

# Quant: type of most matrices, of the output matrix, of values and down projections in the layers that get more bits.
QUANTS: dict[str, tuple[str, str, str]] = {
    "F32": ("F32", "F32", "F32"),
    "F16": ("F16", "F16", "F16"),
    "BF16": ("BF16", "BF16", "BF16"),
    "Q8_0": ("Q8_0", "Q8_0", "Q8_0"),
    "Q6_K": ("Q6_K", "Q6_K", "Q6_K"),
    "Q5_K_M": ("Q5_K", "Q6_K", "Q6_K"),
    "Q5_K_S": ("Q5_K", "Q6_K", "Q5_K"),
    "Q5_1": ("Q5_1", "Q6_K", "Q5_1"),
    "Q5_0": ("Q5_0", "Q6_K", "Q5_0"),
    "Q4_K_M": ("Q4_K", "Q6_K", "Q6_K"),
    "Q4_K_S": ("Q4_K", "Q6_K", "Q5_K"),
    "Q4_1": ("Q4_1", "Q6_K", "Q4_1"),
    "Q4_0": ("Q4_0", "Q6_K", "Q4_0"),
    "IQ4_NL": ("IQ4_NL", "Q6_K", "Q5_K"),
    "IQ4_XS": ("IQ4_XS", "Q6_K", "Q5_K"),
    "Q3_K_L": ("Q3_K", "Q6_K", "Q5_K"),
    "Q3_K_M": ("Q3_K", "Q6_K", "Q5_K"),
    "Q3_K_S": ("Q3_K", "Q6_K", "Q3_K"),
    "IQ3_S": ("IQ3_S", "Q6_K", "Q4_K"),
    "IQ3_XXS": ("IQ3_XXS", "Q5_K", "Q4_K"),
    "Q2_K": ("Q2_K", "Q6_K", "Q4_K"),
    "IQ2_M": ("IQ2_S", "Q5_K", "Q4_K"),
    "IQ2_XXS": ("IQ2_XXS", "Q5_K", "Q2_K"),
    "IQ1_M": ("IQ1_M", "Q5_K", "Q2_K"),
    "IQ1_S": ("IQ1_S", "Q5_K", "Q2_K"),
}
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # rows that are no multiple of 256; others take IQ4_NL


def text_header(shape: PublishedText, quant: str) -> bytes:
    """The header of a text model, padding included."""
    return _header(_text_keys(shape), text_tensors(shape, quant))


def mmproj_header(shape: VisionShape, kind: str, projection: int) -> bytes:
    """The header of an mmproj whose matrices are of one type.

    Args:
        shape: sizes of the encoder.
        kind: a type of ggml, such as "F16".
        projection: width of the text model.
    """
    return _header(_vision_keys(shape, projection), mmproj_tensors(shape, kind, projection))


def file_size(header: bytes, tensors: Iterable[Entry]) -> int:
    """Bytes of the whole file."""
    return len(header) + sum(_padded(_stored(shape, kind)) for _, shape, kind in tensors)


def write_sparse(path: Path, header: bytes, tensors: Iterable[Entry]) -> Path:
    """Write the header and let zeros follow it, without taking disk space."""
    with path.open("wb") as stream:
        stream.write(header)
        stream.truncate(file_size(header, tensors))
    return path


def text_tensors(shape: PublishedText, quant: str) -> list[Entry]:
    """Name, shape (fastest axis first) and type of every tensor."""
    base, output, better = QUANTS[quant]
    architecture = TEXT_ARCHITECTURES[shape.architecture]
    names = {spec.name for spec in architecture.tensors(shape)} - ({"output.weight"} if shape.tied else set())

    def stored(spec: TensorSpec) -> GGMLQuantizationType:
        if spec.storage == "f32":
            return F32
        if spec.name == ("token_embd.weight" if shape.tied else "output.weight"):
            return _fitting(output, spec.shape[0])
        _, _, within = spec.name.partition("blk.")
        is_better = within and _gets_more_bits(int(within.split(".")[0]), shape.n_layers)
        gets_more = is_better and spec.name.endswith(("attn_v.weight", "ffn_down.weight", "ffn_down_exps.weight"))
        return _fitting(better if gets_more else base, spec.shape[0])

    return [(spec.name, spec.shape, stored(spec)) for spec in architecture.tensors(shape, names)]


def mmproj_tensors(shape: VisionShape, kind: str, projection: int) -> list[Entry]:
    """Name, shape (fastest axis first) and type of every tensor."""
    whole = MmprojShape(**shape.sizes, projection_dim=projection, projector_hidden=projection)
    kernel = GGMLQuantizationType[kind if kind in ("F32", "F16", "BF16") else "F16"]

    def stored(spec: TensorSpec) -> GGMLQuantizationType:
        return {"f32": F32, "float": kernel, "any": _fitting(kind, spec.shape[0])}[spec.storage]

    return [(spec.name, spec.shape, stored(spec)) for spec in INTERNVIT.tensors(whole)]


def _gets_more_bits(layer: int, layers: int) -> bool:
    """`use_more_bits`: the first and last eighth, and every third layer between them."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _fitting(kind: str, columns: int) -> GGMLQuantizationType:
    block, _ = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    if columns % block:
        kind = _FALLBACK.get(kind, "IQ4_NL")
    return GGMLQuantizationType[kind]


def _text_keys(shape: PublishedText) -> dict[str, Value]:
    architecture = shape.architecture
    has_pieces = TEXT_ARCHITECTURES[architecture].tokenizer == SENTENCEPIECE
    heads: dict[str, Value] = {f"attention.{part}_length": shape.head_dim for part in ("key", "value")}
    experts: dict[str, Value] = {
        "expert_count": shape.n_expert,
        "expert_used_count": shape.n_expert_used,
        "expert_feed_forward_length": shape.n_ff_exp,
    }
    own = (heads if architecture not in ("qwen2", "internlm2") else {}) | (experts if shape.n_expert else {})
    return {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": f"Header of a text model, {shape.name}",
        f"{architecture}.block_count": shape.n_layers,
        f"{architecture}.context_length": shape.n_ctx_train,
        f"{architecture}.embedding_length": shape.n_embd,
        f"{architecture}.feed_forward_length": shape.n_ff,
        f"{architecture}.attention.head_count": shape.n_head,
        f"{architecture}.attention.head_count_kv": shape.n_head_kv,
        f"{architecture}.rope.freq_base": 1e6,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-6,
        **{f"{architecture}.{name}": value for name, value in own.items()},
        "tokenizer.ggml.eos_token_id": shape.n_vocab - len(SPECIAL) + SPECIAL.index("<|im_end|>"),
        **(_piece_keys(shape.n_vocab) if has_pieces else _byte_pair_keys(shape.n_vocab)),
    }


def _byte_pair_keys(n_vocab: int) -> dict[str, Value]:
    tokens, merges = _vocabulary(n_vocab - len(SPECIAL))
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens + SPECIAL,
        "tokenizer.ggml.token_type": [1] * len(tokens) + [3] * len(SPECIAL),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": False,
    }


def _piece_keys(n_vocab: int) -> dict[str, Value]:
    first = ["<unk>", "<s>", "</s>"]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens, _ = _vocabulary(n_vocab - len(first) - len(pieces) - len(SPECIAL))
    return {
        "tokenizer.ggml.model": SENTENCEPIECE,
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": first + pieces + tokens + SPECIAL,
        "tokenizer.ggml.scores": [-float(rank) for rank in range(n_vocab)],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * len(pieces) + [1] * len(tokens) + [3] * len(SPECIAL),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
    }


def _vocabulary(count: int) -> tuple[list[str], list[str]]:
    """So many tokens: the 256 bytes in GPT-2's alphabet, then merges of two or more of the first letters."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    tokens = [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(256 - len(printable))]
    merges: list[str] = []
    letters = tokens[32:84]
    grown = list(letters)
    for stem in grown:
        for letter in letters:
            if len(tokens) == count:
                return tokens, merges
            tokens.append(stem + letter)
            merges.append(f"{stem} {letter}")
            grown.append(stem + letter)
    return tokens[:count], merges


def _vision_keys(shape: VisionShape, projection: int) -> dict[str, Value]:
    return {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.name": f"Header of an InternViT of {shape.n_layers} layers",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "internvl",
        "clip.use_gelu": True,
        "clip.vision.projection_dim": projection,
        "clip.vision.image_size": shape.image_size,
        "clip.vision.patch_size": shape.patch_size,
        "clip.vision.embedding_length": shape.n_embd,
        "clip.vision.feed_forward_length": shape.n_ff,
        "clip.vision.block_count": shape.n_layers,
        "clip.vision.attention.head_count": shape.n_head,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": [0.485, 0.456, 0.406],
        "clip.vision.image_std": [0.229, 0.224, 0.225],
        "clip.vision.projector.scale_factor": shape.scale_factor,
    }


def _header(keys: dict[str, Value], tensors: list[Entry]) -> bytes:
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(keys))]
    for name, value in keys.items():
        parts += [_string(name), *_value(value)]
    offset = 0
    for name, shape, kind in tensors:
        parts += [_string(name), struct.pack(f"<I{len(shape)}Q", len(shape), *shape), struct.pack("<IQ", kind, offset)]
        offset += _padded(_stored(shape, kind))
    header = b"".join(parts)
    return header + bytes(-len(header) % ALIGNMENT)


def _value(value: Value) -> Iterator[bytes]:
    if isinstance(value, list):
        item = value[0]
        kind = {str: GGUFValueType.STRING, int: GGUFValueType.INT32, float: GGUFValueType.FLOAT32}[type(item)]
        yield struct.pack("<IIQ", GGUFValueType.ARRAY, kind, len(value))
        if isinstance(item, str):
            yield b"".join(map(_string, value))  # type: ignore[arg-type]
        else:
            yield struct.pack(f"<{len(value)}{'f' if isinstance(item, float) else 'i'}", *value)
    elif isinstance(value, bool):
        yield struct.pack("<IB", GGUFValueType.BOOL, value)
    elif isinstance(value, int):
        yield struct.pack("<II", GGUFValueType.UINT32, value)
    elif isinstance(value, float):
        yield struct.pack("<If", GGUFValueType.FLOAT32, value)
    else:
        yield struct.pack("<I", GGUFValueType.STRING) + _string(value)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _stored(shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    block, size = GGML_QUANT_SIZES[kind]
    n_bytes: int = math.prod(shape) // block * size
    return n_bytes


def _padded(size: int) -> int:
    return size + -size % ALIGNMENT
