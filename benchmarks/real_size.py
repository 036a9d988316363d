"""A pair of files of real size for benchmarks: text of a Qwen2.5 0.5B, vision of an InternViT-300M, as in InternVL3 1B.

No InternVL3 is needed for that: speed and memory do not depend on what the weights say. The text model is a published
Qwen2.5 0.5B in GGUF, of any quant, with nine of its padding tokens renamed to InternVL's; without one it is zeros of
that shape, whose answers are one token over and over. The vision encoder has random weights of a trained model's size
and fits the text model's width. Both load in this package and in llama.cpp's tools.

    python benchmarks/real_size.py FOLDER [--text QWEN.gguf] [--shape 0.5B] [--precision F16] [--quick]

FOLDER/text.gguf and FOLDER/mmproj.gguf (0.6 GB) are written; other benchmarks take them with --model FOLDER/text.gguf.
--quick makes both with one layer, and zeros for a few thousand tokens. The last line of the output is one JSON
document.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gguf import GGUFValueType, TokenType

import model_headers as headers
from internvl_gguf.gguf.arch.base import VisionShape
from internvl_gguf.gguf.header import GGUFArray, GGUFHeader, GGUFValue, read_header
from internvl_gguf.gguf.values import SCALAR_CODES
from speed_estimates import write_random

TEXT, VISION = headers.TEXT["0.5B"], headers.VISION["InternViT-300M"]
QUICK_TEXT, QUICK_VISION = replace(TEXT, n_layers=1, n_vocab=4096), replace(VISION, n_layers=1)
QUANT = "Q4_K_M"  # of zeros
FIRST_PADDING = 151_665  # of Qwen2.5's vocabulary
TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
NAMES, KINDS, TEMPLATE = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.chat_template"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_text(path: Path, source: Path) -> Path:
    """Copy a Qwen2.5 in GGUF, with InternVL's tokens in the place of padding."""
    header = read_header(source)
    width = header.integer("qwen2.embedding_length")
    if width != TEXT.n_embd:
        raise SystemExit(f"{source.name} has embeddings of {width}, not {TEXT.n_embd}: no Qwen2.5 0.5B.")
    names, kinds = _items(header, NAMES).raw_strings(), list(_items(header, KINDS).numbers())
    last = FIRST_PADDING + len(TOKENS)
    names[FIRST_PADDING:last] = [token.encode() for token in TOKENS]
    kinds[FIRST_PADDING:last] = [TokenType.CONTROL] * len(TOKENS)
    strings = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    changed = {
        NAMES: _array(GGUFValueType.STRING, len(names), strings),
        KINDS: _array(GGUFValueType.INT32, len(kinds), struct.pack(f"<{len(kinds)}i", *kinds)),
    }
    with path.open("wb") as target, source.open("rb") as weights:
        target.write(_with_keys(header, changed))
        weights.seek(header.data_offset)
        shutil.copyfileobj(weights, target, 2**24)
    return path


def write_zero_text(path: Path, shape: headers.PublishedText) -> Path:
    """Zeros, which take no room on the disk; llama.cpp's tools want a chat template."""
    headers.write_sparse(path, headers.text_header(shape, QUANT), headers.text_tensors(shape, QUANT))
    header = read_header(path)
    template = GGUFValue(GGUFValueType.STRING, CHATML.encode())
    return headers.write_sparse(path, _with_keys(header, {TEMPLATE: template}), headers.text_tensors(shape, QUANT))


def write_mmproj(path: Path, precision: str, shape: VisionShape, projection: int) -> Path:
    """A vision encoder with random weights for a text model of this width."""
    tensors = headers.mmproj_tensors(shape, precision, projection)
    return write_random(path, headers.mmproj_header(shape, precision, projection), tensors)


def _items(header: GGUFHeader, key: str) -> GGUFArray:
    value = header.key_values[key].value
    if not isinstance(value, GGUFArray) or value.count < FIRST_PADDING + len(TOKENS):
        raise SystemExit(f"{header.label} has no padding tokens to rename in {key}.")
    return value


def _array(kind: GGUFValueType, count: int, data: bytes) -> GGUFValue:
    return GGUFValue(GGUFValueType.ARRAY, GGUFArray(kind, count, memoryview(data)))


def _with_keys(header: GGUFHeader, changed: Mapping[str, GGUFValue]) -> bytes:
    """The bytes of a header with some key-values changed or added, padding included."""
    keys = {**header.key_values, **changed}
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(header.tensors), len(keys))]
    for name, value in keys.items():
        parts += [_string(name.encode()), struct.pack("<I", value.type), _value(value)]
    for tensor in header.tensors.values():
        parts += [_string(tensor.name.encode()), struct.pack("<I", len(tensor.shape))]
        parts.append(struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape))
        parts.append(struct.pack("<IQ", tensor.type, tensor.offset - header.data_offset))
    data = b"".join(parts)
    return data + bytes(-len(data) % header.alignment)


def _value(value: GGUFValue) -> bytes:
    content = value.value
    if isinstance(content, GGUFArray):
        return struct.pack("<IQ", content.item_type, content.count) + bytes(content.data)
    if isinstance(content, bytes):
        return _string(content)
    return struct.pack(f"<{SCALAR_CODES[value.type]}", content)


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where both files go")
    parser.add_argument("--text", type=Path, help="a Qwen2.5 0.5B in GGUF; zeros if left out")
    parser.add_argument("--shape", choices=tuple(headers.TEXT), default=TEXT.name, help="of the text model of zeros")
    parser.add_argument("--precision", choices=("F16", "BF16"), default="F16", help="of the vision encoder's matrices")
    parser.add_argument("--quick", action="store_true", help="one layer each, few tokens, to see that it runs")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.text and arguments.shape != TEXT.name:
        parser.error("--shape is for zeros; --text has a shape of its own")
    whole = headers.TEXT[arguments.shape], VISION
    text_shape, vision_shape = (QUICK_TEXT, QUICK_VISION) if arguments.quick else whole
    text = folder / "text.gguf"
    text = write_text(text, arguments.text) if arguments.text else write_zero_text(text, text_shape)
    mmproj = write_mmproj(folder / "mmproj.gguf", arguments.precision, vision_shape, text_shape.n_embd)
    for path in (text, mmproj):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    sizes = {"text_bytes": text.stat().st_size, "mmproj_bytes": mmproj.stat().st_size}
    print(json.dumps({"benchmark": "real_size", "text": str(text), "mmproj": str(mmproj), **sizes}))


if __name__ == "__main__":
    main()
