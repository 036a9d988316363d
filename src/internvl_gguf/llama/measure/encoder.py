"""How long a tile takes in each precision of the vision encoder, measured on the device it would run on.

    python -m internvl_gguf.llama.measure.encoder F16 BF16 F32

One block of InternViT-300M's shape over a 448-pixel tile, with random weights: the matrices whose type is in question
are nearly all of a real encoder's work. Run as a process of its own, since a device that lacks a type may abort.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType

from internvl_gguf.gguf.encoder_flops import encoder_operations
from internvl_gguf.hardware.cores import default_threads
from internvl_gguf.llama.library import has_gpu
from internvl_gguf.llama.measure.timing import Timing, timed
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.synthetic import EncoderShape, write_encoder, write_vocabulary
from internvl_gguf.llama.vision import VisionEncoder

_SHAPE = EncoderShape(tile=448, patch=14, width=1024, heads=16, feed_forward=4096, projection=1024)
BLOCK_OPERATIONS = encoder_operations(
    n_layers=1,
    width=_SHAPE.width,
    n_ff=_SHAPE.feed_forward,
    patches=(_SHAPE.tile // _SHAPE.patch) ** 2,
    patch_size=_SHAPE.patch,
    merged=_SHAPE.merged // _SHAPE.width,
    hidden=_SHAPE.projection,
    n_embd=_SHAPE.projection,
)
"""Operations of a tile through that encoder."""


def encoder_timing(kind: GGMLQuantizationType, n_threads: int, *, use_gpu: bool) -> Timing:
    """Seconds of one tile through one block and the projector, with so many CPU threads."""
    random = np.random.default_rng(3)
    names = {f"v.blk.0.attn_{part}.weight": (1024, 1024) for part in ("q", "k", "v", "out")}
    names |= {"v.blk.0.ffn_up.weight": (4096, 1024), "v.blk.0.ffn_down.weight": (1024, 4096)}
    names |= {"mm.model.mlp.1.weight": (1024, 4096), "mm.model.mlp.3.weight": (1024, 1024)}
    weights = {name: 0.02 * random.standard_normal(sizes, dtype=np.float32) for name, sizes in names.items()}
    with tempfile.TemporaryDirectory(prefix="internvl-speed-") as folder:
        text, mmproj = Path(folder, "text.gguf"), Path(folder, "mmproj.gguf")
        write_vocabulary(text, _SHAPE.projection)
        write_encoder(mmproj, _SHAPE, weights, kind)
        with (
            TextModel(text, vocab_only=True) as model,
            VisionEncoder(
                mmproj,
                model,
                tile_size=_SHAPE.tile,
                tokens_per_tile=_SHAPE.visual_tokens,
                n_embd=_SHAPE.projection,
                use_gpu=use_gpu,
                n_threads=n_threads,
            ) as encoder,
        ):
            tile = [bytes(3 * _SHAPE.tile**2)]
            return timed(lambda: encoder.encode(tile), 0 if use_gpu else n_threads)


def main() -> None:
    """Print one JSON line for each precision named on the command line, as soon as it is measured."""
    n_threads = default_threads()
    for label in sys.argv[1:]:
        timing = encoder_timing(GGMLQuantizationType[label], n_threads, use_gpu=has_gpu())
        print(json.dumps({label: timing.median}), flush=True)


if __name__ == "__main__":
    main()
