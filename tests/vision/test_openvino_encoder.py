"""The encoder on OpenVINO against the published formulas in double precision, computed by numpy from stored weights."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from internvl_gguf.errors import LibraryError, NotNumbersError
from internvl_gguf.gguf.header import GGUFHeader, read_header
from internvl_gguf.gguf.validation import MmprojFacts, validate_mmproj
from internvl_gguf.utils.records import COMPILED_ENCODERS
from internvl_gguf.vision.openvino_encoder import EncoderPrecision, OpenVINOEncoder
from tests.support.damage import Blueprint, Tensor, header_of, write
from tests.support.tiny_models import tiny_mmproj

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT = 1e-5
"""Largest relative distance in float32: single precision through a few layers gives 1e-6."""

STORED = ("F32", "F16", "BF16", "Q8_0")


class Reference:
    """InternViT and the projector of `modeling_intern_vit.py` and `modeling_internvl_chat.py`, in float64."""

    def __init__(self, plan: Blueprint, facts: MmprojFacts) -> None:
        self._facts = facts
        self._weights = {str(tensor.name): _values(tensor) for tensor in plan.tensors}

    def embeddings(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Embeddings [tokens_per_tile, projection] of a tile [side, side, 3]."""
        facts, side = self._facts, self._facts.image_size // self._facts.patch_size
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        normalised = (pixels / 255 - mean) / std
        cut = normalised.reshape(side, facts.patch_size, side, facts.patch_size, 3).transpose(0, 2, 4, 1, 3)
        kernel = self._weights["v.patch_embd.weight"].reshape(facts.n_embd, -1)
        patches = cut.reshape(side * side, -1) @ kernel.T + self._weights["v.patch_embd.bias"]
        hidden = np.concatenate([self._weights["v.class_embd"].reshape(1, -1), patches])
        hidden = hidden + self._weights["v.position_embd.weight"].reshape(hidden.shape)
        for layer in range(facts.n_layers):
            hidden = self._layer(hidden, f"v.blk.{layer}")
        grid = hidden[1:].reshape(side // 2, 2, side // 2, 2, facts.n_embd)
        merged = grid.transpose(0, 2, 1, 3, 4).reshape(facts.tokens_per_tile, -1)
        normed = _layer_norm(merged, 1e-5) * self._weights["mm.model.mlp.0.weight"]
        normed = normed + self._weights["mm.model.mlp.0.bias"]
        return self._linear(_gelu(self._linear(normed, "mm.model.mlp.1")), "mm.model.mlp.3")

    def _layer(self, hidden: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        attended = self._attention(self._normed(hidden, f"{name}.ln1"), name)
        hidden = hidden + attended * self._weights[f"{name}.ls1.weight"]
        inner = _gelu(self._linear(self._normed(hidden, f"{name}.ln2"), f"{name}.ffn_up"))
        return hidden + self._linear(inner, f"{name}.ffn_down") * self._weights[f"{name}.ls2.weight"]

    def _attention(self, hidden: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        heads, head_dim = self._facts.n_head, self._facts.n_embd // self._facts.n_head
        parts = {part: self._linear(hidden, f"{name}.attn_{part}") for part in "qkv"}
        for part in "qk":
            if f"{name}.attn_{part}_norm.weight" in self._weights:
                normed = _rms_norm(parts[part], self._facts.eps)
                parts[part] = normed * self._weights[f"{name}.attn_{part}_norm.weight"]
        query, key, value = (each.reshape(len(hidden), heads, head_dim).swapaxes(0, 1) for each in parts.values())
        scores = query @ key.swapaxes(1, 2) / math.sqrt(head_dim)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = shares / shares.sum(axis=-1, keepdims=True) @ value
        return self._linear(attended.swapaxes(0, 1).reshape(len(hidden), -1), f"{name}.attn_out")

    def _normed(self, hidden: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        if f"{name}.bias" not in self._weights:
            return _rms_norm(hidden, self._facts.eps) * self._weights[f"{name}.weight"]
        return _layer_norm(hidden, self._facts.eps) * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _linear(self, hidden: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return np.asarray(hidden @ self._weights[f"{name}.weight"].T + self._weights.get(f"{name}.bias", 0.0))


def _values(tensor: Tensor) -> NDArray[np.float64]:
    kind = GGMLQuantizationType(tensor.type)
    stored = np.frombuffer(tensor.data, np.uint8)
    return np.asarray(quants.dequantize(stored, kind).reshape(tuple(reversed(tensor.shape))).astype(np.float64))


def _layer_norm(hidden: NDArray[np.float64], epsilon: float) -> NDArray[np.float64]:
    centred = hidden - hidden.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon))


def _rms_norm(hidden: NDArray[np.float64], epsilon: float) -> NDArray[np.float64]:
    return np.asarray(hidden / np.sqrt((hidden**2).mean(axis=-1, keepdims=True) + epsilon))


def _gelu(hidden: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))))


