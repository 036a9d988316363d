"""What belongs together is told from what does not, weights that are no numbers are found, and good files pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, quants

from internvl_gguf.errors import ModelFileError, ModelPairError
from internvl_gguf.gguf.arch import TEXT_ARCHITECTURES
from internvl_gguf.gguf.header import read_header
from internvl_gguf.gguf.validation import (
    Identity,
    MmprojFacts,
    TextModelFacts,
    check_finite,
    model_in,
    read_text_headers,
    validate_files,
    validate_mmproj,
    validate_pair,
    validate_text_model,
)
from tests.support.damage import Blueprint, Key, Tensor, array, header_of, number, real, text, write, write_sparse
from tests.support.native_child import NativeChild
from tests.support.tiny_models import (
    mmproj_facts_of,
    text_facts_of,
    tiny_mmproj,
    tiny_text,
    write_tiny_mmproj,
    write_tiny_text,
)

if TYPE_CHECKING:
    from pathlib import Path

UINT32, INT32, FLOAT32, STRING = GGUFValueType.UINT32, GGUFValueType.INT32, GGUFValueType.FLOAT32, GGUFValueType.STRING


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_weights_that_are_not_numbers_are_found_wherever_they_lie(value: float, kind: str, tmp_path: Path) -> None:
    for index in (0, 1, 777, -1):
        plan = tiny_mmproj()
        tensor = plan.tensor("mm.model.mlp.1.weight")
        values = np.frombuffer(tensor.data, np.float32).copy()
        values[index] = value
        tensor.data = values.tobytes()
        if kind != "F32":
            plan.retype("mm.model.mlp.1.weight", GGMLQuantizationType[kind])
        path = write(tmp_path / "model.gguf", plan)
        with pytest.raises(ModelFileError, match=r"weights of mm\.model\.mlp\.1\.weight are NaN or infinite"):
            check_finite(path, read_header(path))


def test_an_mmproj_whose_weights_give_nan_is_refused_with_its_pair(tmp_path: Path) -> None:
    """Stock llama.cpp loads it, and the model then answers token 0 for ever."""
    write_tiny_text(tmp_path / "text.gguf")
    plan = tiny_mmproj()
    plan.fill("mm.model.mlp.3.bias", (64,), float("nan"))
    write(tmp_path / "mmproj.gguf", plan)
    with pytest.raises(ModelFileError, match="NaN or infinite"):
        validate_files(tmp_path / "text.gguf", tmp_path / "mmproj.gguf")
    assert validate_files(tmp_path / "text.gguf", tmp_path / "mmproj.gguf", check_weights=False).text.n_embd == 64


DEQUANTISABLE = [
    kind
    for kind in GGMLQuantizationType
    if kind.name[:2] in ("Q2", "Q3", "Q4", "Q5", "Q6", "Q8", "IQ", "TQ", "MX", "Q1")
    and kind.name not in ("Q8_1", "Q8_K", "Q1_0")
]


@pytest.mark.parametrize("kind", DEQUANTISABLE, ids=lambda kind: kind.name)
def test_the_scales_of_every_quant_are_looked_at(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    """Where a byte of a block can make it infinite or NaN is found by trying, with the gguf package's own decoder."""
    block, size = GGML_QUANT_SIZES[kind]
    for place in range(size):
        data = np.zeros(size * 3, np.uint8)
        data[size + place] = 0xFF
        if kind.name == "IQ1_M":  # its scale has bits in two bytes at once
            data[size + 53] = 0xFF
        with np.errstate(all="ignore"):
            finite = bool(np.isfinite(quants.dequantize(data, kind)).all())
        path = write(tmp_path / "model.gguf", Blueprint([], [Tensor("t", (block * 3,), kind, data.tobytes())]))
        if finite and kind.name != "MXFP4":  # which calls 0xFF NaN and decodes it as 2**127
            check_finite(path, read_header(path))
        elif not finite:
            with pytest.raises(ModelFileError, match="NaN or infinite"):
                check_finite(path, read_header(path))


