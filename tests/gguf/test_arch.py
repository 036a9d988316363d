"""Architectures: sizes are read under one vocabulary, and files are held against one list of tensors."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest
from gguf import GGUFValueType

from internvl_gguf.errors import InvalidRequestError, ModelFileError
from internvl_gguf.gguf.arch import TEXT_ARCHITECTURES
from internvl_gguf.gguf.arch.base import TextShape, VisionShape
from internvl_gguf.gguf.arch.internlm2 import INTERNLM2
from internvl_gguf.gguf.arch.internlm3 import INTERNLM3
from internvl_gguf.gguf.arch.internvit import (
    INTERNVIT,
    INTERNVIT_6B,
    INTERNVIT_300M,
    read_mmproj_shape,
    tile_operations,
)
from internvl_gguf.gguf.arch.qwen2 import QWEN2
from internvl_gguf.gguf.arch.qwen3 import QWEN3
from internvl_gguf.gguf.arch.qwen3moe import QWEN3MOE
from internvl_gguf.gguf.arch.text_architecture import TextArchitecture
from internvl_gguf.gguf.header import GGUFHeader, read_header
from internvl_gguf.gguf.model_weights import Matrices
from internvl_gguf.gguf.size_names import TEXT_NAMES, VISION_NAMES
from internvl_gguf.memory import MemoryRequest, predict_memory, shape_from_headers, shape_from_listing
from tests.support.damage import Blueprint, header_of, write_sparse
from tests.support.tiny_models import text_facts_of, tiny_mmproj, tiny_text

if TYPE_CHECKING:
    from pathlib import Path

UINT32 = GGUFValueType.UINT32
QWEN3_06B = {"n_embd": 1024, "n_head": 16, "n_head_kv": 8, "head_dim": 128}


def without_weights(folder: Path, plan: Blueprint) -> GGUFHeader:
    """The header of a model of a published size, which takes no room."""
    return read_header(write_sparse(folder / "model.gguf", plan))


def wide_heads(folder: Path, kind: str = "qwen3") -> GGUFHeader:
    """A header with the width and the heads of Qwen3-0.6B, the text model of InternVL3.5-1B."""
    plan = tiny_text(kind=kind, width=1024, n_head=16, n_head_kv=8, head_dim=128, weights=False)
    return without_weights(folder, plan)


def test_the_width_of_a_head_is_read_and_not_divided(tmp_path: Path) -> None:
    """Divided, the KV cache of Qwen3-0.6B would be planned at half its size."""
    shape = QWEN3.read_shape(wide_heads(tmp_path), 151_936)
    assert {name: getattr(shape, name) for name in QWEN3_06B} == QWEN3_06B
    assert (shape.q_width, shape.kv_width) == (2048, 1024)
    shapes = {spec.name: spec.shape for spec in QWEN3.tensors(shape)}
    assert shapes["blk.0.attn_q.weight"] == shapes["blk.0.attn_output.weight"][::-1] == (1024, 2048)
    assert shapes["blk.0.attn_k.weight"] == shapes["blk.0.attn_v.weight"] == (1024, 1024)
    assert shapes["blk.0.attn_q_norm.weight"] == (128,)


def test_the_memory_of_a_model_follows_from_the_width_that_was_read() -> None:
    """The KV cache and the graph of a listed model with heads wider than the hidden state's share of one."""
    narrow = TextShape("qwen2", 28, 1024, 16, 8, 512, 32_768, 40_960)
    request = MemoryRequest(2048, flash_attn=True)
    plans = [
        predict_memory(shape_from_listing(shape, 10**9), request)
        for shape in (narrow, replace(narrow, head_dim=64), replace(narrow, head_dim=128))
    ]
    assert plans[0] == plans[1]
    assert [plan.kv_bytes_per_position for plan in plans[1:]] == [57_344, 114_688]
    assert plans[2].host.compute_buffer > plans[1].host.compute_buffer


def test_without_a_key_the_width_of_a_head_is_what_llama_cpp_takes() -> None:
    assert text_facts_of(tiny_text(width=64, n_head=4)).head_dim == 16
    assert TextShape("qwen2", 24, 896, 14, 2, 4864).head_dim == 64


def test_heads_that_llama_cpp_takes_for_granted_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="key_length is 128, outside 64 to 64"):
        QWEN2.read_shape(wide_heads(tmp_path, "qwen2"), 1000)
    plan = tiny_text()
    plan.set("qwen2.attention.value_length", 8, UINT32)
    with pytest.raises(ModelFileError, match="value_length is 8, outside 16 to 16"):
        text_facts_of(plan)