def stored_as(plan: Blueprint, kind: GGMLQuantizationType) -> Blueprint:
    """The plan with its matrices stored in another type, as llama.cpp's converter does it."""
    plan = plan.copy()
    for tensor in plan.tensors:
        is_matrix = len(tensor.shape) == 2 and tensor.shape[0] % 32 == 0
        is_kernel = tensor.name == "v.patch_embd.weight" and kind is GGMLQuantizationType.F16
        if is_matrix or is_kernel:
            values = np.frombuffer(tensor.data, np.float32).reshape(tuple(reversed(tensor.shape)))
            tensor.type, tensor.data = kind, quants.quantize(values, kind).tobytes()
    return plan


def facts_of(header: GGUFHeader, plan_is_6b: bool) -> MmprojFacts:
    """What validation finds; it takes the norms of InternViT-6B at that model's size only."""
    if not plan_is_6b:
        return validate_mmproj(header)
    plain = validate_mmproj(header_of(tiny_mmproj(n_ff=64)))
    return replace(plain, norm="rmsnorm", qk_norm=True)


def opened(
    path: Path, header: GGUFHeader, facts: MmprojFacts, *, tiles: int = 1, precision: EncoderPrecision = "f32"
) -> OpenVINOEncoder:
    return OpenVINOEncoder(path, header, facts, precision=precision, n_threads=1, tiles_per_batch=tiles, keep=False)


