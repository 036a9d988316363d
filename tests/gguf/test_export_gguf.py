"""The exporter: names, keys, storage and refusals, as llama.cpp's own converter has them for InternVL3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, LlamaFileType, TokenType

from internvl_gguf.gguf.header import read_header
from internvl_gguf.gguf.validation import validate_mmproj, validate_pair, validate_text_model
from training.export_gguf import (
    Metadata,
    StorageType,
    TextShape,
    TokenizerSpec,
    VisionShape,
    byte_level,
    export_mmproj,
    export_text,
    state_name,
)

TEXT = TextShape(vocab=270, width=32, layers=2, heads=4, kv_heads=2, ffn=48, context_length=512, tied=False)
VISION = VisionShape(image_size=56, patch_size=14, width=32, layers=2, heads=2, ffn=64, projection=32)
METADATA = Metadata("Little InternVL", "little-internvl", description="For tests.")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
PADDING = tuple(f"[PAD{index}]" for index in range(TEXT.vocab - 256 - len(SPECIAL)))
TOKENIZER = TokenizerSpec(
    tokens=(*(byte_level(bytes([byte])) for byte in range(256)), *SPECIAL, *PADDING),
    types=(TokenType.NORMAL,) * 256 + (TokenType.CONTROL,) * len(SPECIAL) + (TokenType.UNUSED,) * len(PADDING),
    merges=("t h", "th e"),
    eos=258,
    pad=256,
    chat_template="{{ messages }}",
)

StateDict = dict[str, np.ndarray]

# One layer's tensors under transformers' names, and what the converter calls them.
TEXT_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
TEXT_REST = {
    "model.language_model.embed_tokens.weight": "token_embd.weight",
    "model.language_model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
VISION_LAYER = {
    "layernorm_before.weight": "ln1.weight",
    "layernorm_before.bias": "ln1.bias",
    "attention.q_proj.weight": "attn_q.weight",
    "attention.q_proj.bias": "attn_q.bias",
    "attention.k_proj.weight": "attn_k.weight",
    "attention.k_proj.bias": "attn_k.bias",
    "attention.v_proj.weight": "attn_v.weight",
    "attention.v_proj.bias": "attn_v.bias",
    "attention.projection_layer.weight": "attn_out.weight",
    "attention.projection_layer.bias": "attn_out.bias",
    "lambda_1": "ls1.weight",
    "layernorm_after.weight": "ln2.weight",
    "layernorm_after.bias": "ln2.bias",
    "mlp.fc1.weight": "ffn_up.weight",
    "mlp.fc1.bias": "ffn_up.bias",
    "mlp.fc2.weight": "ffn_down.weight",
    "mlp.fc2.bias": "ffn_down.bias",
    "lambda_2": "ls2.weight",
}
QK_NORM = {"attention.q_norm.weight": "attn_q_norm.weight", "attention.k_norm.weight": "attn_k_norm.weight"}
VISION_REST = {
    "model.vision_tower.embeddings.cls_token": "v.class_embd",
    "model.vision_tower.embeddings.position_embeddings": "v.position_embd.weight",
    "model.vision_tower.embeddings.patch_embeddings.projection.weight": "v.patch_embd.weight",
    "model.vision_tower.embeddings.patch_embeddings.projection.bias": "v.patch_embd.bias",
    "model.multi_modal_projector.layer_norm.weight": "mm.model.mlp.0.weight",
    "model.multi_modal_projector.layer_norm.bias": "mm.model.mlp.0.bias",
    "model.multi_modal_projector.linear_1.weight": "mm.model.mlp.1.weight",
    "model.multi_modal_projector.linear_1.bias": "mm.model.mlp.1.bias",
    "model.multi_modal_projector.linear_2.weight": "mm.model.mlp.3.weight",
    "model.multi_modal_projector.linear_2.bias": "mm.model.mlp.3.bias",
}


def names(text: TextShape = TEXT, vision: VisionShape = VISION) -> dict[str, str]:
    """Every tensor of a model: name in transformers to name in GGUF."""
    table = dict(TEXT_REST) | dict(VISION_REST)
    for layer in range(text.layers):
        table |= {f"model.language_model.layers.{layer}.{a}": f"blk.{layer}.{b}" for a, b in TEXT_LAYER.items()}
    for layer in range(vision.layers):
        parts = VISION_LAYER | QK_NORM if vision.qk_norm else VISION_LAYER
        table |= {f"model.vision_tower.encoder.layer.{layer}.{a}": f"v.blk.{layer}.{b}" for a, b in parts.items()}
    return table


def state_dict(text: TextShape = TEXT, vision: VisionShape = VISION) -> StateDict:
    shapes = replace(text, tied=False).tensor_shapes() | vision.tensor_shapes()
    random = np.random.default_rng(3)
    return {hf: random.standard_normal(shapes[ours], dtype=np.float32) for hf, ours in names(text, vision).items()}


def write_pair(
    folder: Path, tensors: StateDict, text: TextShape = TEXT, vision: VisionShape = VISION, dtype: StorageType = "f32"
) -> tuple[GGUFReader, GGUFReader]:
    export_text(folder / "text.gguf", tensors, text, TOKENIZER, METADATA, dtype)
    export_mmproj(folder / "mmproj.gguf", tensors, vision, METADATA, dtype)
    return GGUFReader(folder / "text.gguf"), GGUFReader(folder / "mmproj.gguf")


def test_every_tensor_arrives_under_its_name_unchanged(tmp_path: Path) -> None:
    tensors = state_dict()
    readers = write_pair(tmp_path, tensors)
    written = {tensor.name: tensor.data for reader in readers for tensor in reader.tensors}
    assert written.keys() == set(names().values())
    for hf, ours in names().items():
        assert np.array_equal(written[ours].reshape(tensors[hf].shape), tensors[hf]), ours


def test_the_runtime_accepts_the_pair(tmp_path: Path) -> None:
    write_pair(tmp_path, state_dict())
    text = validate_text_model(read_header(tmp_path / "text.gguf"))
    vision = validate_mmproj(read_header(tmp_path / "mmproj.gguf"))
    validate_pair(text, vision)
    assert (text.n_embd, vision.image_size, vision.tokens_per_tile) == (32, 56, 4)


@pytest.mark.parametrize(
    ("dtype", "file_type", "matrix", "patch"),
    [
        ("f32", LlamaFileType.ALL_F32, "F32", "F32"),
        ("f16", LlamaFileType.MOSTLY_F16, "F16", "F16"),
        ("bf16", LlamaFileType.MOSTLY_BF16, "BF16", "F32"),
    ],
)
def test_storage_types_are_the_converters(
    tmp_path: Path, dtype: StorageType, file_type: LlamaFileType, matrix: str, patch: str
) -> None:
    readers = write_pair(tmp_path, state_dict(), dtype=dtype)
    types = {tensor.name: tensor.tensor_type.name for reader in readers for tensor in reader.tensors}
    assert all(reader.fields["general.file_type"].contents() == file_type for reader in readers)
    assert types.pop("v.patch_embd.weight") == patch
    shapes = TEXT.tensor_shapes() | VISION.tensor_shapes()
    for name, kind in types.items():
        plain = len(shapes[name]) == 1 or name in ("v.class_embd", "v.position_embd.weight")
        assert kind == ("F32" if plain else matrix), name


def test_keys_are_the_converters(tmp_path: Path) -> None:
    text, vision = write_pair(tmp_path, state_dict())
    keys = {key: field.contents() for key, field in text.fields.items()}
    assert keys["general.architecture"] == "qwen2"
    assert keys["general.type"] == "model"
    assert keys["general.name"] == "Little InternVL"
    assert keys["general.basename"] == "little-internvl"
    assert keys["general.license"] == "mit"
    assert keys["qwen2.block_count"] == 2
    assert keys["qwen2.attention.head_count_kv"] == 2
    assert keys["qwen2.rope.freq_base"] == 1e6
    assert keys["tokenizer.ggml.model"] == "gpt2"
    assert keys["tokenizer.ggml.pre"] == "qwen2"
    assert keys["tokenizer.ggml.tokens"] == list(TOKENIZER.tokens)
    assert keys["tokenizer.ggml.merges"] == ["t h", "th e"]
    assert keys["tokenizer.ggml.eos_token_id"] == 258
    assert keys["tokenizer.ggml.add_bos_token"] is False
    keys = {key: field.contents() for key, field in vision.fields.items()}
    assert keys["general.architecture"] == "clip"
    assert keys["general.type"] == "mmproj"
    assert keys["clip.projector_type"] == "internvl"
    assert keys["clip.has_vision_encoder"] is True
    assert keys["clip.use_gelu"] is True
    assert keys["clip.vision.image_size"] == 56
    assert keys["clip.vision.projection_dim"] == 32
    assert keys["clip.vision.projector.scale_factor"] == 2
    assert keys["clip.vision.preproc_max_tiles"] == 12
    assert keys["clip.vision.image_mean"] == pytest.approx([0.485, 0.456, 0.406])


def test_a_tied_model_has_no_output_matrix(tmp_path: Path) -> None:
    tensors = state_dict()
    tied = replace(TEXT, tied=True)
    with pytest.raises(ValueError, match="tied=False"):
        export_text(tmp_path / "text.gguf", tensors, tied, TOKENIZER, METADATA)
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"]
    text, _ = write_pair(tmp_path, tensors, tied)
    assert "output.weight" not in {tensor.name for tensor in text.tensors}


def test_queries_and_keys_normalised_over_the_width(tmp_path: Path) -> None:
    vision = replace(VISION, qk_norm=True)
    _, written = write_pair(tmp_path, state_dict(vision=vision), vision=vision)
    assert {"v.blk.1.attn_q_norm.weight", "v.blk.1.attn_k_norm.weight"} <= {tensor.name for tensor in written.tensors}


QWEN3 = replace(TEXT, kind="qwen3", head_dim=16)
QWEN3MOE = replace(QWEN3, kind="qwen3moe", experts=4, experts_used=2, expert_ffn=24)


def qwen3_state_dict(shape: TextShape) -> StateDict:
    """The text tensors of a Qwen3 under transformers' names, which keeps gate and up of all experts in one."""
    random = np.random.default_rng(4)
    tensors: StateDict = {}
    for name, sizes in shape.tensor_shapes().items():
        data = random.standard_normal(sizes, dtype=np.float32)
        if name.endswith(("ffn_gate_exps.weight", "ffn_up_exps.weight")):
            stem = state_name(name).rsplit(".", 1)[0]
            tensors.setdefault(f"{stem}.gate_up_proj", np.zeros((4, 48, 32), np.float32))
            place = slice(0, 24) if "gate" in name else slice(24, 48)
            tensors[f"{stem}.gate_up_proj"][:, place] = data
        else:
            tensors[state_name(name)] = data
    return tensors


