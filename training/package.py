"""Write a checkpoint as the two files of the embedded model, or as the text file of its critic.

python -m training.package runs/tiles.pt src/internvl_gguf/demo
python -m training.package runs/critic.pt src/internvl_gguf/demo --critic src/internvl_gguf/critics
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np

from training.checkpoint import load_model
from training.export_gguf import Metadata, TextShape, TokenizerSpec, VisionShape, export_mmproj, export_text
from training.read_gguf import CRITIC_FILE, TEXT_FILE, VISION_FILE, read
from training.tokenizer import SPECIAL_TOKENS, TOOL_TOKENS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.export_gguf import StorageType
    from training.network import DemoModel
    from training.tokenizer import Tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DESCRIPTION = "A very small InternVL that knows shapes, colours, counts, places, printed numbers and short words."


def tokenizer_spec(tokenizer: Tokenizer) -> TokenizerSpec:
    """The tokenizer as the exporter takes it."""
    kinds = dict.fromkeys(SPECIAL_TOKENS, gguf.TokenType.CONTROL)
    kinds |= dict.fromkeys(TOOL_TOKENS, gguf.TokenType.USER_DEFINED)  # read in any text, as in Qwen2.5
    unused, normal = gguf.TokenType.UNUSED, gguf.TokenType.NORMAL
    types = [kinds.get(token, unused if token.startswith("<unused") else normal) for token in tokenizer.tokens]
    return TokenizerSpec(
        tokens=tuple(tokenizer.tokens), types=tuple(types), merges=tuple(map(" ".join, tokenizer.merges)),
        eos=tokenizer.special("<|im_end|>"), pad=tokenizer.special("<|endoftext|>"), chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


CRITIC_DESCRIPTION = "A critic of the InternVL demo model: behind an answer it writes + or -."


def package(checkpoint: Path, folder: Path) -> tuple[Path, Path]:
    """Write demo-text-BF16.gguf and demo-mmproj-F16.gguf into a folder; returns their paths."""
    model, tokenizer = load_model(checkpoint)
    text, vision = model.text_shape, model.vision_shape
    folder.mkdir(parents=True, exist_ok=True)
    text_path, vision_path = folder / TEXT_FILE, folder / VISION_FILE
    metadata = Metadata(name="InternVL demo", basename="internvl-gguf-demo", description=DESCRIPTION)
    _export_text(text_path, model, tokenizer, metadata, "bf16", tied=False)
    vision_shape = VisionShape(
        image_size=vision.image_size, patch_size=vision.patch_size, width=vision.hidden_size,
        layers=vision.num_hidden_layers, heads=vision.num_attention_heads, ffn=vision.intermediate_size,
        projection=text.hidden_size, norm_eps=vision.layer_norm_eps,
    )  # fmt: skip
    export_mmproj(vision_path, _tensors(model), vision_shape, metadata, "f16")
    return text_path, vision_path


def package_critic(checkpoint: Path, demo: Path, folder: Path) -> Path:
    """Write demo-critic-text-Q8_0.gguf of the model in the folder `demo`; returns its path.

    Raises:
        ValueError: its vision tower or projector is not that of the model in the folder, whose mmproj it is to share.
    """
    model, tokenizer = load_model(checkpoint)
    shipped = read(demo).tensors
    for name, values in _tensors(model).items():
        if "language_model" not in name and "lm_head" not in name and not np.array_equal(values, shipped[name]):
            raise ValueError(f"{name} of {checkpoint} differs from the one in {demo / VISION_FILE}")
    path = folder / CRITIC_FILE
    metadata = Metadata("InternVL demo critic", "internvl-gguf-demo-critic", description=CRITIC_DESCRIPTION)
    _export_text(path, model, tokenizer, metadata, "q8_0", tied=True)
    return path


def _tensors(model: DemoModel) -> dict[str, NDArray[np.float32]]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def _export_text(
    path: Path, model: DemoModel, tokenizer: Tokenizer, metadata: Metadata, dtype: StorageType, *, tied: bool
) -> None:
    text = model.text_shape
    shape = TextShape(
        vocab=text.vocab_size, width=text.hidden_size, layers=text.num_hidden_layers, heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads, ffn=text.intermediate_size, context_length=text.max_position_embeddings,
        tied=tied, rope_theta=text.rope_theta, norm_eps=text.rms_norm_eps,
    )  # fmt: skip
    export_text(path, _tensors(model), shape, tokenizer_spec(tokenizer), metadata, dtype)


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--critic", type=Path, help="folder to write the text file of a critic into, and nothing else")
    args = parser.parse_args()
    if args.critic:
        written: tuple[Path, ...] = (package_critic(args.checkpoint, args.folder, args.critic),)
    else:
        written = package(args.checkpoint, args.folder)
    for path in written:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
