"""Which library encodes pictures: the user's choice where it can be had, else what was measured to be faster."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf import Session
from internvl_gguf.config import EncoderKind, EncoderLibrary, EncoderPrecision, EngineConfig
from internvl_gguf.errors import LibraryError
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session.saved_file import read_saved
from internvl_gguf.vision import choice
from tests.support.pictures import noise

LARGE, SMALL = 730e9, 1e9
"""Operations of a tile: InternViT-300M, and the demo model's encoder."""

Choose = Callable[..., EncoderKind]


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def choose(notices: list[str], monkeypatch: pytest.MonkeyPatch) -> Choose:
    """Chooses on a machine where OpenVINO takes some part of llama.cpp's time; nothing is measured."""

    def run(
        ratio: float | None = 0.5, operations: float = LARGE, *, is_cpu_alone: bool = True, **options: Any
    ) -> EncoderKind:
        def seconds(labels: tuple[str, ...], on_progress: Callable[[str], None]) -> dict[str, float]:
            on_progress("measuring")
            return {} if ratio is None else {labels[0]: 1.0, labels[1]: ratio}

        monkeypatch.setattr(choice, "measured_seconds", seconds)
        config = EngineConfig(**{"encoder_precision": "f32", **options})
        return choice.choose_encoder(config, "F16", operations, is_cpu_alone=is_cpu_alone, on_notice=notices.append)

    return run


@pytest.mark.parametrize(("ratio", "expected"), [(0.5, "openvino f32"), (0.95, "llama.cpp"), (None, "llama.cpp")])
def test_auto_takes_what_was_measured_to_be_faster(choose: Choose, ratio: float | None, expected: str) -> None:
    assert choose(ratio) == expected


def test_auto_measures_nothing_for_a_small_encoder_or_beside_a_gpu(choose: Choose, notices: list[str]) -> None:
    assert choose(0.1, SMALL) == "llama.cpp"
    assert choose(0.1, is_cpu_alone=False) == "llama.cpp"
    assert notices == []


def test_the_user_decides(choose: Choose, notices: list[str]) -> None:
    assert choose(0.1, encoder="llama.cpp") == "llama.cpp"
    assert choose(9.0, SMALL, encoder="openvino") == "openvino f32"
    assert choose(9.0, encoder="openvino", encoder_precision="bf16") == "openvino bf16"
    assert notices == []