@pytest.mark.parametrize("shape", [QWEN3, QWEN3MOE], ids=lambda shape: shape.kind)
def test_the_text_models_of_internvl3_5_arrive_and_are_accepted(shape: TextShape, tmp_path: Path) -> None:
    tensors = qwen3_state_dict(shape)
    export_text(tmp_path / "text.gguf", tensors, shape, TOKENIZER, METADATA, "f16")
    written = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "text.gguf").tensors}
    assert written.keys() == shape.tensor_shapes().keys()
    facts = validate_text_model(read_header(tmp_path / "text.gguf"))
    assert (facts.architecture, facts.head_dim, facts.n_expert, facts.n_ff_exp) == (
        (shape.kind, 16, shape.experts, shape.expert_ffn)
    )
    if shape.experts:
        kept = tensors["model.language_model.layers.1.mlp.experts.gate_up_proj"].astype(np.float16)
        assert np.array_equal(written["blk.1.ffn_gate_exps.weight"].data, kept[:, :24])
        assert np.array_equal(written["blk.1.ffn_up_exps.weight"].data, kept[:, 24:])
        assert written["blk.1.ffn_gate_inp.weight"].tensor_type.name == "F32"


def test_rms_norm_is_for_the_6b_encoder_alone() -> None:
    """llama.cpp tells InternViT-6B by width and depth, and would silently apply LayerNorm to any other."""
    with pytest.raises(ValueError, match="3200"):
        replace(VISION, rms_norm=True)
    with pytest.raises(ValueError, match="3200"):
        replace(VISION, width=3200, layers=45)
    shapes = replace(VISION, width=3200, layers=45, heads=25, rms_norm=True, qkv_bias=False).tensor_shapes()
    assert "v.blk.44.ln1.weight" in shapes
    assert "v.blk.44.ln1.bias" not in shapes
    assert "v.blk.44.attn_q.bias" not in shapes


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors: tensors.pop("model.vision_tower.encoder.layer.1.lambda_2"), "missing: v.blk.1.ls2.weight"),
        (lambda tensors: tensors.update(odd=np.zeros(3, np.float32)), "no GGUF tensor is known for 'odd'"),
        (
            lambda tensors: tensors.update({"model.vision_tower.embeddings.cls_token": np.zeros((1, 32), np.float32)}),
            r"v.class_embd is \(1, 32\), expected \(1, 1, 32\)",
        ),
        (
            lambda tensors: tensors.update(
                {"model.vision_tower.encoder.layer.2.lambda_2": np.zeros(32, dtype=np.float32)}
            ),
            "no place for: v.blk.2.ls2.weight",
        ),
    ],
)
def test_a_state_dict_of_another_model_is_refused(
    tmp_path: Path, damage: Callable[[StateDict], object], message: str
) -> None:
    tensors = state_dict()
    damage(tensors)
    with pytest.raises(ValueError, match=message):
        export_mmproj(tmp_path / "mmproj.gguf", tensors, VISION, METADATA)
    assert not (tmp_path / "mmproj.gguf").exists()


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="269 tokens and 270 types"):
        export_text(tmp_path / "t.gguf", state_dict(), TEXT, replace(TOKENIZER, tokens=TOKENIZER.tokens[1:]), METADATA)
    doubled = replace(TOKENIZER, tokens=(*TOKENIZER.tokens[1:], "!"))
    with pytest.raises(ValueError, match="twice"):
        export_text(tmp_path / "t.gguf", state_dict(), TEXT, doubled, METADATA)


def test_byte_level_is_the_gpt2_alphabet() -> None:
    assert byte_level(b"Hi there\n") == "HiĠthereĊ"
    assert byte_level("é".encode()) == "Ã©"
    assert len({byte_level(bytes([byte])) for byte in range(256)}) == 256