def tile(seed: int, side: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def distance(measured: NDArray[np.floating], expected: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(measured - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("is_6b", [False, True], ids=["300M", "6B"])
def test_embeddings_are_those_of_the_published_formulas(tmp_path: Path, kind: str, is_6b: bool) -> None:
    plan = tiny_mmproj(n_ff=64, qkv_bias=not is_6b, qk_norm=is_6b, rms_norm=is_6b)
    plan = stored_as(plan, GGMLQuantizationType[kind])
    path = write(tmp_path / "mmproj.gguf", plan)
    header = read_header(path)
    facts = facts_of(header, is_6b)
    encoder = opened(path, header, facts)
    (embeddings,) = encoder.encode([tile(1).tobytes()])
    assert embeddings.shape == (facts.tokens_per_tile, facts.projection_dim)
    assert embeddings.dtype == np.float32
    assert distance(embeddings, Reference(plan, facts).embeddings(tile(1))) < EXACT


def test_matrices_of_attention_may_be_stored_in_one(tmp_path: Path) -> None:
    plan = tiny_mmproj(n_ff=64)
    apart = plan.copy()
    for layer in range(2):
        for kind in ("weight", "bias"):
            parts = [plan.tensor(f"v.blk.{layer}.attn_{part}.{kind}") for part in "qkv"]
            shape = (*parts[0].shape[:-1], 3 * parts[0].shape[-1])
            joined = Tensor(
                f"v.blk.{layer}.attn_qkv.{kind}", shape, parts[0].type, b"".join(part.data for part in parts)
            )
            plan.tensors = [each for each in plan.tensors if each not in parts] + [joined]
    path = write(tmp_path / "mmproj.gguf", plan)
    header = read_header(path)
    facts = validate_mmproj(header)
    (embeddings,) = opened(path, header, facts).encode([tile(1).tobytes()])
    assert distance(embeddings, Reference(apart, facts).embeddings(tile(1))) < EXACT


def test_a_batch_is_its_tiles_one_by_one(tmp_path: Path) -> None:
    path = write(tmp_path / "mmproj.gguf", tiny_mmproj())
    header = read_header(path)
    facts = validate_mmproj(header)
    single, batched = opened(path, header, facts), opened(path, header, facts, tiles=3)
    tiles = [tile(seed).tobytes() for seed in range(3)]
    expected = np.concatenate([single.encode([each]) for each in tiles])
    for count in (1, 2, 3):
        assert distance(batched.encode(tiles[:count]), expected[:count].astype(np.float64)) < EXACT


def test_a_compiled_encoder_is_kept_and_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "mmproj.gguf", tiny_mmproj())
    header = read_header(path)
    facts = validate_mmproj(header)
    first = OpenVINOEncoder(path, header, facts, precision="f32", n_threads=1)
    (kept,) = COMPILED_ENCODERS.path.glob("*.blob")
    written = kept.stat().st_mtime_ns
    again = OpenVINOEncoder(path, header, facts, precision="f32", n_threads=1)
    assert kept.stat().st_mtime_ns == written
    assert np.array_equal(first.encode([tile(1).tobytes()]), again.encode([tile(1).tobytes()]))


def test_weights_that_overflow_are_told(tmp_path: Path) -> None:
    plan = tiny_mmproj()
    tensor = plan.tensor("mm.model.mlp.3.weight")
    tensor.data = np.full(len(tensor.data) // 4, 3e38, np.float32).tobytes()
    path = write(tmp_path / "mmproj.gguf", plan)
    header = read_header(path)
    encoder = opened(path, header, validate_mmproj(header))
    with pytest.raises(NotNumbersError, match="not numbers"):
        encoder.encode([tile(1).tobytes()])


def test_what_is_no_number_in_bfloat16_is_computed_in_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No small model overflows in bfloat16 alone, so the first result is spoilt here; the rest is computed."""
    path = write(tmp_path / "mmproj.gguf", tiny_mmproj())
    header = read_header(path)
    facts = validate_mmproj(header)
    pixels = [tile(1).tobytes()]
    expected = opened(path, header, facts).encode(pixels)
    infer = OpenVINOEncoder._infer

    def spoilt(encoder: OpenVINOEncoder, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        return infer(encoder, tiles) * np.float32(np.nan if encoder.precision == "bf16" else 1)

    monkeypatch.setattr(OpenVINOEncoder, "_infer", spoilt)
    encoder = opened(path, header, facts, precision="bf16")
    with caplog.at_level("WARNING", logger="internvl_gguf.vision"):
        assert np.array_equal(encoder.encode(pixels), expected)
    assert encoder.precision == "f32"
    assert "float32 from now on" in caplog.text


def test_what_openvino_refuses_is_two_lines(tmp_path: Path) -> None:
    plan = tiny_mmproj()
    path = write(tmp_path / "mmproj.gguf", plan)
    header = read_header(path)
    facts = replace(validate_mmproj(header), n_head=3)  # which does not divide the width
    with pytest.raises(LibraryError, match="OpenVINO cannot encode") as caught:
        opened(path, header, facts)
    assert "\n" not in caught.value.message
    assert "--encoder llama.cpp" in caught.value.hint


def test_openvino_is_loaded_without_its_telemetry() -> None:
    """Its package sends an event when it is imported, unless openvino-telemetry is missing."""
    script = (
        "import internvl_gguf.vision.openvino_library as library, sys\n"
        "print(library.ov.__name__, [name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "openvino []"
