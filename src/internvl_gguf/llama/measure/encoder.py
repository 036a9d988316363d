"""Measure the seconds of a tile in each precision of the vision encoder, on the device it would run on.

    python -m internvl_gguf.llama.measure.encoder F16 BF16 F32

The encoder is one block of InternViT-300M's shape over a 448-pixel tile, with random weights: the matrices of the type
in question are nearly all of a real encoder's work. It runs as a child process: a device that lacks a type may abort.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType

from internvl_gguf.gguf.arch.base import MmprojShape
from internvl_gguf.gguf.arch.internvit import tile_operations
from internvl_gguf.hardware.cores import default_threads
from internvl_gguf.llama.library import has_gpu
from internvl_gguf.llama.measure.timing import Timing, time_repeatedly
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.synthetic import write_encoder, write_vocabulary
from internvl_gguf.llama.vision import VisionEncoder

_SHAPE = MmprojShape(
    n_layers=1, n_embd=1024, n_head=16, n_ff=4096, image_size=448, patch_size=14, tokens_per_tile=256, norm="layernorm",
    projection_dim=1024, projector_hidden=1024,
)  # fmt: skip
BLOCK_OPERATIONS = tile_operations(_SHAPE)
"""Operations of a tile through that encoder."""


def write_block(path: Path, kind: GGMLQuantizationType) -> None:
    """Write an mmproj of one block with random weights, its matrices of one type."""
    random = np.random.default_rng(3)
    names = {f"v.blk.0.attn_{part}.weight": (1024, 1024) for part in ("q", "k", "v", "out")}
    names |= {"v.blk.0.ffn_up.weight": (4096, 1024), "v.blk.0.ffn_down.weight": (1024, 4096)}
    names |= {"mm.model.mlp.1.weight": (1024, 4096), "mm.model.mlp.3.weight": (1024, 1024)}
    weights = {name: 0.02 * random.standard_normal(sizes, dtype=np.float32) for name, sizes in names.items()}
    write_encoder(path, _SHAPE, weights, kind)


def encoder_timing(kind: GGMLQuantizationType, n_threads: int, *, use_gpu: bool) -> Timing:
    """Time one tile through one block and the projector, with `n_threads` CPU threads."""
    with tempfile.TemporaryDirectory(prefix="internvl-speed-") as folder:
        text, mmproj = Path(folder, "text.gguf"), Path(folder, "mmproj.gguf")
        write_vocabulary(text, _SHAPE.projection_dim)
        write_block(mmproj, kind)
        with (
            TextModel(text, vocab_only=True) as model,
            VisionEncoder(
                mmproj,
                model,
                tile_size=_SHAPE.image_size,
                tokens_per_tile=_SHAPE.tokens_per_tile,
                n_embd=_SHAPE.projection_dim,
                use_gpu=use_gpu,
                n_threads=n_threads,
            ) as encoder,
        ):
            tile = [bytes(3 * _SHAPE.image_size**2)]
            return time_repeatedly(lambda: encoder.encode(tile), 0 if use_gpu else n_threads)


def main() -> None:
    """Print one JSON line for each precision named on the command line, as soon as it is measured."""
    n_threads = default_threads()
    for label in sys.argv[1:]:
        timing = encoder_timing(GGMLQuantizationType[label], n_threads, use_gpu=has_gpu())
        print(json.dumps({label: timing.median}), flush=True)


if __name__ == "__main__":
    main()