@pytest.mark.parametrize(("version", "reason"), [(None, "is not installed"), ("2024.6.0", "2024.6.0 is installed")])
def test_where_openvino_is_missing_or_of_another_release_llama_cpp_encodes(
    choose: Choose, notices: list[str], monkeypatch: pytest.MonkeyPatch, version: str | None, reason: str
) -> None:
    def tell(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", tell)
    assert choose() == "llama.cpp"
    assert notices == []
    assert choose(encoder="openvino") == "llama.cpp"
    (notice,) = notices
    assert reason in notice
    assert "pip install 'internvl-gguf[openvino]'" in notice
    assert reason in choice.measured_choice()[1]


@pytest.mark.parametrize(
    ("seconds", "expected", "reason"),
    [
        ({"F16": 1.0, "openvino bf16": 0.3, "openvino f32": 0.8}, "openvino bf16", "measured at 0.30 times"),
        ({"F16": 1.0, "openvino f32": 0.8}, "openvino f32", "measured at 0.80 times"),
        ({"F16": 1.0, "openvino f32": 1.5}, "llama.cpp", "OpenVINO was measured at 1.50 times"),
        ({"F16": 1.0}, "llama.cpp", "doctor --measure"),
    ],
)
def test_doctor_says_what_encodes_and_why(
    seconds: dict[str, float], expected: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "known_seconds", lambda: seconds)
    kind, why = choice.measured_choice()
    assert kind == expected
    assert reason in why


def test_an_openvino_that_cannot_be_loaded_leaves_the_pictures_to_llama_cpp(
    tiny: ModelFiles, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel of another Python, a library that the system lacks."""
    for name in [name for name in sys.modules if name.startswith("internvl_gguf.vision.openvino")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with Session.open(tiny.text, tiny.mmproj, n_ctx=512, encoder="openvino", on_notice=notices.append) as session:
        assert session.runtime.configuration.request.encoder == "llama.cpp"
    assert any("OpenVINO cannot be loaded" in notice for notice in notices)


def test_where_openvino_cannot_use_the_cpu_llama_cpp_encodes(
    choose: Choose, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> bool:
        raise LibraryError("OpenVINO cannot encode pictures here: no CPU plugin.", "Use --encoder llama.cpp.")

    monkeypatch.setattr("internvl_gguf.vision.openvino_encoder.has_bfloat16", refuse)
    assert choose(encoder_precision="auto") == "llama.cpp"
    assert notices == []
    assert choose(encoder="openvino", encoder_precision="auto") == "llama.cpp"
    assert "no CPU plugin" in notices[0]


def test_a_graph_that_cannot_be_compiled_leaves_the_pictures_to_llama_cpp(
    tiny: ModelFiles, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory at compilation, or an operation that the plugin lacks."""

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Check 'false' failed at src/plugin.cpp:1:\nCould not allocate 1234 bytes")

    monkeypatch.setattr("internvl_gguf.vision.openvino_encoder.encoder_graph", refuse)
    with Session.open(tiny.text, tiny.mmproj, n_ctx=512, encoder="openvino", on_notice=notices.append) as session:
        assert session.runtime.configuration.request.encoder == "llama.cpp"
    assert any("OpenVINO cannot encode pictures here" in notice for notice in notices)


def test_a_device_that_is_not_there_is_named_with_those_that_are(tiny: ModelFiles, notices: list[str]) -> None:
    with Session.open(
        tiny.text, tiny.mmproj, n_ctx=512, encoder="openvino", encoder_device="NPU", on_notice=notices.append
    ) as session:
        assert session.runtime.configuration.request.encoder == "llama.cpp"
    assert any("OpenVINO finds no device NPU here" in notice for notice in notices)


def test_the_caches_tell_the_encoders_apart(tiny: ModelFiles) -> None:
    identities = set()
    libraries: tuple[EncoderLibrary, ...] = ("llama.cpp", "openvino")
    for library in libraries:
        with Session.open(tiny.text, tiny.mmproj, n_ctx=512, encoder=library) as session:
            identities.add(session.runtime.encoder_identity)
    assert len(identities) == 2


def test_a_saved_session_says_what_had_encoded_its_pictures(
    tiny: ModelFiles, notices: list[str], tmp_path: Path
) -> None:
    """The conversation goes on with the other encoder, without a word computed again, and says so."""
    path = tmp_path / "talk.session"
    with Session.open(tiny.text, tiny.mmproj, n_ctx=512, encoder="openvino", encoder_precision="f32") as session:
        session.ask("What is it?", [noise(1, 40, 30)], max_tokens=2)
        session.save(path)
    assert read_saved(path).encoder == "openvino f32"
    with Session.restore(path, on_notice=notices.append, encoder="llama.cpp") as session:
        assert session.ask("And?", max_tokens=2).usage.tiles_encoded == 0
    assert notices == ["The pictures of this conversation were encoded by openvino f32; new ones are by llama.cpp."]
    notices.clear()
    with Session.restore(path, on_notice=notices.append, encoder="openvino", encoder_precision="f32"):
        assert notices == []


def test_the_plan_counts_weights_in_the_precision_they_are_computed_in(tiny: ModelFiles) -> None:
    plans = {}
    precisions: tuple[EncoderPrecision, ...] = ("f32", "bf16")
    for precision in precisions:
        with Session.open(
            tiny.text, tiny.mmproj, n_ctx=512, encoder="openvino", encoder_precision=precision
        ) as session:
            plans[precision] = session.runtime.configuration.plan.host.mmproj_weights
    with Session.open(tiny.text, tiny.mmproj, n_ctx=512) as session:
        vision = session.runtime.configuration.candidate.shape(session.runtime.configuration.encoder).vision
    assert vision is not None
    assert plans["f32"] - plans["bf16"] == 2 * vision.parameters