def test_a_model_that_shrinks_while_its_weights_are_read_is_refused(tmp_path: Path) -> None:
    path = write_tiny_mmproj(tmp_path / "model.gguf")
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ModelFileError, match="got shorter"):
        check_finite(path, header)
    path.unlink()
    with pytest.raises(ModelFileError, match="cannot be read"):
        check_finite(path, header)


def _quantised(plan: Blueprint, kind: str) -> Blueprint:
    for tensor in plan.tensors:
        if len(tensor.shape) in (2, 3) and not any(
            part in str(tensor.name) for part in ("position", "class", "gate_inp")
        ):
            plan.retype(str(tensor.name), GGMLQuantizationType[kind])
    return plan


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_quantised_models_are_accepted_and_run(kind: str, native_child: NativeChild, tmp_path: Path) -> None:
    mmproj = _quantised(tiny_mmproj(n_ff=64), kind)
    assert mmproj_facts_of(mmproj).n_ff == 64
    assert native_child.run_mmproj(write(tmp_path / "mmproj.gguf", mmproj), 32, 4).error is None
    for architecture in TEXT_ARCHITECTURES:
        words = _quantised(tiny_text(kind=architecture, n_ff=128), kind)
        assert text_facts_of(words).n_embd == 64
        assert native_child.run_text(write(tmp_path / "text.gguf", words)).error is None


def test_rows_that_a_quant_cannot_hold_are_refused() -> None:
    plan = tiny_text()
    plan.tensor("blk.0.ffn_down.weight").type = GGMLQuantizationType.Q4_K
    with pytest.raises(ModelFileError, match="96 elements, no multiple of the 256 of Q4_K"):
        header_of(plan)


# Pairs


def test_a_pair_is_read_and_checked_in_one_call(tmp_path: Path) -> None:
    text_path = write_tiny_text(tmp_path / "text.gguf")
    mmproj_path = write_tiny_mmproj(tmp_path / "mmproj.gguf")
    pair = validate_files(text_path, mmproj_path)
    assert pair.mmproj.projection_dim == pair.text.n_embd == 64
    assert pair.text_headers[0].label == str(text_path)
    assert "v.class_embd" in pair.mmproj_header.tensors


def test_text_and_mmproj_the_wrong_way_round_are_told_what_to_do(tmp_path: Path) -> None:
    text_path = write_tiny_text(tmp_path / "text.gguf")
    mmproj_path = write_tiny_mmproj(tmp_path / "mmproj.gguf")
    with pytest.raises(ModelFileError, match=r"it is an mmproj, .* Pass it as --mmproj"):
        validate_files(mmproj_path, mmproj_path)
    with pytest.raises(ModelFileError, match=r'a text model of architecture "qwen2", no mmproj'):
        validate_files(text_path, text_path)


def test_an_mmproj_of_another_width_is_refused() -> None:
    with pytest.raises(ModelPairError, match="embeddings 128 wide, the text model takes 64"):
        validate_pair(text_facts_of(tiny_text()), mmproj_facts_of(tiny_mmproj(projection=128)))


