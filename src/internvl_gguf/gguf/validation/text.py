"""The text half: a Qwen2.5 language model with InternVL's special tokens.

What llama.cpp's qwen2 loader (`llama-model.cpp`, `models/qwen2.cpp`, `llama-vocab.cpp` at the revision in
llama-cpp-python 0.3.36) asserts, dereferences or takes in silence is checked here before it sees the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gguf import GGUFValueType

from internvl_gguf.gguf.header import GGUFHeader, TensorInfo, read_header
from internvl_gguf.gguf.validation.checks import (
    ARRAY,
    BOOL,
    FLOAT32,
    INT32,
    MATRIX_TYPES,
    STRING,
    UINT32,
    VECTOR_TYPES,
    Identity,
    KeyType,
    bounded_integer,
    bounded_number,
    check_all_known,
    check_key_types,
    check_tensor,
    read_identity,
    refuse,
)
from internvl_gguf.gguf.validation.tokenizer import (
    NOT_INTERNVL_HINT,
    TOKENIZER_KEY_TYPES,
    check_tokenizer,
    special_token_ids,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

ARCHITECTURE: Final = "qwen2"
_MAX_LAYERS: Final = 512  # LLAMA_MAX_LAYERS
_MMAP_ALIGNMENT: Final = 32  # of ggml's CPU buffers; a GGUF may be laid out by 8 or 16, and then aborts
_MAX_WIDTH: Final = 2**20
_MAX_CONTEXT: Final = 2**27
_ROPE_SCALING: Final = frozenset({"none", "linear", "yarn"})

_OTHER_MODELS: Final = {
    "qwen2vl": "Qwen2.5-VL",
    "qwen3": "Qwen3, the text model of InternVL3.5 and others",
    "qwen3moe": "Qwen3-MoE, the text model of InternVL3.5 and others",
    "qwen3vl": "Qwen3-VL",
    "internlm2": "InternLM2, the text model of InternVL2 and 2.5",
    "llama": "Llama, or InternLM3 as in InternVL3-9B",
}

# Every key the loader reads for this architecture, in the type it insists on.
_KEY_TYPES: Final[dict[str, KeyType]] = {
    "general.architecture": STRING,
    "general.name": STRING,
    "general.file_type": UINT32,
    "qwen2.context_length": UINT32,
    "qwen2.embedding_length": UINT32,
    "qwen2.embedding_length_out": UINT32,
    "qwen2.block_count": UINT32,
    "qwen2.feed_forward_length": UINT32,
    "qwen2.attention.head_count": UINT32,
    "qwen2.attention.head_count_kv": UINT32,
    "qwen2.attention.key_length": UINT32,
    "qwen2.attention.value_length": UINT32,
    "qwen2.attention.key_length_swa": UINT32,
    "qwen2.attention.value_length_swa": UINT32,
    "qwen2.attention.causal": BOOL,
    "qwen2.attention.layer_norm_rms_epsilon": FLOAT32,
    "qwen2.pooling_type": UINT32,
    "qwen2.classifier.pooling_type": UINT32,
    "qwen2.classifier.output_labels": (ARRAY, STRING),
    "qwen2.nextn_predict_layers": UINT32,
    "qwen2.expert_count": UINT32,
    "qwen2.expert_used_count": UINT32,
    "qwen2.expert_group_count": UINT32,
    "qwen2.expert_group_used_count": UINT32,
    "qwen2.rope.dimension_count": UINT32,
    "qwen2.rope.dimension_count_swa": UINT32,
    "qwen2.rope.freq_base": FLOAT32,
    "qwen2.rope.scale_linear": FLOAT32,
    "qwen2.rope.scaling.type": STRING,
    "qwen2.rope.scaling.factor": FLOAT32,
    "qwen2.rope.scaling.attn_factor": FLOAT32,
    "qwen2.rope.scaling.alpha": FLOAT32,
    "qwen2.rope.scaling.original_context_length": UINT32,
    "qwen2.rope.scaling.finetuned": BOOL,
    "qwen2.vocab_size": UINT32,
    "split.no": GGUFValueType.UINT16,
    "split.count": GGUFValueType.UINT16,
    "split.tensors.count": INT32,
    **TOKENIZER_KEY_TYPES,
}


@dataclass(frozen=True)
class TextModelFacts:
    """What the header of a text model says, checked.

    Attributes:
        label: what error messages call the file.
        architecture: always "qwen2".
        n_layers: transformer layers.
        n_embd: width, in values a token.
        n_head: query heads.
        n_head_kv: key and value heads; a divisor of n_head.
        n_ff: inner width of the feed-forward layers.
        n_vocab: tokens.
        n_ctx_train: positions it was trained for.
        file_type: `general.file_type`, llama.cpp's number of the quant; None where the file does not say.
        identity: names in the metadata.
        im_start, im_end, img, img_end, img_context: ids of `<|im_start|>`, `<|im_end|>`, `<img>`, `</img>` and
            `<IMG_CONTEXT>`, looked up by their text.
        eos: id of the token the file names as end of a sequence; None where it names none.
        weight_bytes: bytes of all tensors, of all parts of a split model.
    """

    label: str
    architecture: str
    n_layers: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_vocab: int
    n_ctx_train: int
    file_type: int | None
    identity: Identity
    im_start: int
    im_end: int
    img: int
    img_end: int
    img_context: int
    eos: int | None
    weight_bytes: int

    @property
    def name(self) -> str:
        """`general.name`; empty where the file has none."""
        return self.identity.name

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head


def read_text_headers(path: str | PathLike[str]) -> tuple[GGUFHeader, ...]:
    """The header of a text model and, of a split one (`-00001-of-00003.gguf`), those of its other parts in order.

    Raises:
        ModelFileError: a part is missing, unreadable or damaged, or `path` is not the first part.
    """
    first = read_header(path)
    check_key_types(first, _KEY_TYPES)
    count = first.integer("split.count", 1)
    if count <= 1:
        return (first,)
    stem = re.fullmatch(r"(.*)-00001-of-(\d{5})", Path(path).stem)
    if first.integer("split.no", 0) != 0 or stem is None or int(stem[2]) != count:
        raise refuse(
            first,
            f"it is a part of a model of {count} files, and not the first by number or name",
            f"Name the file ending in -00001-of-{count:05}.gguf; the others must lie beside it.",
        )
    names = (f"{stem[1]}-{index:05}-of-{count:05}.gguf" for index in range(2, count + 1))
    return (first, *(read_header(Path(path).with_name(name)) for name in names))


def validate_text_model(header: GGUFHeader, parts: Sequence[GGUFHeader] = ()) -> TextModelFacts:
    """Check that a header is that of an InternVL3 text model which llama.cpp loads and runs.

    Args:
        header: of the file, or of the first of a split model.
        parts: of the other files of a split model, in order.

    Raises:
        ModelFileError: it is damaged, another kind of model, or lacks what InternVL needs.
    """
    _check_kind(header)
    check_key_types(header, _KEY_TYPES)
    for part in (header, *parts):
        if part.data_offset % _MMAP_ALIGNMENT:
            raise refuse(part, f"its data starts at byte {part.data_offset}, from where llama.cpp cannot map it")
    tensors = _all_tensors(header, parts)
    n_embd = bounded_integer(header, "qwen2.embedding_length", 1, _MAX_WIDTH)
    n_head = bounded_integer(header, "qwen2.attention.head_count", 1, n_embd)
    n_head_kv = bounded_integer(header, "qwen2.attention.head_count_kv", 1, n_head, default=n_head)
    if n_embd % n_head or n_head % n_head_kv or (n_embd // n_head) % 2:
        raise refuse(header, f"{n_head} heads with {n_head_kv} for keys and values do not divide a width of {n_embd}")
    n_layers = bounded_integer(header, "qwen2.block_count", 1, _MAX_LAYERS)
    n_ff = bounded_integer(header, "qwen2.feed_forward_length", 1, _MAX_WIDTH)
    _check_hyperparameters(header, n_embd, n_embd // n_head)
    tokens = check_tokenizer(header)
    ids = special_token_ids(header, tokens)
    kv_width = n_embd // n_head * n_head_kv
    _check_tensors(header, tensors, n_layers=n_layers, width=n_embd, kv_width=kv_width, n_ff=n_ff, n_vocab=len(tokens))
    eos_key = "tokenizer.ggml.eos_token_id"
    return TextModelFacts(
        label=header.label,
        architecture=ARCHITECTURE,
        n_layers=n_layers,
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=n_head_kv,
        n_ff=n_ff,
        n_vocab=len(tokens),
        n_ctx_train=bounded_integer(header, "qwen2.context_length", 1, _MAX_CONTEXT),
        file_type=header.integer("general.file_type") if "general.file_type" in header else None,
        identity=read_identity(header),
        im_start=ids[0],
        im_end=ids[1],
        img=ids[2],
        img_end=ids[3],
        img_context=ids[4],
        eos=header.integer(eos_key) if eos_key in header else None,
        weight_bytes=sum(tensor.n_bytes for tensor in tensors.values()),
    )


def _check_kind(header: GGUFHeader) -> None:
    architecture = header.text("general.architecture")
    if architecture == "clip":
        raise refuse(
            header,
            "it is an mmproj, the vision half of a model",
            "Pass it as --mmproj and name a text GGUF as the model.",
        )
    if architecture != ARCHITECTURE:
        known = _OTHER_MODELS.get(architecture)
        described = f" ({known})" if known else ""
        raise refuse(
            header,
            f'its architecture is "{architecture}"{described}, not the "qwen2" of InternVL3 text models',
            NOT_INTERNVL_HINT,
        )


def _all_tensors(header: GGUFHeader, parts: Sequence[GGUFHeader]) -> Mapping[str, TensorInfo]:
    """The tensors of all parts; what the parts say about the split must agree."""
    count = header.integer("split.count", 1)
    if max(count, 1) != 1 + len(parts):
        raise refuse(header, f"the model consists of {count} files, of which {1 + len(parts)} are here")
    merged: dict[str, TensorInfo] = dict(header.tensors)
    for number, part in enumerate(parts, start=1):
        check_key_types(part, {key: kind for key, kind in _KEY_TYPES.items() if key.startswith("split.")})
        if part.integer("split.no") != number or part.integer("split.count", count) != count:
            raise refuse(part, f"it is not part {number + 1} of {count} of {header.label}")
        if twice := merged.keys() & part.tensors.keys():
            raise refuse(part, f"the tensor {min(twice)} is in another part as well")
        merged |= part.tensors
    if parts and header.integer("split.tensors.count") != len(merged):
        raise refuse(header, f"it promises {header.integer('split.tensors.count')} tensors and has {len(merged)}")
    return merged


def _check_hyperparameters(header: GGUFHeader, n_embd: int, head_dim: int) -> None:
    """Settings that llama.cpp asserts on, or that would make it compute something else than Qwen2.5."""
    bounded_number(header, "qwen2.attention.layer_norm_rms_epsilon", 1e-9, 1e-2)
    bounded_number(header, "qwen2.rope.freq_base", 1.0, 1e12)
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        bounded_integer(header, f"qwen2.{key}", head_dim, head_dim, default=head_dim)
    bounded_integer(header, "qwen2.embedding_length_out", 0, n_embd, default=0)
    if header.integer("qwen2.embedding_length_out", n_embd) not in (0, n_embd):
        raise refuse(header, f"qwen2.embedding_length_out differs from its width of {n_embd}")
    for key in ("expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count"):
        bounded_integer(header, f"qwen2.{key}", 0, 0, default=0)
    bounded_integer(header, "qwen2.nextn_predict_layers", 0, 0, default=0)
    bounded_integer(header, "qwen2.pooling_type", 0, 0, default=0)
    if not header.boolean("qwen2.attention.causal", True):
        raise refuse(header, "its attention is not causal")
    scaling = header.text("qwen2.rope.scaling.type", "none")
    if scaling not in _ROPE_SCALING:
        raise refuse(header, f'its RoPE scaling "{scaling}" is none that Qwen2.5 has')
    for key in ("scale_linear", "scaling.factor", "scaling.attn_factor", "scaling.alpha"):
        bounded_number(header, f"qwen2.rope.{key}", 0.0, 1e4, default=1.0)
    bounded_integer(header, "qwen2.rope.scaling.original_context_length", 1, _MAX_CONTEXT, default=1)


def _check_tensors(
    header: GGUFHeader,
    tensors: Mapping[str, TensorInfo],
    *,
    n_layers: int,
    width: int,
    kv_width: int,
    n_ff: int,
    n_vocab: int,
) -> None:
    """Every tensor of the qwen2 graph with its shape and a type the graph can use, and none besides."""
    vectors: dict[str, int] = {"output_norm.weight": width}
    matrices: dict[str, tuple[int, int]] = {"token_embd.weight": (width, n_vocab)}
    if "output.weight" in tensors:
        matrices["output.weight"] = (width, n_vocab)
    if "output.bias" in tensors:
        vectors["output.bias"] = n_vocab
    for layer in range(n_layers):
        block = f"blk.{layer}"
        vectors[f"{block}.attn_norm.weight"] = vectors[f"{block}.ffn_norm.weight"] = width
        fused = f"{block}.attn_qkv.weight" in tensors
        sizes = {"qkv": width + 2 * kv_width} if fused else {"q": width, "k": kv_width, "v": kv_width}
        for part, rows in sizes.items():
            matrices[f"{block}.attn_{part}.weight"] = (width, rows)
            vectors[f"{block}.attn_{part}.bias"] = rows
        matrices[f"{block}.attn_output.weight"] = (width, width)
        matrices[f"{block}.ffn_gate.weight"] = matrices[f"{block}.ffn_up.weight"] = (width, n_ff)
        matrices[f"{block}.ffn_down.weight"] = (n_ff, width)
    for name in matrices:  # scales of NVFP4 weights lie beside them
        stem = name.removesuffix("weight")
        vectors |= {stem + part: 1 for part in ("scale", "input_scale") if stem + part in tensors}
    for name, shape in matrices.items():
        check_tensor(header, tensors, name, shape, MATRIX_TYPES)
    for name, length in vectors.items():
        check_tensor(header, tensors, name, (length,), VECTOR_TYPES)
    check_all_known(header, tensors, vectors.keys() | matrices.keys(), "a Qwen2.5 model")
