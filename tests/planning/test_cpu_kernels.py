"""Which kernels a text model gets on the CPU: by measurement, else by the CPU's features; never those that failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from internvl_gguf.gguf.arch.base import VisionShape
from internvl_gguf.hardware.device_speed import DeviceSpeed, Range, Roofline
from internvl_gguf.hardware.typical_devices import ASSUMED_HOST_TO_GPU, assumed_device
from internvl_gguf.memory import ModelShape, TextWeights, resized_text, resized_vision
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.planning import cpu_kernels
from internvl_gguf.planning.candidates import Candidate, Encoder, nominal_shape
from internvl_gguf.planning.cpu_kernels import measured_gains, plain_is_faster
from internvl_gguf.planning.planner import Planner
from internvl_gguf.planning.speed_estimate import estimate_speed
from internvl_gguf.planning.workload import MemoryBudget, Workload

PICTURE = {"n_prompt": 13 * 256 + 100, "n_answer": 200}
CHAT = {"n_prompt": 100, "n_answer": 300}
ENCODER_BYTES = 620_000_000
AVX512 = frozenset({"avx2", "avx512f"})


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    spec = load_catalog().find("InternVL3-1B-Instruct")
    assert spec
    assert spec.text
    assert isinstance(spec.vision, VisionShape)
    return nominal_shape(spec.text, spec.vision)


def stored(shape: ModelShape, kind: str) -> TextWeights:
    """The text model with all its matrices of one type."""
    text = resized_text(shape.text, int(shape.text.parameters * 4.5 / 8))
    weights = tuple(replace(each, kind=kind) if len(each.shape) == 2 else each for each in text.weights)
    return replace(text, weights=weights)


def measured(read: float, written: float, kind: str = "q4_k") -> DeviceSpeed:
    """A CPU on which weights of a type as in the file are read and written so many times as fast."""
    usual = Range(1e9, 1e9)
    return replace(
        assumed_device("cpu"),
        measured=True,
        matrix_rate={kind: usual},
        bandwidth={kind: usual},
        plain_matrix_rate={kind: usual.times(read)},
        plain_bandwidth={kind: usual.times(written)},
    )


@pytest.mark.parametrize(
    ("read", "written", "expected"),
    [
        (1.7, 0.7, True),  # AVX-512: a picture is read much sooner, an answer written a little later
        (1.0, 1.0, False),
        (1.02, 1.02, False),  # not worth leaving llama.cpp's own choice
        (0.6, 0.9, False),
    ],
)
def test_a_measurement_decides_for_a_question_about_a_picture(
    shape: ModelShape, read: float, written: float, *, expected: bool
) -> None:
    assert plain_is_faster(stored(shape, "q4_k"), measured(read, written), **PICTURE) == expected


def test_what_is_faster_depends_on_how_much_is_read_and_written(shape: ModelShape) -> None:
    host = replace(measured(1.7, 0.5), bandwidth={"q4_k": Range(1e6, 1e6)}, plain_bandwidth={"q4_k": Range(5e5, 5e5)})
    assert plain_is_faster(stored(shape, "q4_k"), measured(1.7, 0.5), **PICTURE)
    assert not plain_is_faster(stored(shape, "q4_k"), host, **CHAT)


def test_types_without_another_layout_leave_nothing_to_choose(shape: ModelShape) -> None:
    assert not plain_is_faster(stored(shape, "q8_0"), measured(9.0, 9.0), **PICTURE)


@pytest.mark.parametrize(
    ("flags", "kind", "expected"),
    [
        (AVX512, "q4_k", True),
        (AVX512, "q4_0", False),
        (AVX512, "q8_0", False),
        (AVX512 | {"amx_tile", "amx_int8"}, "q4_k", False),
        (frozenset({"avx2"}), "q4_k", False),
        (frozenset(), "q4_k", False),
    ],
)
def test_before_a_measurement_the_features_of_the_cpu_decide(
    shape: ModelShape, flags: frozenset[str], kind: str, monkeypatch: pytest.MonkeyPatch, *, expected: bool
) -> None:
    monkeypatch.setattr(cpu_kernels, "cpu_flags", lambda: flags)
    assert plain_is_faster(stored(shape, kind), None, **PICTURE) == expected
    assert not plain_is_faster(stored(shape, kind), None, **CHAT)


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("read", [1.7, 0.5])
def test_the_plan_has_the_choice_and_its_speed(shape: ModelShape, read: float, *, allowed: bool) -> None:
    """Where the library's trial refused the reordered kernels, they are never chosen."""
    assert shape.vision
    text = stored(shape, "q4_k")
    encoder = Encoder("F16", "", ENCODER_BYTES, resized_vision(shape.vision, ENCODER_BYTES))
    candidate = Candidate("m", "Q4_K", "", 1, 0.0, "header", text, (encoder,))
    budget = replace(MemoryBudget(64 * 2**30, ()), extra_buffers=allowed)
    roofline = Roofline(measured(read, 1.0), (), ASSUMED_HOST_TO_GPU)
    found = Planner(budget, Workload(), roofline, lambda each: (each.loss,)).best(candidate)
    assert found
    assert found.request.extra_buffers == (allowed and read < 1)
    usual, plain = (
        estimate_speed(
            candidate.shape(encoder),
            replace(found.request, extra_buffers=extra),
            roofline,
            tiles_per_picture=13,
            depth=3000,
        )
        for extra in (True, False)
    )
    assert (plain.prefill.high > usual.prefill.high) == (read > 1)


def test_doctor_lists_what_was_measured() -> None:
    assert measured_gains(measured(1.7, 0.8)) == {"q4_k": (pytest.approx(1.7), pytest.approx(0.8))}
    assert measured_gains(assumed_device("cpu")) == {}