def _shaped(tmp_path: Path, layers: int, width: int, heads: int, name: str = "") -> TextModelFacts:
    plan = tiny_text(n_layers=layers, width=width, n_head=heads, n_head_kv=heads // 4, name=name, weights=False)
    return validate_text_model(read_header(write_sparse(tmp_path / "text.gguf", plan)))


def _vit(tmp_path: Path, width: int, *, large: bool, name: str = "") -> MmprojFacts:
    shape: dict[str, Any] = {"n_layers": 45, "width": 3200, "n_head": 25, "n_ff": 64} if large else {}
    shape = shape or {"n_layers": 24, "width": 1024, "n_head": 16, "n_ff": 64}
    kinds = {"rms_norm": True, "qk_norm": True, "qkv_bias": False} if large else {}
    plan = tiny_mmproj(**shape, **kinds, projection=width, name=name, weights=False)
    return validate_mmproj(read_header(write_sparse(tmp_path / "mmproj.gguf", plan)))


def test_the_14b_and_the_38b_do_not_swap_their_vision_encoders_although_both_are_5120_wide(tmp_path: Path) -> None:
    text_14b, text_38b = _shaped(tmp_path, 48, 5120, 40), _shaped(tmp_path, 64, 5120, 40)
    small, large = _vit(tmp_path, 5120, large=False), _vit(tmp_path, 5120, large=True)
    validate_pair(text_14b, small)
    validate_pair(text_38b, large)
    with pytest.raises(ModelPairError, match="InternViT-6B, a text model of 48 layers goes with InternViT-300M"):
        validate_pair(text_14b, large)
    with pytest.raises(ModelPairError, match="InternViT-300M, a text model of 64 layers goes with InternViT-6B"):
        validate_pair(text_38b, small)


def test_models_of_one_shape_are_told_apart_by_name(tmp_path: Path) -> None:
    """InternVL3-14B and InternVL3.5-14B have the same vision encoder and the same width."""
    ours = _shaped(tmp_path, 48, 5120, 40, "Internvl3-14B-Instruct")
    for name in ("InternVL3_5-14B", "InternVL2.5 14B", "InternVL3 38B"):
        with pytest.raises(ModelPairError, match="the text model of InternVL3-14B"):
            validate_pair(ours, _vit(tmp_path, 5120, large=False, name=name))
    for name in ("Internvl3-14B-Instruct", "InternVL3 14B", "", "my own finetune", "mmproj", "InternVL3"):
        validate_pair(ours, _vit(tmp_path, 5120, large=False, name=name))
    validate_pair(
        _shaped(tmp_path, 48, 5120, 40, "my own finetune"), _vit(tmp_path, 5120, large=False, name="InternVL2_5-14B")
    )


def test_an_mmproj_of_a_release_without_such_text_models_is_refused() -> None:
    """The text model of a finetune has another name; its architecture tells that it is of InternVL3.5."""
    for kind, title, other, same in (
        ("qwen3", "Qwen3", "InternVL3-14B", "InternVL3.5"),
        ("qwen3moe", "Qwen3", "InternVL2_5-4B", "InternVL3.5"),
        ("qwen2", "Qwen2", "InternVL3_5-14B", "InternVL3"),
        ("internlm2", "InternLM2", "InternVL3-8B", "InternVL2.5-8B"),
        ("llama", "InternLM3", "InternVL2_5-8B", "InternVL3-9B"),
    ):
        ours = text_facts_of(tiny_text(kind=kind, name="my own finetune"))
        with pytest.raises(ModelPairError, match=f"a release without text models of {title}") as caught:
            validate_pair(ours, mmproj_facts_of(tiny_mmproj(name=other)))
        assert "the repository the text model came from" in caught.value.hint
        validate_pair(ours, mmproj_facts_of(tiny_mmproj(name=same)))


def test_two_text_models_of_one_width_and_release_are_told_apart_by_name() -> None:
    """InternVL3.5-2B and 30B-A3B are both 2048 wide and have the same vision encoder."""
    ours = text_facts_of(tiny_text(kind="qwen3moe", name="InternVL3_5-30B-A3B"))
    with pytest.raises(ModelPairError, match=r"it is of InternVL3\.5-2B, the text model of InternVL3\.5-30B"):
        validate_pair(ours, mmproj_facts_of(tiny_mmproj(name="InternVL3_5-2B")))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("InternVL3-14B-Instruct", "", ()), "InternVL3-14B"),
        (("Internvl3 14B Instruct", "", ()), "InternVL3-14B"),
        (("InternVL3_5-30B-A3B", "", ()), "InternVL3.5-30B"),
        (("InternVL2_5-38B-MPO", "", ()), "InternVL2.5-38B"),
        (("OpenGVLab_InternVL3-1B-hf", "", ()), "InternVL3-1B"),
        (("Tuned", "Internvl3", ()), "InternVL3"),
        (("Tuned", "", ("InternViT 300M", "https://huggingface.co/OpenGVLab/InternVL3-8B")), "InternVL3-8B"),
        (("Qwen2.5 VL 7B", "", ()), "None"),
        (("InternViT 300M 448px V2_5", "", ()), "None"),
        (("", "", ()), "None"),
    ],
)
def test_names_of_models_are_recognised_as_converters_write_them(
    names: tuple[str, str, tuple[str, ...]], expected: str
) -> None:
    name, basename, base_models = names
    assert str(model_in(Identity(name, basename, "", base_models))) == expected


