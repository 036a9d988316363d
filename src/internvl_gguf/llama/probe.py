"""Does the installed llama.cpp give every patch of an InternVL tile the position embedding of its neighbour?

Asked of the library itself, with a model whose right answer can be computed by hand: an InternViT whose one block
adds nothing, over a black tile, so that the encoder's output is the position rows it used, sent through the pixel
unshuffle and the projector. Fractions of a second, once for each build of the library.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from internvl_gguf.errors import LibraryError
from internvl_gguf.llama.library import build
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.vision import VisionEncoder
from internvl_gguf.paths import cache_dir, write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TILE, _PATCH, _WIDTH, _TEXT_WIDTH = 16, 4, 32, 32
_SIDE = _TILE // _PATCH
_MERGED = 4 * _WIDTH
_TOLERANCE = 0.01  # relative; the two candidate answers are further than 0.5 apart


def positions_are_shifted() -> bool:
    """Whether position rows must be rolled for this build; remembered by build.

    Raises:
        LibraryError: the library computes neither the right nor the known wrong answer.
    """
    record = cache_dir() / "probe.json"
    try:
        known = json.loads(record.read_bytes())
        if known["build"] == build():
            return bool(known["positions_are_shifted"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    shifted = probe()
    with contextlib.suppress(OSError):
        write_atomically(record, json.dumps({"build": build(), "positions_are_shifted": shifted}).encode())
    return shifted


def probe() -> bool:
    """Ask the library, whatever is remembered. See `positions_are_shifted`."""
    random = np.random.default_rng(7)
    weights = {
        "positions": random.standard_normal((1 + _SIDE * _SIDE, _WIDTH), dtype=np.float32),
        "linear_1": random.standard_normal((_TEXT_WIDTH, _MERGED), dtype=np.float32) / np.float32(_MERGED**0.5),
        "linear_2": random.standard_normal((_TEXT_WIDTH, _TEXT_WIDTH), dtype=np.float32) / np.float32(_TEXT_WIDTH**0.5),
    }
    with tempfile.TemporaryDirectory(prefix="internvl-probe-") as folder:
        text, mmproj = Path(folder, "text.gguf"), Path(folder, "mmproj.gguf")
        _write_text(text)
        _write_mmproj(mmproj, weights)
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
    rows = weights["positions"][first_row : first_row + _SIDE * _SIDE]
    half = _SIDE // 2
    merged = rows.reshape(_SIDE, half, 2 * _WIDTH).transpose(1, 0, 2).reshape(half, half, _MERGED).transpose(1, 0, 2)
    tokens = merged.reshape(half * half, _MERGED)
    centred = tokens - tokens.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    hidden = normed @ weights["linear_1"].T
    gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    return np.asarray(gelu @ weights["linear_2"].T, dtype=np.float32)


def _write_text(path: Path) -> None:
    """A vocabulary with the tokens mtmd looks for, and no weights."""
    from gguf import GGUFWriter, TokenType

    tokens = [chr(code) for code in range(ord("!"), ord("!") + 90)] + ["<img>", "</img>", "<|im_end|>"]
    writer = GGUFWriter(path, "qwen2")
    writer.add_context_length(64)
    writer.add_embedding_length(_TEXT_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_TEXT_WIDTH)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * 90 + [TokenType.CONTROL] * 3)
    writer.add_token_merges(['! "'])
    writer.add_eos_token_id(92)
    _write(writer)


def _write_mmproj(path: Path, weights: dict[str, NDArray[np.float32]]) -> None:
    """An InternViT of one block that adds nothing, with a projector without biases worth the name."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "internvl")
    for key, value in (
        ("image_size", _TILE),
        ("patch_size", _PATCH),
        ("embedding_length", _WIDTH),
        ("feed_forward_length", _WIDTH),
        ("projection_dim", _TEXT_WIDTH),
        ("block_count", 1),
        ("attention.head_count", 1),
        ("projector.scale_factor", 2),
    ):
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    writer.add_bool("clip.use_gelu", True)

    def add(name: str, *shape: int, ones: bool = False) -> None:
        writer.add_tensor(name, np.full(shape, float(ones), dtype=np.float32))

    writer.add_tensor("v.position_embd.weight", weights["positions"])
    add("v.class_embd", _WIDTH)
    add("v.patch_embd.weight", _WIDTH, 3, _PATCH, _PATCH)
    add("v.patch_embd.bias", _WIDTH)
    for norm in ("v.blk.0.ln1", "v.blk.0.ln2"):
        add(f"{norm}.weight", _WIDTH, ones=True)
        add(f"{norm}.bias", _WIDTH)
    for linear in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down"):
        add(f"v.blk.0.{linear}.weight", _WIDTH, _WIDTH)
        add(f"v.blk.0.{linear}.bias", _WIDTH)
    add("mm.model.mlp.0.weight", _MERGED, ones=True)
    add("mm.model.mlp.0.bias", _MERGED)
    writer.add_tensor("mm.model.mlp.1.weight", weights["linear_1"])
    add("mm.model.mlp.1.bias", _TEXT_WIDTH)
    writer.add_tensor("mm.model.mlp.3.weight", weights["linear_2"])
    add("mm.model.mlp.3.bias", _TEXT_WIDTH)
    _write(writer)


def _write(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
