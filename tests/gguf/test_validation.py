"""Every defect of a model file that ends llama.cpp's process or makes it lie is refused before, with a reason."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFValueType

import model_headers
from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.header import parse_header, read_header
from internvl_gguf.gguf.validation import (
    validate_mmproj,
    validate_text_model,
)
from tests.support.damage import (
    Blueprint,
    Tensor,
    number,
    truth,
    write,
    write_sparse,
)
from tests.support.native_child import NativeChild, Outcome
from tests.support.tiny_models import mmproj_facts_of, text_facts_of, tiny_mmproj, tiny_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UINT32, INT32, FLOAT32 = GGUFValueType.UINT32, GGUFValueType.INT32, GGUFValueType.FLOAT32
STRING, BOOL = GGUFValueType.STRING, GGUFValueType.BOOL
VIT = "clip.vision"


def test_facts_of_a_text_model() -> None:
    facts = text_facts_of(tiny_text(n_layers=3, width=64, n_head=8, n_head_kv=2, n_ff=80, n_ctx=1234, name="Tiny"))
    assert (facts.architecture, facts.name, facts.label) == ("qwen2", "Tiny", "model.gguf")
    assert (facts.n_layers, facts.n_embd, facts.n_head, facts.n_head_kv) == (3, 64, 8, 2)
    assert (facts.head_dim, facts.n_ff, facts.n_vocab, facts.n_ctx_train, facts.file_type) == (8, 80, 270, 1234, 0)
    assert (facts.im_start, facts.im_end, facts.img, facts.img_end, facts.img_context) == (265, 266, 267, 268, 269)
    assert facts.eos == facts.im_end


def test_facts_of_the_text_models_of_internvl3_5() -> None:
    """Heads of a width of their own, no biases, norms of queries and keys, experts."""
    dense = text_facts_of(tiny_text(kind="qwen3", head_dim=32))
    assert (dense.architecture, dense.head_dim, dense.q_width, dense.kv_width) == ("qwen3", 32, 128, 64)
    assert (dense.n_expert, dense.n_expert_used, dense.n_ff_exp) == (0, 0, 0)
    sparse = text_facts_of(tiny_text(kind="qwen3moe", head_dim=32, n_ff=96, n_expert=8, n_expert_used=3))
    assert (sparse.architecture, sparse.head_dim, sparse.n_ff) == ("qwen3moe", 32, 96)
    assert (sparse.n_expert, sparse.n_expert_used, sparse.n_ff_exp) == (8, 3, 32)


def test_facts_of_the_text_models_of_internlm() -> None:
    """Each prompt begins with a token; the third has heads of a width of its own, and spells a text with a space."""
    second = text_facts_of(tiny_text(kind="internlm2"))
    assert (second.architecture, second.head_dim, second.bos, second.strips_space) == ("internlm2", 16, 1, False)
    third = text_facts_of(tiny_text(kind="llama", head_dim=32, space_prefix=True))
    assert (third.architecture, third.head_dim, third.bos, third.strips_space) == ("llama", 32, 1, True)
    assert (text_facts_of(tiny_text()).bos, text_facts_of(tiny_text()).strips_space) == (None, False)


@pytest.mark.parametrize("key", ["bos_token_id", "add_bos_token", "add_space_prefix", "pre"])
def test_what_a_sentencepiece_vocabulary_leaves_unsaid_is_what_llama_cpp_takes(key: str) -> None:
    plan = tiny_text(kind="internlm2", space_prefix=True)
    plan.remove(f"tokenizer.ggml.{key}")
    facts = text_facts_of(plan)
    assert (facts.bos, facts.strips_space) == (1, True)
    plan = tiny_text(kind="internlm2")
    plan.set("tokenizer.ggml.add_bos_token", False)
    assert text_facts_of(plan).bos is None


def test_experts_share_the_feed_forward_width_where_the_file_does_not_say() -> None:
    plan = tiny_text(kind="qwen3moe", n_ff=96, n_expert_used=2)
    plan.remove("qwen3moe.expert_feed_forward_length")
    assert text_facts_of(plan).n_ff_exp == 48


def test_facts_of_an_mmproj() -> None:
    facts = mmproj_facts_of(tiny_mmproj(n_layers=3, width=48, n_head=6, n_ff=40, image_size=48, patch_size=12))
    assert (facts.image_size, facts.patch_size, facts.scale_factor, facts.tokens_per_tile) == (48, 12, 2, 4)
    assert (facts.n_layers, facts.n_embd, facts.n_head, facts.n_ff, facts.projection_dim) == (3, 48, 6, 40, 64)
    assert (facts.norm, facts.qk_norm, facts.projector, facts.name) == ("layernorm", False, "internvl", "Tiny InternVL")
    assert facts.eps == pytest.approx(1e-6)


def test_the_vision_encoders_of_every_internvl3_are_accepted(tmp_path: Path) -> None:
    small = tiny_mmproj(n_layers=24, width=1024, n_head=16, n_ff=4096, image_size=448, patch_size=14, weights=False)
    facts = validate_mmproj(read_header(write_sparse(tmp_path / "small.gguf", small)))
    assert (facts.norm, facts.qk_norm, facts.tokens_per_tile) == ("layernorm", False, 256)
    large = tiny_mmproj(
        n_layers=45,
        width=3200,
        n_head=25,
        n_ff=12800,
        image_size=448,
        patch_size=14,
        qkv_bias=False,
        qk_norm=True,
        rms_norm=True,
        weights=False,
    )
    facts = validate_mmproj(read_header(write_sparse(tmp_path / "large.gguf", large)))
    assert (facts.norm, facts.qk_norm, facts.tokens_per_tile, facts.n_embd) == ("rmsnorm", True, 256, 3200)


@pytest.mark.parametrize(
    ("layers", "width", "heads", "kv_heads", "ffn"),
    [
        (24, 896, 14, 2, 4864),
        (28, 1536, 12, 2, 8960),
        (28, 3584, 28, 4, 18944),
        (48, 5120, 40, 8, 13824),
        (64, 5120, 40, 8, 27648),
        (80, 8192, 64, 8, 29568),
    ],
)
def test_the_text_models_of_every_internvl3_are_accepted(
    layers: int, width: int, heads: int, kv_heads: int, ffn: int, tmp_path: Path
) -> None:
    plan = tiny_text(n_layers=layers, width=width, n_head=heads, n_head_kv=kv_heads, n_ff=ffn, weights=False)
    facts = validate_text_model(read_header(write_sparse(tmp_path / "text.gguf", plan)))
    assert (facts.n_layers, facts.n_embd, facts.n_head, facts.n_head_kv, facts.n_ff) == (
        layers,
        width,
        heads,
        kv_heads,
        ffn,
    )


@pytest.mark.parametrize("name", [name for name in model_headers.TEXT if name.startswith("Qwen3 ")])
def test_the_text_models_of_every_internvl3_5_are_accepted(name: str) -> None:
    shape = replace(model_headers.TEXT[name], n_vocab=4096)
    data, tensors = model_headers.text_header(shape, "Q4_K_M"), model_headers.text_tensors(shape, "Q4_K_M")
    facts = validate_text_model(parse_header(data, model_headers.file_size(data, tensors), "text.gguf"))
    assert facts.sizes == shape.sizes


@dataclass(frozen=True)
class Defect:
    """A damaged plan.

    Attributes:
        change: what is done to a valid plan.
        expected: a part of the message it is refused with.
        stock: what happens to it unchecked: llama.cpp "dies", "lies" (loads it and computes something else), or
            "refuses" it (or computes NaN, which our wrapper refuses); or it is "harmless": the numbers are the same
            here, and the defect shows elsewhere (other prompts, special tokens).
        kind: architecture of the valid plan, if it is that of a text model.
    """

    change: Callable[[Blueprint], object]
    expected: str
    stock: str
    kind: str = "qwen2"

    def plan(self) -> Blueprint:
        """A valid plan of a text model."""
        return tiny_text(kind=self.kind, head_dim=0 if self.kind in ("qwen2", "internlm2") else 32)


def _renamed(before: str, after: str) -> Callable[[Blueprint], object]:
    def change(plan: Blueprint) -> None:
        plan.tensor(before).name = after

    return change


def _without(*names: str) -> Callable[[Blueprint], object]:
    return lambda plan: [plan.remove(name) for name in names]


def _with(name: str, value: object, kind: GGUFValueType | None = None) -> Callable[[Blueprint], object]:
    return lambda plan: plan.set(name, value, kind)


def _tensor_like(name: str, model: str) -> Callable[[Blueprint], object]:
    def change(plan: Blueprint) -> None:
        source = plan.tensor(model)
        plan.tensors.append(Tensor(name, source.shape, source.type, source.data))

    return change


def _fewer_layers(plan: Blueprint) -> None:
    plan.set(f"{VIT}.block_count", 1)


def _all_biases_renamed(plan: Blueprint) -> None:
    for tensor in plan.tensors:
        tensor.name = str(tensor.name).replace("ln1.bias", "ln1.bia")


def _more_tokens(plan: Blueprint) -> None:
    plan.key("tokenizer.ggml.tokens").value += ["[PAD270]", "[PAD271]"]
    plan.key("tokenizer.ggml.token_type").value += [5, 5]


def _fewer_tokens(plan: Blueprint) -> None:
    for name in ("tokens", "token_type"):
        del plan.key(f"tokenizer.ggml.{name}").value[256]


MMPROJ_DEFECTS = {
    "image size as text": Defect(_with(f"{VIT}.image_size", "448", STRING), "is STRING where UINT32 belongs", "dies"),
    "image size as UINT64": Defect(_with(f"{VIT}.image_size", 32, GGUFValueType.UINT64), "UINT64 where", "dies"),
    "epsilon as a whole number": Defect(
        _with(f"{VIT}.attention.layer_norm_epsilon", 1, UINT32), "UINT32 where FLOAT32 belongs", "dies"
    ),
    "use_gelu as a whole number": Defect(_with("clip.use_gelu", 1, UINT32), "is UINT32 where BOOL belongs", "dies"),
    "a name that is a number": Defect(_with("general.name", 7, UINT32), "UINT32 where STRING belongs", "dies"),
    "has_vision_encoder as text": Defect(_with("clip.has_vision_encoder", "yes", STRING), "STRING where", "dies"),
    "preproc_min_tiles 0": Defect(_with(f"{VIT}.preproc_min_tiles", 0), "least 0 and at most 12 tiles", "dies"),
    "preproc_min_tiles above max": Defect(
        _with(f"{VIT}.preproc_min_tiles", 13), "least 13 and at most 12 tiles", "dies"
    ),
    "preproc_min_tiles without a grid": Defect(_with(f"{VIT}.preproc_min_tiles", 4), "wants 4 along each side", "dies"),
    "preproc_max_tiles of billions": Defect(
        _with(f"{VIT}.preproc_max_tiles", 2**32 - 1), "at most 4294967295 tiles, and 64 are the most", "refuses"
    ),
    "image size 0": Defect(_with(f"{VIT}.image_size", 0), "image_size is 0, outside 1 to", "dies"),
    "image size beyond its position rows": Defect(
        _with(f"{VIT}.image_size", 48),
        "v.position_embd.weight has the shape [32, 17, 1] where [32, 37] belongs",
        "dies",
    ),
    "image size no multiple of the patch": Defect(_with(f"{VIT}.image_size", 35), "do not fall into patches", "lies"),
    "patch size 0": Defect(_with(f"{VIT}.patch_size", 0), "patch_size is 0", "refuses"),
    "another patch size": Defect(_with(f"{VIT}.patch_size", 16), "position_embd", "dies"),
    "head count 0": Defect(_with(f"{VIT}.attention.head_count", 0), "head_count is 0, outside 1", "dies"),
    "head count that does not divide": Defect(_with(f"{VIT}.attention.head_count", 5), "5 heads do not divide", "dies"),
    "other heads for keys": Defect(
        _with(f"{VIT}.attention.head_count_kv", 2, UINT32), "head_count_kv is 2, outside 4 to 4", "dies"
    ),
    "another head width": Defect(_with(f"{VIT}.attention.head_dim", 16, UINT32), "head_dim is 16", "dies"),
    "scale factor 3": Defect(_with(f"{VIT}.projector.scale_factor", 3), "do not fall into patches", "dies"),
    "scale factor 0": Defect(_with(f"{VIT}.projector.scale_factor", 0), "scale_factor is 0", "refuses"),
    "scale factor 4": Defect(_with(f"{VIT}.projector.scale_factor", 4), "mm.model.mlp.0.weight has the shape", "dies"),
    "bad FFN shape": Defect(
        lambda plan: plan.fill("v.blk.0.ffn_down.weight", (40, 32)), "ffn_down.weight has the shape [40, 32]", "dies"
    ),
    "another FFN length": Defect(_with(f"{VIT}.feed_forward_length", 40), "ffn_up.weight has the shape", "harmless"),
    "no class row": Defect(_without("v.class_embd"), "v.class_embd is missing", "dies"),
    "no position rows": Defect(_without("v.position_embd.weight"), "v.position_embd.weight is missing", "dies"),
    "one position row too few": Defect(
        lambda plan: plan.fill("v.position_embd.weight", (32, 16)), "where [32, 17] belongs", "dies"
    ),
    "no query weights": Defect(_without("v.blk.1.attn_q.weight"), "v.blk.1.attn_q.weight is missing", "dies"),
    "no patch embedding": Defect(_without("v.patch_embd.weight"), "v.patch_embd.weight is missing", "dies"),
    "patch embedding in whole numbers": Defect(
        lambda plan: setattr(plan.tensor("v.patch_embd.weight"), "type", GGMLQuantizationType.I32),
        "stored as I32 where BF16 or F16 or F32 belongs",
        "dies",
    ),
    "position rows in F16": Defect(
        lambda plan: plan.retype("v.position_embd.weight", GGMLQuantizationType.F16), "F16 where F32 belongs", "dies"
    ),
    "a norm in F16": Defect(
        lambda plan: plan.retype("v.blk.0.ln1.weight", GGMLQuantizationType.F16), "F16 where F32 belongs", "dies"
    ),
    "weights in a type for computing": Defect(
        lambda plan: setattr(plan.tensor("v.blk.0.ffn_up.weight"), "type", GGMLQuantizationType.I32),
        "stored as I32",
        "dies",
    ),
    "epsilon NaN": Defect(_with(f"{VIT}.attention.layer_norm_epsilon", float("nan")), "epsilon is nan", "dies"),
    "a width of another model": Defect(_with(f"{VIT}.embedding_length", 16), "has the shape", "dies"),
    "a bias misspelt": Defect(_renamed("v.blk.0.ffn_up.bias", "v.blk.0.ffn_up.bia"), "ffn_up.bias is missing", "lies"),
    "the biases of one norm misspelt": Defect(_all_biases_renamed, "ln1.bias is missing", "lies"),
    "a layer scale missing": Defect(_without("v.blk.1.ls1.weight"), "v.blk.1.ls1.weight is missing", "lies"),
    "fewer layers than tensors": Defect(_fewer_layers, "InternViT has no place for the tensor v.blk.1", "lies"),
    "a norm no InternViT has": Defect(
        _tensor_like("v.post_ln.weight", "v.patch_embd.bias"), "no place for the tensor v.post_ln.weight", "lies"
    ),
    "a gate no InternViT has": Defect(
        _tensor_like("v.blk.0.ffn_gate.weight", "v.blk.0.ffn_up.weight"), "no place for the tensor", "lies"
    ),
    "QK-norm under LayerNorm": Defect(
        _tensor_like("v.blk.0.attn_q_norm.weight", "v.patch_embd.bias"), "no place for the tensor", "lies"
    ),
    "no activation": Defect(_without("clip.use_gelu"), "which activation", "lies"),
    "two activations": Defect(lambda plan: plan.keys.append(truth("clip.use_silu", True)), "activation", "refuses"),
    "pixels of another statistic": Defect(
        _with(f"{VIT}.image_mean", [0.5, 0.5, 0.5]), "image_mean is [0.5, 0.5, 0.5], not ImageNet's", "lies"
    ),
    "statistics of two channels": Defect(_with(f"{VIT}.image_std", [0.229, 0.224]), "image_std is", "refuses"),
    "another projector": Defect(
        _with("clip.projector_type", "qwen2.5vl_merger"), 'its projector is "qwen2.5vl_merger"', "refuses"
    ),
    "no projector": Defect(_without("clip.projector_type"), 'its projector is ""', "refuses"),
    "no vision encoder": Defect(_with("clip.has_vision_encoder", False), "it has no vision encoder", "refuses"),
    "an audio encoder": Defect(
        lambda plan: plan.keys.append(truth("clip.has_audio_encoder", True)), "audio encoder", "refuses"
    ),
    "no embedding length": Defect(_without(f"{VIT}.embedding_length"), "embedding_length is missing", "refuses"),
}

TEXT_DEFECTS = {
    "another architecture": Defect(_with("general.architecture", "gemma"), 'architecture is "gemma"', "refuses"),
    "a Llama 3": Defect(
        _with("tokenizer.ggml.model", "gpt2"), 'its tokenizer is "gpt2", not that of InternLM3', "refuses", "llama"
    ),
    "a plain InternLM2.5": Defect(
        lambda plan: plan.key("tokenizer.ggml.tokens").value.__setitem__(slice(-3, None), ["a1", "a2", "a3"]),
        "a plain InternLM2.5 and no InternVL text model: its vocabulary has no <img>, </img>, <IMG_CONTEXT>",
        "harmless",
        "internlm2",
    ),
    "no output matrix": Defect(_without("output.weight"), "output.weight is missing", "refuses", "internlm2"),
    "heads that turn in part": Defect(
        _with("internlm2.rope.dimension_count", 8, UINT32),
        "rope.dimension_count is 8, outside 16 to 16",
        "dies",
        "internlm2",
    ),
    "heads of another width than Llama's turn": Defect(
        _with("llama.rope.dimension_count", 16, UINT32), "rope.dimension_count is 16, outside 32", "refuses", "llama"
    ),
    "a bias that no InternLM has": Defect(
        _tensor_like("blk.0.attn_q.bias", "blk.0.attn_norm.weight"), "no place for the tensor", "lies", "internlm2"
    ),
    "frequencies of Llama 3.1": Defect(
        lambda plan: plan.tensors.append(
            Tensor("rope_freqs.weight", (16,), GGMLQuantizationType.F32, np.full(16, 2, np.float32).tobytes())
        ),
        "no place for the tensor rope_freqs.weight",
        "lies",
        "llama",
    ),
    "no scores": Defect(_without("tokenizer.ggml.scores"), "tokenizer.ggml.scores is missing", "harmless", "internlm2"),
    "a score that is no number": Defect(
        lambda plan: plan.key("tokenizer.ggml.scores").value.__setitem__(300, float("nan")),
        "a score of its tokenizer is not a number",
        "harmless",
        "internlm2",
    ),
    "a byte that no piece stands for": Defect(
        lambda plan: plan.key("tokenizer.ggml.tokens").value.__setitem__(3 + 0xC3, "c3"),
        "its token c3 is to stand for a byte, and names none",
        "refuses",
        "internlm2",
    ),
    "a byte that is a word": Defect(
        lambda plan: plan.key("tokenizer.ggml.token_type").value.__setitem__(3 + 0xC3, 1),
        "its vocabulary has no token <0xC3>, which stands for a byte",
        "lies",
        "internlm2",
    ),
    "a GPT-OSS": Defect(
        _with("general.architecture", "gpt-oss"), "(GPT-OSS, the text model of InternVL3.5-20B-A4B)", "refuses"
    ),
    "Qwen2.5-VL": Defect(_with("general.architecture", "qwen2vl"), "Qwen2.5-VL", "refuses"),
    "no architecture": Defect(_without("general.architecture"), "general.architecture is missing", "refuses"),
    "a plain Qwen2.5": Defect(
        lambda plan: plan.key("tokenizer.ggml.tokens").value.__setitem__(slice(-3, None), ["a1", "a2", "a3"]),
        "a plain Qwen2.5 and no InternVL text model: its vocabulary has no <img>, </img>, <IMG_CONTEXT>",
        "harmless",
    ),
    "a plain Qwen3": Defect(
        lambda plan: plan.key("tokenizer.ggml.tokens").value.__setitem__(slice(-3, None), ["a1", "a2", "a3"]),
        "a plain Qwen3 and no InternVL text model: its vocabulary has no <img>, </img>, <IMG_CONTEXT>",
        "harmless",
        "qwen3",
    ),
    "a vocabulary that was padded": Defect(
        _more_tokens, "its vocabulary of 272 tokens was padded: its embedding table has 270 rows", "refuses", "qwen3"
    ),
    "a vocabulary that was cut": Defect(
        _fewer_tokens, "its vocabulary of 269 tokens was cut: its embedding table has 270 rows", "refuses", "qwen3"
    ),
    "no norm of queries": Defect(
        _without("blk.1.attn_q_norm.weight"), "blk.1.attn_q_norm.weight is missing", "refuses", "qwen3"
    ),
    "a bias that no Qwen3 has": Defect(
        _tensor_like("blk.0.attn_q.bias", "blk.0.attn_q_norm.weight"), "no place for the tensor", "refuses", "qwen3"
    ),
    "heads that were divided": Defect(
        _without("qwen3.attention.key_length"), "value_length is 32, outside 16 to 16", "refuses", "qwen3"
    ),
    "no experts": Defect(_with("qwen3moe.expert_count", 0), "expert_count is 0, outside 1", "dies", "qwen3moe"),
    "more experts than llama.cpp knows": Defect(
        _with("qwen3moe.expert_count", 1025), "expert_count is 1025, outside 1 to 1024", "dies", "qwen3moe"
    ),
    "more experts for a token than there are": Defect(
        _with("qwen3moe.expert_used_count", 5), "expert_used_count is 5, outside 1 to 4", "dies", "qwen3moe"
    ),
    "another number of experts": Defect(
        _with("qwen3moe.expert_count", 3), "blk.0.ffn_gate_inp.weight has the shape [64, 4]", "refuses", "qwen3moe"
    ),
    "experts of another width": Defect(
        _with("qwen3moe.expert_feed_forward_length", 32),
        "blk.0.ffn_gate_exps.weight has the shape [64, 48, 4]",
        "refuses",
        "qwen3moe",
    ),
    "experts in groups": Defect(
        _with("qwen3moe.expert_group_count", 2, UINT32), "expert_group_count is 2, outside 0 to 0", "dies", "qwen3moe"
    ),
    "no rows to choose experts by": Defect(
        _without("blk.1.ffn_gate_inp.weight"), "blk.1.ffn_gate_inp.weight is missing", "refuses", "qwen3moe"
    ),
    "a token twice": Defect(
        lambda plan: plan.key("tokenizer.ggml.tokens").value.__setitem__(3, "the"), "a token appears twice", "dies"
    ),
    "a byte without token": Defect(
        lambda plan: plan.key("tokenizer.ggml.tokens").value.__setitem__(51, "x1"), "has no token T", "lies"
    ),
    "a token that is not UTF-8": Defect(
        lambda plan: plan.key("tokenizer.ggml.tokens").value.__setitem__(258, b"\xff"), "is not UTF-8", "lies"
    ),
    "a token with NUL": Defect(
        lambda plan: plan.key("tokenizer.ggml.tokens").value.__setitem__(258, "a\0b"), "holds a NUL byte", "dies"
    ),
    "fewer types than tokens": Defect(
        lambda plan: plan.key("tokenizer.ggml.token_type").value.pop(), "270 tokens but the types of 269", "refuses"
    ),
    "an unknown token type": Defect(
        lambda plan: plan.key("tokenizer.ggml.token_type").value.__setitem__(0, 9), "of an unknown type", "lies"
    ),
    "a merge that is no pair": Defect(
        lambda plan: plan.key("tokenizer.ggml.merges").value.__setitem__(0, "th"), "is not a pair", "lies"
    ),
    "no merges": Defect(_without("tokenizer.ggml.merges"), "merges is missing", "refuses"),
    "an end of sequence out of range": Defect(
        _with("tokenizer.ggml.eos_token_id", 270), "eos_token_id is 270", "harmless"
    ),
    "another tokenizer": Defect(_with("tokenizer.ggml.model", "llama"), 'tokenizer is "llama"', "dies"),
    "another pre-split": Defect(_with("tokenizer.ggml.pre", "llama-bpe"), 'pre-split "llama-bpe"', "harmless"),
    "a name that is a number": Defect(_with("general.name", 7, UINT32), "UINT32 where STRING belongs", "refuses"),
    "layers as INT32": Defect(_with("qwen2.block_count", 2, INT32), "INT32 where UINT32 belongs", "refuses"),
    "no layers": Defect(_with("qwen2.block_count", 0), "block_count is 0, outside 1 to 512", "dies"),
    "513 layers": Defect(_with("qwen2.block_count", 513), "block_count is 513", "dies"),
    "fewer layers than tensors": Defect(
        _with("qwen2.block_count", 1), "no place for the tensor blk.1.attn_k.bias and 11 more", "refuses"
    ),
    "heads that do not divide": Defect(
        _with("qwen2.attention.head_count", 5), "do not divide a width of 64", "refuses"
    ),
    "no heads": Defect(_with("qwen2.attention.head_count", 0), "head_count is 0", "refuses"),
    "another head count": Defect(_with("qwen2.attention.head_count", 8), "attn_k.weight has the shape", "refuses"),
    "a rope of another width": Defect(
        _with("qwen2.rope.dimension_count", 8, UINT32), "rope.dimension_count is 8, outside 16 to 16", "dies"
    ),
    "an unknown rope scaling": Defect(_with("qwen2.rope.scaling.type", "x", STRING), 'RoPE scaling "x"', "dies"),
    "no rope base": Defect(_without("qwen2.rope.freq_base"), "rope.freq_base is missing", "lies"),
    "a rope base of NaN": Defect(_with("qwen2.rope.freq_base", float("nan")), "freq_base is nan", "refuses"),
    "a negative epsilon": Defect(_with("qwen2.attention.layer_norm_rms_epsilon", -1.0), "epsilon is -1", "dies"),
    "experts": Defect(_with("qwen2.expert_used_count", 2, UINT32), "expert_used_count is 2", "dies"),
    "attention that is not causal": Defect(_with("qwen2.attention.causal", False, BOOL), "not causal", "lies"),
    "a pooled output": Defect(_with("qwen2.pooling_type", 1, UINT32), "pooling_type is 1", "harmless"),
    "predicted layers": Defect(_with("qwen2.nextn_predict_layers", 9, UINT32), "nextn_predict_layers is 9", "dies"),
    "a bias missing": Defect(_without("blk.0.attn_q.bias"), "blk.0.attn_q.bias is missing", "lies"),
    "a norm in F16": Defect(
        lambda plan: plan.retype("blk.0.attn_norm.weight", GGMLQuantizationType.F16), "F16 where F32 belongs", "dies"
    ),
    "weights in a type for computing": Defect(
        lambda plan: setattr(plan.tensor("blk.0.ffn_up.weight"), "type", GGMLQuantizationType.I32),
        "stored as I32",
        "dies",
    ),
    "data at an address that cannot be mapped": Defect(
        lambda plan: (plan.keys.append(number("general.alignment", 8)), setattr(plan, "alignment", 8)),
        "from where llama.cpp cannot map it",
        "dies",
    ),
    "one part of several": Defect(
        _with("split.count", 3, GGUFValueType.UINT16), "consists of 3 files, of which 1 are here", "refuses"
    ),
}


@pytest.mark.parametrize("name", MMPROJ_DEFECTS)
def test_defects_of_an_mmproj_are_refused(name: str) -> None:
    plan = tiny_mmproj()
    MMPROJ_DEFECTS[name].change(plan)
    with pytest.raises(ModelFileError) as caught:
        mmproj_facts_of(plan)
    assert MMPROJ_DEFECTS[name].expected in caught.value.message
    assert caught.value.message.startswith("model.gguf: ")
    assert caught.value.hint


def test_text_models_of_the_family_that_do_not_run_name_those_that_do() -> None:
    plan = tiny_text()
    plan.set("general.architecture", "gpt-oss")
    with pytest.raises(ModelFileError) as caught:
        text_facts_of(plan)
    assert '"gpt-oss"' in caught.value.message
    assert "docs/models.md" in caught.value.hint


@pytest.mark.parametrize("name", TEXT_DEFECTS)
def test_defects_of_a_text_model_are_refused(name: str) -> None:
    plan = TEXT_DEFECTS[name].plan()
    TEXT_DEFECTS[name].change(plan)
    with pytest.raises(ModelFileError) as caught:
        text_facts_of(plan)
    assert TEXT_DEFECTS[name].expected in caught.value.message
    assert caught.value.hint


def _run(native_child: NativeChild, kind: str, plan: Blueprint, path: Path) -> Outcome:
    """Load and run a file as if it had been accepted, with the tile size it asks for."""
    write(path, plan)
    if kind == "text":
        return native_child.run_text(path)
    sizes = []
    for key, default in (("image_size", 32), ("patch_size", 8), ("projector.scale_factor", 2)):
        found = next((key_value.value for key_value in plan.keys if key_value.name == f"{VIT}.{key}"), default)
        sizes.append(found if isinstance(found, int) and 0 < found < 1000 else default)
    side, patch, scale = sizes
    return native_child.run_mmproj(path, side, max(1, (side // patch // scale) ** 2))


def _behaviour(native_child: NativeChild, kind: str, plan: Blueprint, valid: Blueprint, folder: Path) -> str:
    """What llama.cpp does with a plan that nobody validated."""
    expected = _run(native_child, kind, valid, folder / "valid.gguf")
    outcome = _run(native_child, kind, plan, folder / "damaged.gguf")
    if outcome.died:
        return "dies"
    if outcome.values is None:
        return "refuses"
    assert expected.values is not None
    same = np.array_equal(outcome.values, expected.values) and outcome.tokens == expected.tokens
    return "harmless" if same else "lies"


@pytest.mark.skipif(sys.platform != "linux", reason="what it does unchecked was recorded on Linux")
@pytest.mark.parametrize("name", MMPROJ_DEFECTS)
def test_what_stock_llama_cpp_does_with_such_an_mmproj(name: str, native_child: NativeChild, tmp_path: Path) -> None:
    """The reason for the check, and a sign when a newer library no longer needs it."""
    plan = tiny_mmproj()
    MMPROJ_DEFECTS[name].change(plan)
    assert _behaviour(native_child, "mmproj", plan, tiny_mmproj(), tmp_path) == MMPROJ_DEFECTS[name].stock


@pytest.mark.skipif(sys.platform != "linux", reason="what it does unchecked was recorded on Linux")
@pytest.mark.parametrize("name", TEXT_DEFECTS)
def test_what_stock_llama_cpp_does_with_such_a_text_model(name: str, native_child: NativeChild, tmp_path: Path) -> None:
    """The reason for the check, and a sign when a newer library no longer needs it."""
    valid, plan = TEXT_DEFECTS[name].plan(), TEXT_DEFECTS[name].plan()
    TEXT_DEFECTS[name].change(plan)
    assert _behaviour(native_child, "text", plan, valid, tmp_path) == TEXT_DEFECTS[name].stock