@pytest.mark.parametrize(
    ("architecture", "of_a_layer", "of_attention"),
    [
        (QWEN2, 12, ("weight", "bias")),
        (QWEN3, 11, ("weight",)),
        (QWEN3MOE, 12, ("weight",)),
        (INTERNLM2, 9, ("weight",)),
        (INTERNLM3, 9, ("weight",)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_file_decides_on_the_parts_that_there_are_several_ways_of(
    architecture: TextArchitecture, of_a_layer: int, of_attention: tuple[str, ...]
) -> None:
    experts = (4, 2, 48) if architecture.has_experts else (0, 0, 0)
    shape = TextShape(architecture.name, 2, 64, 4, 2, 96, 270, None, 16, *experts)
    published = [spec.name for spec in architecture.tensors(shape)]
    ends = len(published), published[0], published[-1]
    assert ends == (2 * of_a_layer + 3, "token_embd.weight", "output.weight")
    tied = [name for name in published if name != "output.weight"]
    # Of InternLM2 llama.cpp takes no token embedding in the place of the output matrix.
    asked = [spec.name for spec in architecture.tensors(shape, tied)]
    assert asked == (published if architecture is INTERNLM2 else tied)
    split = tuple(f".attn_{part}." for part in "qkv")
    rest = {name for name in published if not any(part in name for part in split)}
    fused = rest | {f"blk.{layer}.attn_qkv.{kind}" for layer in (0, 1) for kind in of_attention}
    assert {spec.name for spec in architecture.tensors(shape, fused)} == fused


def test_a_token_uses_some_of_the_experts() -> None:
    """Qwen3-30B-A3B: 30.5 billion weights, 3.3 of them for each token, the embeddings among them."""
    shape = TextShape("qwen3moe", 48, 2048, 32, 4, 6144, None, None, 128, 128, 8, 768)
    text = shape_from_listing(shape, 18 * 10**9).text
    assert text.parameters == pytest.approx(30.53e9, rel=1e-3)
    layers = Matrices.joined(each for layer in text.layer_matrices for each in layer)
    ends = [text.embedding, text.output]
    used = sum(each.elements * each.used for each in (*layers, *Matrices.among(filter(None, ends))))
    assert used == pytest.approx(3.35e9, rel=0.01)
    assert {each.used for each in layers} == {1.0, 1 / 16}


def test_a_batch_reads_more_experts_than_a_token() -> None:
    experts = Matrices("q4_k", 100, 200, used=1 / 16)
    shares = [experts.read_share(tokens) for tokens in (0, 1, 2, 16, 512)]
    assert shares[:2] == [0.0, 1 / 16]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("lost", ["attn_q.weight", "attn_k.bias"])
def test_of_the_ways_the_one_most_like_the_file_is_asked_for(lost: str) -> None:
    shape = TextShape("qwen2", 1, 64, 4, 2, 96, 270)
    published = {spec.name for spec in QWEN2.tensors(shape)}
    assert {spec.name for spec in QWEN2.tensors(shape, published - {f"blk.0.{lost}"})} == published


def test_an_encoder_has_the_norms_of_its_release(tmp_path: Path) -> None:
    for release, biased in ((INTERNVIT_300M, True), (INTERNVIT_6B, False)):
        plan = tiny_mmproj(n_layers=release.n_layers, width=release.n_embd, n_head=release.n_head, weights=False)
        shape = read_mmproj_shape(without_weights(tmp_path, plan))
        names = {spec.name for spec in INTERNVIT.tensors(shape)}
        assert ("v.blk.0.attn_q.bias" in names, "v.blk.0.attn_q_norm.weight" in names) == (biased, not biased)


def test_the_squares_of_patches_follow_from_the_tokens_of_a_tile() -> None:
    for scale_factor, tokens in ((1, 64), (2, 16), (4, 4), (8, 1)):
        plan = tiny_mmproj(image_size=64, patch_size=8, scale_factor=scale_factor)
        shape = read_mmproj_shape(header_of(plan))
        assert (shape.tokens_per_tile, shape.scale_factor, shape.merged_width) == (
            tokens, scale_factor, 32 * scale_factor**2,
        )  # fmt: skip


def test_a_tile_takes_the_operations_of_its_matrices(tmp_path: Path) -> None:
    plan = tiny_mmproj(
        n_layers=24, width=1024, n_head=16, n_ff=4096, image_size=448, patch_size=14, projection=896, weights=False
    )
    assert tile_operations(read_mmproj_shape(without_weights(tmp_path, plan))) == pytest.approx(730e9, rel=0.01)


def test_published_names_stand_for_sizes() -> None:
    assert set(TEXT_NAMES.values()) == {each.name for each in fields(TextShape)}
    assert set(VISION_NAMES.values()) == {each.name for each in fields(VisionShape)}


def test_an_architecture_that_does_not_run_here_is_no_listing() -> None:
    assert "gpt-oss" not in TEXT_ARCHITECTURES
    with pytest.raises(InvalidRequestError, match='architecture "gpt-oss"'):
        shape_from_listing(TextShape("gpt-oss", 24, 2880, 64, 8, 2880, head_dim=64), 12 * 10**9)


def test_headers_and_checks_agree_on_sizes() -> None:
    text, mmproj = header_of(tiny_text(n_layers=3)), header_of(tiny_mmproj(n_layers=3))
    shape = shape_from_headers(text, mmproj)
    assert shape.vision is not None
    assert shape.text.sizes == text_facts_of(tiny_text(n_layers=3)).sizes
    assert shape.vision.sizes == read_mmproj_shape(mmproj).sizes
