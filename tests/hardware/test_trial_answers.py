"""The checks of the trial: the installed library gives the known answers, and a wrong kernel exceeds the bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from internvl_gguf.hardware.trial.steps import Step
from internvl_gguf.hardware.trial.trial_report import trial_report
from internvl_gguf.llama.trial import library_checks as trial_checks
from internvl_gguf.llama.trial import tiny_encoder
from internvl_gguf.llama.trial.library_checks import Setting, checks, distance, expert_checks
from internvl_gguf.llama.trial.tiny_encoder import TinyEncoder
from internvl_gguf.llama.trial.tiny_qwen3 import USED, TinyQwen3, TinyQwen3Moe
from internvl_gguf.llama.trial.tiny_text import VOCABULARY, TinyText
from internvl_gguf.llama.trial.weights import KINDS, random_matrix

Values = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

TOKENS = np.random.default_rng(5).integers(0, VOCABULARY, 51).tolist()
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def test_the_installed_library_is_right_on_this_machine() -> None:
    """With all it has, or without kernels that were compiled wrongly."""
    report = trial_report({})
    assert report.problems == []
    last = report.tried["CPU"][-1]
    assert last.checks >= 30
    assert report.positions_are_shifted is True, "this build gives every patch its neighbour's position row"


def test_every_type_of_weight_that_is_published_is_tried() -> None:
    names = {name for name, _ in checks(Setting())}
    kinds = (
        "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S"
    )
    assert {f"weights {kind}" for kind in (*kinds.split(), "IQ4_NL", "IQ4_XS")} <= names
    caches = {f"attention {kind}" for kind in ("f32", "f16", "bf16")}
    flash = {f"flash attention {kind}" for kind in ("f32", "f16", "bf16", "q8_0", "q4_0")}
    assert caches | flash | {f"encoder {kind}" for kind in ("F32", "F16", "BF16", "Q8_0")} <= names
    assert {name for name, _ in checks(Setting(flash_attn=False))} == names - flash
    assert {name for name, _ in expert_checks(Setting())} == {f"experts {kind.name}" for kind in KINDS}
    assert "norms of heads" in names


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_weights_are_numbers_of_the_spread_asked_for_and_always_the_same(kind: GGMLQuantizationType) -> None:
    one, two = (random_matrix(np.random.default_rng(3), kind, 64, 512, 0.05) for _ in range(2))
    assert np.array_equal(one.stored, two.stored)
    assert np.isfinite(one.values).all()
    assert one.values.std() == pytest.approx(0.05, rel=0.2)
    assert abs(one.values.mean()) < 0.01


def rolled_rows(values: Values) -> Values:
    return np.roll(values, 1, axis=0)


def other_scale(values: Values) -> Values:
    return values * np.float32(0.5)


def last_rows_left_out(values: Values) -> Values:
    changed = values.copy()
    changed[-len(values) // 16 :] = 0
    return changed


def last_columns_left_out(values: Values) -> Values:
    changed = values.copy()
    changed[:, -32:] = 0
    return changed


def exchanged_halves(values: Values) -> Values:
    return np.roll(values, values.shape[1] // 2, axis=1)


def without_minimum(values: Values) -> Values:
    lowest: Values = values.min(axis=1, keepdims=True)
    return values - lowest


def lost_signs(values: Values) -> Values:
    return np.abs(values)


FAULTS = (rolled_rows, other_scale, last_rows_left_out, last_columns_left_out, exchanged_halves, without_minimum)


@pytest.mark.parametrize("fault", [*FAULTS, lost_signs], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("part", [*(f"blk.0.{name}" for name in MATRICES), "token_embd", "output"])
def test_a_wrong_kernel_breaks_the_bound_of_quantised_weights(part: str, fault: Callable[[Values], Values]) -> None:
    """In one matrix alone, where real faults are in all of them."""
    tiny = TinyText.random(GGMLQuantizationType.Q4_K, 4, 2)
    matrix = tiny.matrices[f"{part}.weight"]
    wrong = replace(tiny, matrices={**tiny.matrices, f"{part}.weight": replace(matrix, values=fault(matrix.values))})
    found = distance(wrong.logits(TOKENS), tiny.logits(TOKENS))
    assert found > trial_checks.bound_of_weights("Q4_K")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_experts_of_the_installed_library_are_right_on_this_machine(kind: GGMLQuantizationType) -> None:
    """`internvl doctor` does not try them, since the first model that has experts of a type does."""
    step = trial_report({}).tried["CPU"][-1].step
    answer = dict(expert_checks(Setting(extra_buffers=step.extra_buffers)))[f"experts {kind.name}"]()
    assert answer.distance < answer.bound


def exchanged_experts(values: Values) -> Values:
    return np.roll(values, 1, axis=0)


def by_expert(fault: Callable[[Values], Values]) -> Callable[[Values], Values]:
    """The fault in the matrix of every expert."""
    return lambda values: np.stack([fault(each) for each in values])


@pytest.mark.parametrize("fault", [*FAULTS, lost_signs, exchanged_experts], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("part", ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"])
def test_a_wrong_kernel_breaks_the_bound_of_quantised_experts(part: str, fault: Callable[[Values], Values]) -> None:
    tiny, name = TinyQwen3Moe.of_experts(GGMLQuantizationType.Q4_K), f"blk.0.{part}.weight"
    changed = (fault if fault is exchanged_experts else by_expert(fault))(tiny.matrices[name].values)
    wrong = replace(tiny, matrices={**tiny.matrices, name: replace(tiny.matrices[name], values=changed)})
    assert distance(wrong.logits(TOKENS), tiny.logits(TOKENS)) > trial_checks.bound_of_experts("Q4_K")


def test_another_choice_of_experts_breaks_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """One expert less for each token, the least likely of the chosen ones."""
    tiny = TinyQwen3Moe.of_experts(GGMLQuantizationType.Q4_K)
    expected = tiny.logits(TOKENS)
    monkeypatch.setattr("internvl_gguf.llama.trial.tiny_qwen3.USED", USED - 1)
    assert distance(tiny.logits(TOKENS), expected) > trial_checks.bound_of_experts("Q4_K")


def test_no_rounding_changes_the_choice_of_experts() -> None:
    """Where two experts are nearly equally likely, another rounding could exchange them, and the check would fail."""
    tiny = TinyQwen3Moe.of_experts(GGMLQuantizationType.F32)
    router = tiny.matrices["blk.0.ffn_gate_inp.weight"]
    # Half precision, as a GPU may multiply with, everywhere but in the experts themselves.
    halved = {
        name: replace(matrix, values=matrix.values.astype(np.float16).astype(np.float32))
        for name, matrix in tiny.matrices.items()
        if "_exps" not in name
    }
    assert halved["blk.0.ffn_gate_inp.weight"].values.shape == router.values.shape
    rounded = replace(tiny, matrices={**tiny.matrices, **halved})
    assert distance(rounded.logits(TOKENS), tiny.logits(TOKENS)) < 5e-3


@pytest.mark.parametrize("part", ["attn_q_norm", "attn_k_norm"])
def test_a_norm_of_heads_that_is_wrong_breaks_its_bound(part: str) -> None:
    tiny, name = TinyQwen3.dense(), f"blk.0.{part}.weight"
    wrong = replace(tiny, vectors={**tiny.vectors, name: np.roll(tiny.vectors[name], 1)})
    answer = dict(checks(Setting()))["norms of heads"]()
    assert distance(wrong.logits(TOKENS), tiny.logits(TOKENS)) > answer.bound > answer.distance


def test_a_wrong_row_or_column_of_the_answer_is_not_averaged_away() -> None:
    expected = TinyText.random(GGMLQuantizationType.F32, 4, 2).logits(TOKENS)
    for place in ((-1, slice(None)), (slice(None), 7)):
        wrong = expected.copy()
        wrong[place] *= 0.5
        assert distance(wrong, expected) > 0.3
        assert np.linalg.norm(wrong - expected) / np.linalg.norm(expected) < 0.1


@pytest.mark.parametrize("kind", tiny_encoder.KINDS, ids=lambda kind: kind.name)
def test_both_rules_for_position_rows_are_far_apart(kind: GGMLQuantizationType) -> None:
    tiny = TinyEncoder.random(kind)
    assert distance(tiny.embeddings(shifted=True), tiny.embeddings(shifted=False)) > 1


@pytest.mark.parametrize("name", ["v.blk.0.attn_q", "v.blk.0.ffn_down", "v.patch_embd", "mm.model.mlp.1"])
def test_a_wrong_kernel_breaks_the_bound_of_the_encoder(name: str) -> None:
    tiny = TinyEncoder.random(GGMLQuantizationType.Q8_0)
    values = {**tiny.values, f"{name}.weight": np.roll(tiny.values[f"{name}.weight"], 1, axis=0)}
    wrong = replace(tiny, values=values).embeddings(shifted=True)
    assert distance(wrong, tiny.embeddings(shifted=True)) > 0.1


def test_a_library_that_computes_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked in this process, with an expected answer that belongs to another model."""
    original = TinyText.logits
    monkeypatch.setattr(TinyText, "logits", lambda self, tokens: np.roll(original(self, tokens), 1, axis=1))
    trial_checks._case.cache_clear()
    step = trial_report({}).tried["CPU"][-1].step
    answers = dict(checks(Setting(extra_buffers=step.extra_buffers, flash_attn=step.flash_attn)))
    try:
        answer = answers["weights F32"]()
        assert answer.distance > 1 > answer.bound
    finally:
        trial_checks._case.cache_clear()
    assert Step().fallbacks()[0] == Step(), "the first step is everything"
