"""Validate the header of a text model: a known architecture with InternVL's special tokens.

The checks cover everything that llama.cpp's loader and graphs (`llama-model.cpp`, `models/qwen*.cpp`, `llama-vocab.cpp`
at the revision in llama-cpp-python 0.3.36) assert, dereference or accept silently. The keys and tensors of each
architecture are in `gguf.arch`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from internvl_gguf.gguf.arch import KNOWN_ARCHITECTURES, TEXT_ARCHITECTURES
from internvl_gguf.gguf.arch.base import Key, TextShape, vector
from internvl_gguf.gguf.arch.text_architecture import TextArchitecture
from internvl_gguf.gguf.file_kind import refuse_matrix
from internvl_gguf.gguf.header import GGUFHeader, TensorInfo, read_header
from internvl_gguf.gguf.validation.checks import (
    GENERAL_KEYS,
    Identity,
    check_all_known,
    check_key_types,
    check_keys,
    check_tensors,
    read_identity,
)
from internvl_gguf.gguf.validation.tokenizer import (
    GROUNDING_TOKENS,
    NOT_INTERNVL_HINT,
    THINKING_TOKENS,
    TOKENIZER_KEYS,
    begins_with_space,
    check_tokenizer,
    first_token_id,
    special_token_ids,
    whole_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

_MMAP_ALIGNMENT: Final = 32  # of ggml's CPU buffers; a file aligned to only 8 or 16 bytes aborts

_OTHER_MODELS: Final = {
    "qwen2vl": "Qwen2.5-VL",
    "qwen3vl": "Qwen3-VL",
    "gpt-oss": "GPT-OSS, the text model of InternVL3.5-20B-A4B",
}
_OF_THE_FAMILY: Final = frozenset({"gpt-oss"})
_OTHER_SIZE_HINT: Final = "Use another size of InternVL; docs/models.md lists those that run."

_SPLIT_KEYS: Final = {"split.no": Key("UINT16"), "split.count": Key("UINT16"), "split.tensors.count": Key("INT32")}
_FILE_KEYS: Final = {**GENERAL_KEYS, **_SPLIT_KEYS, **TOKENIZER_KEYS}


@dataclass(frozen=True, kw_only=True)
class TextModelFacts(TextShape):
    """Checked facts in the header of a text model: its sizes, and the following.

    Attributes:
        label: what error messages call the file.
        n_vocab, n_ctx_train: as those of `TextShape`, always known.
        file_type: `general.file_type`, llama.cpp's number of the quant; None where the file does not say.
        identity: names in the metadata.
        im_start, im_end, img, img_end, img_context: ids of `<|im_start|>`, `<|im_end|>`, `<img>`, `</img>` and
            `<IMG_CONTEXT>`, looked up by their text.
        eos: id of the token the file names as end of a sequence; None where it names none.
        weight_bytes: bytes of all tensors, of all parts of a split model.
        grounding: names and ids of `<ref>`, `</ref>`, `<box>` and `</box>`; none where the vocabulary lacks one.
        thinking: names and ids of `<think>` and `</think>`; none where the vocabulary lacks one.
        bos: id of the token that every prompt begins with; None where none does.
        strips_space: whether the vocabulary spells the beginning of every text with a space, which is no part of it.
        longest_token: bytes of the longest token as the vocabulary spells it, which no token's text is longer than.
    """

    label: str
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
    longest_token: int
    grounding: tuple[tuple[str, int], ...] = ()
    bos: int | None = None
    strips_space: bool = False
    thinking: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """`general.name`; empty where the file has none."""
        return self.identity.name


def read_text_headers(path: str | PathLike[str]) -> tuple[GGUFHeader, ...]:
    """Read the header of a text model and, if it is split (`-00001-of-00003.gguf`), those of its other parts in order.

    Raises:
        ModelFileError: a part is missing, unreadable or damaged, or `path` is not the first part.
    """
    first = read_header(path)
    check_key_types(first, _FILE_KEYS)
    count = first.integer("split.count", 1)
    if count <= 1:
        return (first,)
    stem = re.fullmatch(r"(.*)-00001-of-(\d{5})", Path(path).stem)
    if first.integer("split.no", 0) != 0 or stem is None or int(stem[2]) != count:
        raise first.error(
            f"it is a part of a model of {count} files, and not the first by number or name",
            f"Name the file ending in -00001-of-{count:05}.gguf; the others must lie beside it.",
        )
    names = (f"{stem[1]}-{index:05}-of-{count:05}.gguf" for index in range(2, count + 1))
    return (first, *(read_header(Path(path).with_name(name)) for name in names))


def validate_text_model(header: GGUFHeader, parts: Sequence[GGUFHeader] = ()) -> TextModelFacts:
    """Check that a header is that of an InternVL text model which llama.cpp loads and runs.

    Args:
        header: header of the file, or of the first part of a split model.
        parts: headers of the other parts of a split model, in order.

    Raises:
        ModelFileError: it is damaged, another kind of model, or lacks what InternVL needs.
    """
    architecture = _architecture(header)
    check_key_types(header, {**_FILE_KEYS, **architecture.size_keys})
    for part in (header, *parts):
        if part.data_offset % _MMAP_ALIGNMENT:
            raise part.error(f"its data starts at byte {part.data_offset}, from where llama.cpp cannot map it")
    tensors = _all_tensors(header, parts)
    tokens = check_tokenizer(header, architecture)
    shape = architecture.read_shape(header, len(tokens))
    check_keys(header, architecture.setting_keys(shape))
    ids = special_token_ids(header, tokens, architecture)
    _check_rows(header, tensors, len(tokens))
    _check_tensors(header, tensors, architecture, shape)
    eos_key = "tokenizer.ggml.eos_token_id"
    return TextModelFacts(
        **shape.sizes,
        label=header.label,
        file_type=header.integer("general.file_type") if "general.file_type" in header else None,
        identity=read_identity(header),
        im_start=ids[0],
        im_end=ids[1],
        img=ids[2],
        img_end=ids[3],
        img_context=ids[4],
        eos=header.integer(eos_key) if eos_key in header else None,
        weight_bytes=sum(tensor.n_bytes for tensor in tensors.values()),
        longest_token=max(map(len, tokens)),
        grounding=whole_tokens(header, tokens, GROUNDING_TOKENS),
        thinking=whole_tokens(header, tokens, THINKING_TOKENS),
        bos=first_token_id(header, architecture),
        strips_space=begins_with_space(header, architecture),
    )


def has_thinking_tokens(header: GGUFHeader) -> bool:
    """Return whether the vocabulary of a text model has `<think>` and `</think>`.

    Raises:
        ModelFileError: it is damaged, or no text model of the family.
    """
    tokens = check_tokenizer(header, _architecture(header))
    return bool(whole_tokens(header, tokens, THINKING_TOKENS))


def _architecture(header: GGUFHeader) -> TextArchitecture:
    refuse_matrix(header)
    name = header.text("general.architecture")
    if name == "clip":
        raise header.error(
            "it is an mmproj, the vision half of a model",
            "Pass it as --mmproj and name a text GGUF as the model.",
        )
    if name not in TEXT_ARCHITECTURES:
        known = _OTHER_MODELS.get(name)
        described = f" ({known})" if known else ""
        raise header.error(
            f'its architecture is "{name}"{described}, not {KNOWN_ARCHITECTURES} as in InternVL text models',
            _OTHER_SIZE_HINT if name in _OF_THE_FAMILY else NOT_INTERNVL_HINT,
        )
    return TEXT_ARCHITECTURES[name]


def _all_tensors(header: GGUFHeader, parts: Sequence[GGUFHeader]) -> Mapping[str, TensorInfo]:
    """Return the tensors of all parts, after checking that the parts agree about the split."""
    count = header.integer("split.count", 1)
    if max(count, 1) != 1 + len(parts):
        raise header.error(f"the model consists of {count} files, of which {1 + len(parts)} are here")
    merged: dict[str, TensorInfo] = dict(header.tensors)
    for number, part in enumerate(parts, start=1):
        check_key_types(part, _SPLIT_KEYS)
        if part.integer("split.no") != number or part.integer("split.count", count) != count:
            raise part.error(f"it is not part {number + 1} of {count} of {header.label}")
        if twice := merged.keys() & part.tensors.keys():
            raise part.error(f"the tensor {min(twice)} is in another part as well")
        merged |= part.tensors
    if parts and header.integer("split.tensors.count") != len(merged):
        raise header.error(f"it promises {header.integer('split.tensors.count')} tensors and has {len(merged)}")
    return merged


def _check_rows(header: GGUFHeader, tensors: Mapping[str, TensorInfo], n_vocab: int) -> None:
    """Check that the embedding table has a row for each token; some converters pad or cut one of the two alone."""
    table = tensors.get("token_embd.weight")
    rows = table.trimmed_shape[-1] if table and len(table.trimmed_shape) == 2 else n_vocab
    if rows != n_vocab:
        done = "padded" if n_vocab > rows else "cut"
        raise header.error(
            f"its vocabulary of {n_vocab:,} tokens was {done}: its embedding table has {rows:,} rows",
            "Take the file from another repository, or convert the model again.",
        )


def _check_tensors(
    header: GGUFHeader, tensors: Mapping[str, TensorInfo], architecture: TextArchitecture, shape: TextShape
) -> None:
    """Check that every tensor of the graph is present with its shape and a usable type, and no other tensor."""
    known = check_tensors(header, tensors, architecture.tensors(shape, tensors))
    scales = [vector(name, length) for name, length in _scales(tensors, known) if name in tensors]
    known |= check_tensors(header, tensors, scales)
    check_all_known(header, tensors, known, f"a text model of {architecture.title}")


def _scales(tensors: Mapping[str, TensorInfo], names: set[str]) -> Iterator[tuple[str, int]]:
    """Return names and lengths of the scales that may accompany NVFP4 weights; each expert has one of its own."""
    for name in names:
        if name.endswith(".weight"):
            shape = tensors[name].trimmed_shape
            length = shape[2] if len(shape) > 2 else 1
            yield from ((name.removesuffix("weight") + part, length) for part in ("scale", "input_scale"))
