"""Headers of GGUF files of published shapes and quants, written without weights: a sparse file does for the rest.

The six text models are Qwen2.5's, the two vision encoders InternViT's, with the sizes that InternVL3 uses. A quant is a
mixture of types as llama.cpp's `llama-quantize` makes it (`llama_tensor_get_type` in `src/llama-quant.cpp`, simplified
to what changes a file's size: output and embedding rows, values, down projections, and what rows of another length than
a multiple of 256 fall back to). The vocabulary is made up, of the published length.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

ALIGNMENT = 32
N_VOCAB = 151_674
F32 = GGMLQuantizationType.F32
Value = int | float | bool | str | list[str] | list[float] | list[int]
Entry = tuple[str, tuple[int, ...], GGMLQuantizationType]


@dataclass(frozen=True)
class TextArchitecture:
    """Sizes of a text model; `tied` ones have no output matrix of their own."""

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    tied: bool = False
    vocab: int = N_VOCAB
    context: int = 32768


@dataclass(frozen=True)
class VisionArchitecture:
    """Sizes of a vision encoder."""

    name: str
    layers: int
    width: int
    heads: int
    ffn: int
    rms: bool = False
    tile: int = 448
    patch: int = 14


TEXT = {
    architecture.name: architecture
    for architecture in (
        TextArchitecture("0.5B", 24, 896, 14, 2, 4864),
        TextArchitecture("1.5B", 28, 1536, 12, 2, 8960),
        TextArchitecture("7B", 28, 3584, 28, 4, 18944),
        TextArchitecture("14B", 48, 5120, 40, 8, 13824),
        TextArchitecture("32B", 64, 5120, 40, 8, 27648),
        TextArchitecture("72B", 80, 8192, 64, 8, 29568),
    )
}
VISION = {
    architecture.name: architecture
    for architecture in (
        VisionArchitecture("InternViT-300M", 24, 1024, 16, 4096),
        VisionArchitecture("InternViT-6B", 45, 3200, 25, 12800, rms=True),
    )
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


def text_header(architecture: TextArchitecture, quant: str) -> bytes:
    """The header of a text model, padding included."""
    return _header(_text_keys(architecture), text_tensors(architecture, quant))


def mmproj_header(architecture: VisionArchitecture, kind: str, projection: int) -> bytes:
    """The header of an mmproj whose matrices are of one type.

    Args:
        architecture: sizes of the encoder.
        kind: a type of ggml, such as "F16".
        projection: width of the text model.
    """
    return _header(_vision_keys(architecture, projection), mmproj_tensors(architecture, kind, projection))


def file_size(header: bytes, tensors: Iterable[Entry]) -> int:
    """Bytes of the whole file."""
    return len(header) + sum(_padded(_stored(shape, kind)) for _, shape, kind in tensors)


def write_sparse(path: Path, header: bytes, tensors: Iterable[Entry]) -> Path:
    """Write the header and let zeros follow it, without taking disk space."""
    with path.open("wb") as stream:
        stream.write(header)
        stream.truncate(file_size(header, tensors))
    return path


def text_tensors(architecture: TextArchitecture, quant: str) -> list[Entry]:
    """Name, shape (fastest axis first) and type of every tensor."""
    base, output, better = QUANTS[quant]
    width, kv_width = architecture.width, architecture.width // architecture.heads * architecture.kv_heads
    table = (width, architecture.vocab)
    tensors: list[Entry] = [
        ("token_embd.weight", table, _fitting(output if architecture.tied else base, width)),
        ("output_norm.weight", (width,), F32),
    ]
    if not architecture.tied:
        tensors.append(("output.weight", table, _fitting(output, width)))
    for layer in range(architecture.layers):
        block = f"blk.{layer}"
        more = better if _gets_more_bits(layer, architecture.layers) else base
        tensors += [(f"{block}.attn_norm.weight", (width,), F32), (f"{block}.ffn_norm.weight", (width,), F32)]
        for part, rows, kind in (("q", width, base), ("k", kv_width, base), ("v", kv_width, more)):
            tensors += [(f"{block}.attn_{part}.weight", (width, rows), _fitting(kind, width))]
            tensors += [(f"{block}.attn_{part}.bias", (rows,), F32)]
        tensors += [
            (f"{block}.attn_output.weight", (width, width), _fitting(base, width)),
            (f"{block}.ffn_gate.weight", (width, architecture.ffn), _fitting(base, width)),
            (f"{block}.ffn_up.weight", (width, architecture.ffn), _fitting(base, width)),
            (f"{block}.ffn_down.weight", (architecture.ffn, width), _fitting(more, architecture.ffn)),
        ]
    return tensors


def mmproj_tensors(architecture: VisionArchitecture, kind: str, projection: int) -> list[Entry]:
    """Name, shape (fastest axis first) and type of every tensor."""
    width, ffn, merged = architecture.width, architecture.ffn, 4 * architecture.width
    patches = (architecture.tile // architecture.patch) ** 2
    kernel = GGMLQuantizationType[kind if kind in ("F32", "F16", "BF16") else "F16"]
    tensors: list[Entry] = [
        ("v.class_embd", (width,), F32),
        ("v.position_embd.weight", (width, patches + 1), F32),
        ("v.patch_embd.weight", (architecture.patch, architecture.patch, 3, width), kernel),
        ("v.patch_embd.bias", (width,), F32),
    ]
    vectors = ["ln1.weight", "ln2.weight", "ls1.weight", "ls2.weight", "attn_out.bias", "ffn_down.bias"]
    if architecture.rms:
        vectors += ["attn_q_norm.weight", "attn_k_norm.weight"]
    else:
        vectors += ["ln1.bias", "ln2.bias", "attn_q.bias", "attn_k.bias", "attn_v.bias"]
    for layer in range(architecture.layers):
        block = f"v.blk.{layer}"
        tensors += [(f"{block}.{name}", (width,), F32) for name in vectors]
        tensors += [(f"{block}.attn_{part}.weight", (width, width), _fitting(kind, width)) for part in ("q", "k", "v")]
        tensors += [
            (f"{block}.attn_out.weight", (width, width), _fitting(kind, width)),
            (f"{block}.ffn_up.weight", (width, ffn), _fitting(kind, width)),
            (f"{block}.ffn_up.bias", (ffn,), F32),
            (f"{block}.ffn_down.weight", (ffn, width), _fitting(kind, ffn)),
        ]
    tensors += [("mm.model.mlp.0.weight", (merged,), F32), ("mm.model.mlp.0.bias", (merged,), F32)]
    for index, columns in ((1, merged), (3, projection)):
        tensors += [
            (f"mm.model.mlp.{index}.weight", (columns, projection), _fitting(kind, columns)),
            (f"mm.model.mlp.{index}.bias", (projection,), F32),
        ]
    return tensors


def _gets_more_bits(layer: int, layers: int) -> bool:
    """`use_more_bits`: the first and last eighth, and every third layer between them."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _fitting(kind: str, columns: int) -> GGMLQuantizationType:
    block, _ = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    if columns % block:
        kind = _FALLBACK.get(kind, "IQ4_NL")
    return GGMLQuantizationType[kind]


