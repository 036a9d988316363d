"""Read the two files of an embedded model back: the state dict, the sizes and the tokenizer that `package` wrote.

    python -m training.read_gguf src/internvl_gguf/demo runs/shipped.pt

The checkpoint is one that `training.train` goes on from, so that training continues from the shipped weights.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

from training.export_gguf import TextShape, TokenizerSpec, VisionShape, state_name
from training.tokenizer import SPECIAL_TOKENS, Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXT_FILE, VISION_FILE = "demo-text-BF16.gguf", "demo-mmproj-F16.gguf"
CRITIC_FILE = "demo-critic-text-Q8_0.gguf"  # the mmproj is the model's


@dataclass(frozen=True)
class Model:
    """What both files hold: tensors under the state dict's names, sizes, and the tokenizer as the exporter takes it."""

    tensors: dict[str, NDArray[np.float32]]
    text: TextShape
    vision: VisionShape
    tokenizer: TokenizerSpec


def read(folder: Path) -> Model:
    """Read demo-text-BF16.gguf and demo-mmproj-F16.gguf of a folder.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: a tensor has a name that the exporter does not write.
    """
    text, vision = gguf.GGUFReader(folder / TEXT_FILE), gguf.GGUFReader(folder / VISION_FILE)
    tensors = {
        state_name(tensor.name): gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        .reshape(tuple(map(int, reversed(tensor.shape))))
        .astype(np.float32)
        for tensor in (*text.tensors, *vision.tensors)
    }
    return Model(tensors, _text_shape(text), _vision_shape(vision), _tokenizer(text))


def training_tokenizer(spec: TokenizerSpec) -> Tokenizer:
    """The tokenizer in the form that training takes."""
    merges = tuple((left, right) for left, right in (merge.split(" ") for merge in spec.merges))
    early = spec.tokens.index(SPECIAL_TOKENS[0]) - 256
    return Tokenizer(merges, len(spec.tokens), early if "<tool_call>" in spec.tokens else None)


def _value(reader: gguf.GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return field.contents() if field else None


def _text_shape(reader: gguf.GGUFReader) -> TextShape:
    names = {tensor.name for tensor in reader.tensors}
    return TextShape(
        vocab=len(_value(reader, "tokenizer.ggml.tokens")), width=_value(reader, "qwen2.embedding_length"),
        layers=_value(reader, "qwen2.block_count"), heads=_value(reader, "qwen2.attention.head_count"),
        kv_heads=_value(reader, "qwen2.attention.head_count_kv"), ffn=_value(reader, "qwen2.feed_forward_length"),
        context_length=_value(reader, "qwen2.context_length"), tied="output.weight" not in names,
        rope_theta=_value(reader, "qwen2.rope.freq_base"),
        norm_eps=float(f"{_value(reader, 'qwen2.attention.layer_norm_rms_epsilon'):.6g}"),
    )  # fmt: skip


def _vision_shape(reader: gguf.GGUFReader) -> VisionShape:
    key = "clip.vision."
    return VisionShape(
        image_size=_value(reader, key + "image_size"), patch_size=_value(reader, key + "patch_size"),
        width=_value(reader, key + "embedding_length"), layers=_value(reader, key + "block_count"),
        heads=_value(reader, key + "attention.head_count"), ffn=_value(reader, key + "feed_forward_length"),
        projection=_value(reader, key + "projection_dim"),
        norm_eps=float(f"{_value(reader, key + 'attention.layer_norm_epsilon'):.6g}"),
    )  # fmt: skip


def _tokenizer(reader: gguf.GGUFReader) -> TokenizerSpec:
    key = "tokenizer.ggml."
    return TokenizerSpec(
        tokens=tuple(_value(reader, key + "tokens")), types=tuple(_value(reader, key + "token_type")),
        merges=tuple(_value(reader, key + "merges")), eos=_value(reader, key + "eos_token_id"),
        pad=_value(reader, key + "padding_token_id"), chat_template=_value(reader, "tokenizer.chat_template"),
    )  # fmt: skip


def main() -> None:
    """Read the command line and write the checkpoint."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("checkpoint", type=Path)
    args = parser.parse_args()
    model = read(args.folder)
    tokenizer = training_tokenizer(model.tokenizer)
    weights = {name: torch.from_numpy(values) for name, values in model.tensors.items()}
    state = {
        "net": weights, "average": weights, "merges": tokenizer.merges, "size": tokenizer.size,
        "early": tokenizer.early, "layers": model.text.layers, "step": 0,
    }  # fmt: skip
    torch.save(state, args.checkpoint)


if __name__ == "__main__":
    main()
