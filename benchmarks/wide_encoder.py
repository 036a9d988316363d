"""InternViT-6B through both encoders: embeddings at its full width and depth against the published formulas.

llama.cpp knows InternViT-6B by its 45 layers of width 3200 alone, so no small fixture has its RMS norms. Here it has
random weights, full width and depth, a narrow feed-forward layer and a small tile, which leaves 3.7 GB in F16. numpy
computes the expected embeddings in double precision from the stored weights, one layer after another.

    python benchmarks/wide_encoder.py FOLDER

FOLDER gets the files, which are kept and used again. Each encoder runs in a process of its own. OpenVINO holds every
weight in the bytes of its arithmetic, twice while it compiles, which in float32 is 15 GB; so it computes nine layers in
that.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import quants

from internvl_gguf import Session
from internvl_gguf.gguf.arch.base import VisionShape
from internvl_gguf.gguf.header import GGUFHeader, read_header
from internvl_gguf.gguf.validation import validate_mmproj
from internvl_gguf.vision.openvino_encoder import OpenVINOEncoder
from model_headers import ALIGNMENT, TEXT, mmproj_header, mmproj_tensors, text_header, text_tensors, write_sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

SHAPE = VisionShape(45, 3200, 25, 256, 112, 14, 16, "rmsnorm")
PROJECTION = 896
EPSILON, PROJECTOR_EPSILON = 1e-6, 1e-5
FEW_LAYERS = 9
WHOLE: dict[str, dict[str, Any]] = {
    "llama.cpp": {"encoder": "llama.cpp"},
    "OpenVINO, bfloat16": {"encoder": "openvino", "encoder_precision": "bf16"},
}
OF_FEW_LAYERS = "OpenVINO, float32"


def write_files(folder: Path) -> tuple[Path, Path]:
    """Write a text model without weights and the mmproj, unless they are there."""
    text, mmproj = folder / "text.gguf", folder / "mmproj.gguf"
    if not mmproj.exists():
        shape = replace(TEXT["0.5B"], n_layers=2, n_vocab=4096)  # that has no encoder of its own
        write_sparse(text, text_header(shape, "F16"), text_tensors(shape, "F16"))
        part = mmproj.with_suffix(".part")
        _write_mmproj(part)
        part.rename(mmproj)
    return text, mmproj


def _write_mmproj(path: Path) -> None:
    random = np.random.default_rng(1)
    with path.open("wb") as stream:
        stream.write(mmproj_header(SHAPE, "F16", PROJECTION))
        for name, shape, kind in mmproj_tensors(SHAPE, "F16", PROJECTION):
            values = random.standard_normal(tuple(reversed(shape)), dtype=np.float32)
            if ".ls" in name:
                values = 0.5 + 0.1 * values
            elif name.endswith("norm.weight") or ".ln" in name or name == "mm.model.mlp.0.weight":
                values = 1 + 0.2 * values
            elif name.endswith("bias"):
                values = 0.2 * values
            elif name not in ("v.class_embd", "v.position_embd.weight"):
                values *= np.float32(1 / math.sqrt(math.prod(shape[:-1])))
            stream.write(quants.quantize(values, kind).tobytes())
            stream.write(bytes(-stream.tell() % ALIGNMENT))


class Reference:
    """InternViT-6B and its projector (`modeling_intern_vit.py`, `modeling_internvl_chat.py`), in float64."""

    def __init__(self, path: Path, header: GGUFHeader) -> None:
        self._data = np.memmap(path, np.uint8, "r")
        self._tensors = header.tensors

    def embeddings(self, pixels: NDArray[np.uint8], layers: int) -> Values:
        """Embeddings [tokens_per_tile, projection] of a tile [side, side, 3] by the first layers."""
        side, patch = SHAPE.patches_per_side, SHAPE.patch_size
        normalised = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
        cut = normalised.reshape(side, patch, side, patch, 3).transpose(0, 2, 4, 1, 3).reshape(side * side, -1)
        patches = cut @ self._values("v.patch_embd.weight").reshape(SHAPE.n_embd, -1).T
        patches = patches + self._values("v.patch_embd.bias")
        hidden = np.concatenate([self._values("v.class_embd").reshape(1, -1), patches])
        hidden = hidden + self._values("v.position_embd.weight").reshape(hidden.shape)
        for layer in range(layers):
            name = f"v.blk.{layer}"
            attended = self._attention(self._normed(hidden, f"{name}.ln1"), name)
            hidden = hidden + attended * self._values(f"{name}.ls1.weight")
            inner = gelu(self._linear(self._normed(hidden, f"{name}.ln2"), f"{name}.ffn_up"))
            hidden = hidden + self._linear(inner, f"{name}.ffn_down") * self._values(f"{name}.ls2.weight")
        grid = hidden[1:].reshape(side // 2, 2, side // 2, 2, SHAPE.n_embd)
        merged = grid.transpose(0, 2, 1, 3, 4).reshape(SHAPE.tokens_per_tile, -1)
        centred = merged - merged.mean(axis=-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + PROJECTOR_EPSILON)
        normed = normed * self._values("mm.model.mlp.0.weight") + self._values("mm.model.mlp.0.bias")
        return self._linear(gelu(self._linear(normed, "mm.model.mlp.1")), "mm.model.mlp.3")

    def _attention(self, hidden: Values, name: str) -> Values:
        query, key, value = (self._linear(hidden, f"{name}.attn_{part}") for part in "qkv")
        query, key = self._normed(query, f"{name}.attn_q_norm"), self._normed(key, f"{name}.attn_k_norm")
        heads = (each.reshape(len(hidden), SHAPE.n_head, -1).swapaxes(0, 1) for each in (query, key, value))
        query, key, value = heads
        scores = query @ key.swapaxes(1, 2) / math.sqrt(SHAPE.head_dim)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = shares / shares.sum(axis=-1, keepdims=True) @ value
        return self._linear(attended.swapaxes(0, 1).reshape(len(hidden), -1), f"{name}.attn_out")

    def _normed(self, hidden: Values, name: str) -> Values:
        root = np.sqrt((hidden**2).mean(axis=-1, keepdims=True) + EPSILON)
        return np.asarray(hidden / root * self._values(f"{name}.weight"))

    def _linear(self, hidden: Values, name: str) -> Values:
        product = hidden @ self._values(f"{name}.weight").T
        return np.asarray(product + self._values(f"{name}.bias") if f"{name}.bias" in self._tensors else product)

    def _values(self, name: str) -> Values:
        tensor = self._tensors[name]
        stored = self._data[tensor.offset : tensor.offset + tensor.n_bytes]
        values = quants.dequantize(stored, tensor.type).reshape(tuple(reversed(tensor.shape)))
        return np.asarray(values, dtype=np.float64)


def gelu(hidden: Values) -> Values:
    """GELU by the error function."""
    return np.asarray(0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))))


def picture() -> NDArray[np.uint8]:
    """One tile of smooth colours and noise, uint8 [side, side, 3]."""
    side = SHAPE.image_size
    rows, columns = np.mgrid[0:side, 0:side]
    waves = np.stack([127 + 90 * np.sin(rows / 9), 127 + 90 * np.cos(columns / 7), (rows + columns) % 256], axis=-1)
    noise = np.random.default_rng(2).normal(0, 12, (side, side, 3))
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def encode(text: Path, mmproj: Path, name: str) -> None:
    """Write the embeddings of the picture by one encoder beside the mmproj."""
    if name == OF_FEW_LAYERS:
        header = read_header(mmproj)
        facts = replace(validate_mmproj(header), n_layers=FEW_LAYERS)
        encoder = OpenVINOEncoder(mmproj, header, facts, precision="f32", n_threads=2, keep=False)
        np.save(_kept(mmproj, name), encoder.encode([picture().tobytes()])[0])
        return
    with Session.open(
        text, mmproj, n_gpu_layers=0, n_ctx=256, n_threads=2, embedding_disk_bytes=0, **WHOLE[name]
    ) as session:
        np.save(_kept(mmproj, name), session.embed_image(picture(), max_tiles=1)[0])


def _kept(mmproj: Path, name: str) -> Path:
    return mmproj.with_name(f"{name.replace(' ', '-').replace(',', '')}.npy")


def main() -> None:
    """Encode with each encoder and print how far it is from the expected embeddings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    text, mmproj = write_files(arguments.folder)
    if arguments.child:
        encode(text, mmproj, arguments.child)
        return
    reference = Reference(mmproj, read_header(mmproj))
    print("| encoder | layers | relative error | worst visual token |\n|---|---|---|---|")
    for names, layers in ((list(WHOLE), SHAPE.n_layers), ([OF_FEW_LAYERS], FEW_LAYERS)):
        expected = reference.embeddings(picture(), layers)
        for name in names:
            subprocess.run([sys.executable, __file__, str(arguments.folder), "--child", name], check=True)
            error = np.load(_kept(mmproj, name)) - expected
            whole = np.linalg.norm(error) / np.linalg.norm(expected)
            worst = (np.linalg.norm(error, axis=1) / np.linalg.norm(expected, axis=1)).max()
            print(f"| {name} | {layers} | {whole:.1e} | {worst:.1e} |", flush=True)


if __name__ == "__main__":
    main()