def _text_keys(architecture: TextArchitecture) -> dict[str, Value]:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
    tokens, merges = _vocabulary(architecture.vocab - len(special))
    return {
        "general.architecture": "qwen2",
        "general.type": "model",
        "general.name": f"Header of a Qwen2.5 {architecture.name}",
        "qwen2.block_count": architecture.layers,
        "qwen2.context_length": architecture.context,
        "qwen2.embedding_length": architecture.width,
        "qwen2.feed_forward_length": architecture.ffn,
        "qwen2.attention.head_count": architecture.heads,
        "qwen2.attention.head_count_kv": architecture.kv_heads,
        "qwen2.rope.freq_base": 1e6,
        "qwen2.attention.layer_norm_rms_epsilon": 1e-6,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens + special,
        "tokenizer.ggml.token_type": [1] * len(tokens) + [3] * len(special),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": architecture.vocab - len(special) + special.index("<|im_end|>"),
        "tokenizer.ggml.add_bos_token": False,
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


def _vision_keys(architecture: VisionArchitecture, projection: int) -> dict[str, Value]:
    return {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.name": f"Header of {architecture.name}",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "internvl",
        "clip.use_gelu": True,
        "clip.vision.projection_dim": projection,
        "clip.vision.image_size": architecture.tile,
        "clip.vision.patch_size": architecture.patch,
        "clip.vision.embedding_length": architecture.width,
        "clip.vision.feed_forward_length": architecture.ffn,
        "clip.vision.block_count": architecture.layers,
        "clip.vision.attention.head_count": architecture.heads,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": [0.485, 0.456, 0.406],
        "clip.vision.image_std": [0.229, 0.224, 0.225],
        "clip.vision.projector.scale_factor": 2,
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