def test_a_vocabulary_padded_on_both_sides_is_one_of_qwen3_and_runs(native_child: NativeChild, tmp_path: Path) -> None:
    """Qwen3's tables have 151,936 rows for 151,678 tokens; converters write unused tokens for the rest."""
    plain, padded = (tiny_text(kind="qwen3", head_dim=16, padding=padding) for padding in (0, 42))
    facts = text_facts_of(padded)
    assert facts.n_vocab == text_facts_of(plain).n_vocab + 42
    assert (facts.img_context, facts.im_end) == (text_facts_of(plain).img_context, text_facts_of(plain).im_end)
    assert native_child.run_text(write(tmp_path / "padded.gguf", padded)).error is None


def test_names_in_the_metadata_are_all_read_and_odd_ones_passed_over() -> None:
    plan = tiny_text()
    plan.keys += [
        text("general.basename", "Internvl3"),
        text("general.size_label", b"\xff14B"),
        number("general.base_model.count", 2),
        text("general.base_model.0.name", "InternVL3 14B"),
        text("general.base_model.0.repo_url", "https://huggingface.co/OpenGVLab/InternVL3-14B"),
        Key("general.base_model.1.name", UINT32, 5),
        array("general.tags", STRING, ["x"]),
    ]
    identity = text_facts_of(plan).identity
    assert identity.names == (
        "Tiny InternVL",
        "Internvl3",
        "InternVL3 14B",
        "https://huggingface.co/OpenGVLab/InternVL3-14B",
    )
    assert identity.size_label == "\ufffd14B"


# Split text models


