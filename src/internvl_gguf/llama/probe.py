"""Does the installed llama.cpp give every patch of an InternVL tile the position embedding of its neighbour?

Asked of the library itself, with a model whose right answer can be computed by hand: an InternViT whose one block
adds nothing, over a black tile, so that the encoder's output is the position rows it used, sent through the pixel
unshuffle and the projector. Fractions of a second, once for each build of the library.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from internvl_gguf.errors import LibraryError
from internvl_gguf.kept import POSITION_PROBE
from internvl_gguf.llama.library import build
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.synthetic import EncoderShape, write_encoder, write_vocabulary
from internvl_gguf.llama.vision import VisionEncoder
from internvl_gguf.paths import making_temporary

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHAPE = EncoderShape(tile=16, patch=4, width=32, heads=1, feed_forward=32, projection=32)
_TILE, _WIDTH, _TEXT_WIDTH, _MERGED = _SHAPE.tile, _SHAPE.width, _SHAPE.projection, _SHAPE.merged
_SIDE = _TILE // _SHAPE.patch
_TOLERANCE = 0.01  # relative; the two candidate answers are further than 0.5 apart


def positions_are_shifted() -> bool:
    """Whether position rows must be rolled for this build; remembered by build.

    Raises:
        LibraryError: the library computes neither the right nor the known wrong answer.
    """
    with contextlib.suppress(KeyError, TypeError):
        known = POSITION_PROBE.read()
        if known["build"] == build():
            return bool(known["positions_are_shifted"])
    shifted = probe()
    POSITION_PROBE.write({"build": build(), "positions_are_shifted": shifted})
    return shifted


def probe() -> bool:
    """Ask the library, whatever is remembered. See `positions_are_shifted`."""
    random = np.random.default_rng(7)
    weights = {
        "v.position_embd.weight": random.standard_normal((1 + _SIDE * _SIDE, _WIDTH), dtype=np.float32),
        "mm.model.mlp.1.weight": random.standard_normal((_TEXT_WIDTH, _MERGED), dtype=np.float32)
        / np.float32(_MERGED**0.5),
        "mm.model.mlp.3.weight": random.standard_normal((_TEXT_WIDTH, _TEXT_WIDTH), dtype=np.float32)
        / np.float32(_TEXT_WIDTH**0.5),
    }
    with making_temporary():
        temporary = tempfile.TemporaryDirectory(prefix="internvl-probe-")
    with temporary as folder:
        text, mmproj = Path(folder, "text.gguf"), Path(folder, "mmproj.gguf")
        write_vocabulary(text, _TEXT_WIDTH)
        write_encoder(mmproj, _SHAPE, weights)
        model = TextModel(text, vocab_only=True)
        try:
            encoder = VisionEncoder(
                mmproj,
                model,
                tile_size=_TILE,
                tokens_per_tile=_SIDE * _SIDE // 4,
                n_embd=_TEXT_WIDTH,
                use_gpu=False,
                n_threads=1,
            )
            try:
                measured = encoder.encode([bytes(_TILE * _TILE * 3)])[0]
            finally:
                encoder.close()
        finally:
            model.close()
    right, shifted = (_expected(weights, first_row) for first_row in (1, 0))
    for answer, candidate in ((False, right), (True, shifted)):
        if np.linalg.norm(measured - candidate) < _TOLERANCE * np.linalg.norm(candidate):
            return answer
    raise LibraryError(
        f"The installed llama.cpp ({build()}) encodes InternVL pictures in a way this package does not know.",
        "Install the matching build: pip install llama-cpp-python==0.3.36",
    )


def _expected(weights: dict[str, NDArray[np.float32]], first_row: int) -> NDArray[np.float32]:
    """The answer when patch i uses position row i + first_row; InternVL's pixel unshuffle and projector by hand."""
    rows = weights["v.position_embd.weight"][first_row : first_row + _SIDE * _SIDE]
    half = _SIDE // 2
    merged = rows.reshape(_SIDE, half, 2 * _WIDTH).transpose(1, 0, 2).reshape(half, half, _MERGED).transpose(1, 0, 2)
    tokens = merged.reshape(half * half, _MERGED)
    centred = tokens - tokens.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    hidden = normed @ weights["mm.model.mlp.1.weight"].T
    gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    return np.asarray(gelu @ weights["mm.model.mlp.3.weight"].T, dtype=np.float32)