def _split(folder: Path, count: int = 3) -> list[Path]:
    whole = tiny_text()
    share = -(-len(whole.tensors) // count)
    paths = []
    for index in range(count):
        part = Blueprint(whole.keys if index == 0 else [], whole.tensors[index * share : (index + 1) * share])
        part = part.copy()
        part.keys += [
            number("split.no", index, GGUFValueType.UINT16),
            number("split.count", count, GGUFValueType.UINT16),
            number("split.tensors.count", len(whole.tensors), INT32),
        ]
        paths.append(write(folder / f"model-{index + 1:05}-of-{count:05}.gguf", part))
    return paths


def test_a_split_text_model_is_checked_as_a_whole_and_runs(native_child: NativeChild, tmp_path: Path) -> None:
    paths = _split(tmp_path)
    headers = read_text_headers(paths[0])
    facts = validate_text_model(headers[0], headers[1:])
    assert facts.weight_bytes == text_facts_of(tiny_text()).weight_bytes
    assert native_child.run_text(paths[0]).error is None
    with pytest.raises(ModelFileError, match="a part of a model of 3 files, and not the first"):
        read_text_headers(paths[1])
    with pytest.raises(ModelFileError, match="it is not part 2 of 3"):
        validate_text_model(headers[0], (headers[2], headers[1]))
    paths[1].unlink()
    with pytest.raises(ModelFileError, match="There is no file"):
        read_text_headers(paths[0])


def test_extra_scales_of_nvfp4_weights_are_known() -> None:
    plan = tiny_text()
    plan.tensors.append(Tensor("blk.0.ffn_up.scale", (1,), GGMLQuantizationType.F32, np.float32(1).tobytes()))
    assert text_facts_of(plan).n_layers == 2


def test_each_expert_may_have_a_scale_of_its_own() -> None:
    plan = tiny_text(kind="qwen3moe", n_expert=4)
    plan.tensors.append(
        Tensor("blk.0.ffn_up_exps.scale", (4,), GGMLQuantizationType.F32, np.ones(4, np.float32).tobytes())
    )
    assert text_facts_of(plan).n_expert == 4
    plan.fill("blk.0.ffn_up_exps.scale", (1,))
    with pytest.raises(ModelFileError, match=r"ffn_up_exps\.scale has the shape"):
        text_facts_of(plan)


def test_rope_scaling_and_odd_but_harmless_keys_pass() -> None:
    plan = tiny_text()
    plan.keys += [
        text("qwen2.rope.scaling.type", "yarn"),
        real("qwen2.rope.scaling.factor", 4.0),
        number("qwen2.rope.scaling.original_context_length", 256),
        number("qwen2.rope.dimension_count", 16),
        text("general.quantized_by", "someone"),
        array("general.languages", STRING, ["multilingual"]),
        array("tokenizer.ggml.scores", FLOAT32, [0.0] * 270),
    ]
    assert text_facts_of(plan).head_dim == 16


def test_scores_of_another_number_are_refused() -> None:
    plan = tiny_text()
    plan.keys.append(array("tokenizer.ggml.scores", INT32, [0] * 12))
    with pytest.raises(ModelFileError, match="another number of scores"):
        text_facts_of(plan)


def test_fused_attention_weights_are_accepted_and_run(native_child: NativeChild, tmp_path: Path) -> None:
    plan = tiny_mmproj(n_layers=1)
    texts = [tiny_text(n_layers=1, kind=kind) for kind in TEXT_ARCHITECTURES]
    for source, block in ((plan, "v.blk.0"), *((words, "blk.0") for words in texts)):
        names = {tensor.name for tensor in source.tensors}
        for part in ("weight", "bias") if f"{block}.attn_q.bias" in names else ("weight",):
            pieces = [source.tensor(f"{block}.attn_{letter}.{part}") for letter in "qkv"]
            rows = sum(piece.shape[-1] for piece in pieces)
            shape = (pieces[0].shape[0], rows) if part == "weight" else (rows,)
            data = b"".join(piece.data for piece in pieces)
            for letter in "qkv":
                source.remove(f"{block}.attn_{letter}.{part}")
            source.tensors.append(Tensor(f"{block}.attn_qkv.{part}", shape, GGMLQuantizationType.F32, data))
    assert mmproj_facts_of(plan).n_layers == 1
    assert [text_facts_of(words).n_layers for words in texts] == [1] * len(texts)
    fused = native_child.run_mmproj(write(tmp_path / "m.gguf", plan), 32, 4)
    separate = native_child.run_mmproj(write_tiny_mmproj(tmp_path / "s.gguf", n_layers=1), 32, 4)
    assert fused.values is not None
    assert separate.values is not None
    np.testing.assert_allclose(fused.values, separate.values, rtol=1e-4, atol=1e-5)
    for words in texts:
        assert native_child.run_text(write(tmp_path / "t.gguf", words)).error is None


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_patch_embeddings_of_every_float_type_run(kind: str, native_child: NativeChild, tmp_path: Path) -> None:
    plan = tiny_mmproj()
    if kind != "F32":
        plan.retype("v.patch_embd.weight", GGMLQuantizationType[kind])
    assert mmproj_facts_of(plan).n_embd == 32
    assert native_child.run_mmproj(write(tmp_path / "mmproj.gguf", plan), 32, 4).error is None
