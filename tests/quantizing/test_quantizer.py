"""Quants made here: files that load and answer, names, ladders, bad input, Ctrl-C."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from hypothesis import given
from hypothesis import strategies as st

import model_headers
from internvl_gguf import InvalidRequestError, SamplingParams, Session
from internvl_gguf.gguf.filenames import RepoFile, renamed, sort_out
from internvl_gguf.gguf.header import read_header
from internvl_gguf.llama import quantize_process as native
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.local_files import demo_files
from internvl_gguf.quantizing import (
    TYPES,
    ImportanceMatrix,
    Quantizer,
    QuantType,
    make_ladder,
    parse_types,
    quantize_mmproj,
    quantize_text,
)
from internvl_gguf.quantizing.matrix import Activations
from internvl_gguf.quantizing.source import open_source
from tests.models.test_models_by_name import split_demo
from tests.support.tiny_models import write_tiny_text

DEMO = demo_files()
EXAMPLE = DEMO.text.with_name("example.png")
QUICK = ("F16", "Q8_0", "Q4_K_M", "Q4_0", "IQ4_XS", "Q2_K", "Q1_0")
"""Types whose tables the library has ready: those of IQ1_S to IQ2_M take it 5 to 30 seconds in each process."""


TRAINED_IN = ("TQ2_0", "TQ1_0", "Q1_0")
"""Types that only a model survives that was trained in them."""

SLOW = pytest.mark.thorough


def type_of(label: str) -> QuantType:
    (kind,) = parse_types(label)
    return kind


def even_matrix(text: Path) -> ImportanceMatrix:
    """A matrix to which everything matters alike."""
    source = open_source(text)
    entries = {name: Activations(np.ones(source.tensors[name].shape[0]), np.array([1])) for name in source.matrices}
    return ImportanceMatrix(entries)


def types_in(path: Path) -> set[str]:
    """Types of the matrices of a file's layers and projector."""
    source = open_source(path)
    return {source.tensors[name].type.name for name in source.matrices if name.startswith(("blk.", "v.blk.", "mm."))}


def answer(text: Path, mmproj: Path = DEMO.mmproj) -> str:
    """What a model says about the picture that ships with the demo model, which shows 98."""
    with Session.open(text, mmproj, n_threads=1) as session:
        reply = session.ask("What number is written?", [EXAMPLE], sampling=SamplingParams(max_tokens=4))
        assert reply.finish_reason in ("stop", "length")
        return reply.text


def logprobs(text: Path) -> np.ndarray[Any, Any]:
    with Session.open(text, DEMO.mmproj, n_threads=1, kv_type="f32") as session:
        return session.next_token_logprobs("What number is written?", [EXAMPLE]).astype(np.float64)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo model in every type that is made quickly and without a matrix."""
    folder = tmp_path_factory.mktemp("ladder")
    return dict(zip(QUICK, make_ladder(DEMO.text, folder, QUICK, n_threads=1), strict=True))


# ---- the types


def test_the_types_are_those_of_the_library() -> None:
    """All that llama_model_quantize makes, but for three that quant_types tells of."""
    assert {kind.label for kind in TYPES} == native.file_types().keys() - {"MXFP4_MOE", "NVFP4", "Q2_0"}


@pytest.mark.parametrize("spelt", ["Q4_K_M", "q4_k_m", "q4-k-m", "Q4_K", " q4_k_m "])
def test_a_type_is_found_however_it_is_spelt(spelt: str) -> None:
    assert [kind.label for kind in parse_types(spelt)] == ["Q4_K_M"]


def test_several_types_keep_their_order_and_count_once() -> None:
    assert [kind.label for kind in parse_types("Q6_K,fp16,q4_0,Q6_K")] == ["Q6_K", "F16", "Q4_0"]


@pytest.mark.parametrize(
    ("wrong", "near"), [("Q4_K_X", "Q4_K_"), ("IQ2", "IQ2_"), ("UD-Q4_K_XL", "Unsloth"), ("", "BF16"), ("Q4_0,no", "")]
)
def test_an_unknown_type_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(InvalidRequestError, match="There is no type") as caught:
        parse_types(wrong)
    assert near in caught.value.hint


# ---- names


@pytest.mark.parametrize(
    ("stem", "label", "expected"),
    [
        ("demo-text-BF16", "Q4_K_M", "demo-text-Q4_K_M"),
        ("InternVL3-14B-Instruct-BF16-00001-of-00002", "Q6_K", "InternVL3-14B-Instruct-Q6_K"),
        ("InternVL3-1B-UD-Q4_K_XL", "Q3_K_S", "InternVL3-1B-Q3_K_S"),
        ("mmproj-F16", "Q8_0", "mmproj-Q8_0"),
        ("mmproj-model-f16", "Q8_0", "mmproj-model-Q8_0"),
        ("model", "Q8_0", "model-Q8_0"),
        ("F16", "Q8_0", "Q8_0"),
    ],
)
def test_files_are_named_as_publishers_name_them(stem: str, label: str, expected: str) -> None:
    assert renamed(stem, label) == expected


@given(st.sampled_from(TYPES), st.sampled_from(TYPES), st.sampled_from(["model", "a-7B.it", "mmproj", "x-of-2"]))
def test_a_name_says_its_type_whatever_it_was_before(first: Any, second: Any, stem: str) -> None:
    name = renamed(renamed(stem, first.label), second.label)
    assert name == f"{stem}-{second.label}"
    contents = sort_out([RepoFile(f"{name}.gguf")])
    (copy,) = contents.texts or contents.mmprojs
    assert str(copy.quant) == second.label


# ---- text models


@pytest.mark.parametrize("label", QUICK)
def test_every_type_loads_and_answers(ladder: dict[str, Path], label: str) -> None:
    assert types_in(ladder[label]) & {label, label.removesuffix("_M")}
    said = answer(ladder[label])
    assert said == "98" or label in TRAINED_IN


@pytest.mark.thorough
def test_the_whole_ladder_of_the_demo_model(tmp_path: Path) -> None:
    """Every type the library offers."""
    labels = [kind.label for kind in TYPES]
    paths = make_ladder(DEMO.text, tmp_path, labels, even_matrix(DEMO.text), n_threads=1)
    assert [path.name for path in paths] == [f"demo-text-{label}.gguf" for label in labels]
    answers = {label: answer(path) for label, path in zip(labels, paths, strict=True)}
    assert {label for label, said in answers.items() if said != "98"} <= set(TRAINED_IN)


def test_q8_0_is_nearly_the_source(ladder: dict[str, Path]) -> None:
    """KL divergence of the next token after a picture."""
    expected = logprobs(DEMO.text)
    losses = {}
    for label in ("F16", "Q8_0", "Q4_0"):
        found = logprobs(ladder[label])
        assert found.argmax() == expected.argmax()
        losses[label] = float((np.exp(expected) * (expected - found)).sum())
    assert losses["F16"] < 1e-7
    assert losses["Q8_0"] < 1e-5
    assert losses["F16"] < losses["Q8_0"] < losses["Q4_0"]


@pytest.mark.parametrize("label", ["Q8_0", "Q4_0"])
def test_the_numbers_are_those_of_an_independent_quantiser(ladder: dict[str, Path], label: str) -> None:
    """The `gguf` package does these in numpy, on its own."""
    source, made = ({tensor.name: tensor for tensor in GGUFReader(path).tensors} for path in (DEMO.text, ladder[label]))
    assert source.keys() == made.keys()
    kind = GGMLQuantizationType[label]
    compared = [name for name, tensor in made.items() if tensor.tensor_type == kind]
    assert len(compared) >= 22
    for name in compared:
        values = gguf.quants.dequantize(source[name].data, source[name].tensor_type)
        assert np.array_equal(made[name].data, gguf.quants.quantize(values, kind)), name


def test_what_was_made_is_told(tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    made = quantize_text(DEMO.text, "q6_k", tmp_path, n_threads=1, on_progress=lambda *done: progress.append(done))
    assert made.path == tmp_path / "demo-text-Q6_K.gguf"
    assert made.source_bytes == DEMO.text.stat().st_size
    assert made.n_bytes == made.path.stat().st_size
    assert 6.5 < made.bits_per_weight < 6.7
    assert (made.matrices, made.fallbacks, made.has_matrix) == (37, (), False)
    assert progress == [(done, 63) for done in range(1, 64)]
    assert os.listdir(tmp_path) == [made.path.name]  # noqa: PTH208


def test_a_plan_is_what_is_made(ladder: dict[str, Path]) -> None:
    with Quantizer(open_source(DEMO.text), n_threads=1) as quantizer:
        for label in QUICK:
            plan, size = quantizer.plan(type_of(label)), ladder[label].stat().st_size
            assert size <= plan.n_bytes <= size + 8192
            assert not plan.needs_matrix


def test_planned_sizes_are_those_of_the_published_files(tmp_path: Path) -> None:
    """Unsloth's listing of the 14B, rounded to a hundredth of a GiB, against a header with nothing behind it."""
    spec = load_catalog().find("InternVL3-14B-Instruct")
    assert spec is not None
    published = {file.name: file.size for file in spec.files}
    shape = model_headers.TEXT["14B"]
    header, tensors = model_headers.text_header(shape, "BF16"), model_headers.text_tensors(shape, "BF16")
    source = open_source(model_headers.write_sparse(tmp_path / "14B-BF16.gguf", header, tensors))
    with Quantizer(source, n_threads=1) as quantizer:
        for label in ("BF16", "Q6_K", "Q5_K_S", "Q4_K_M", "Q3_K_M", "Q2_K"):
            size = published[f"InternVL3-14B-Instruct-{label}.gguf"]
            assert abs(quantizer.plan(type_of(label)).n_bytes - size) < 0.01 * 1024**3, label


def test_matrices_of_odd_rows_fall_back_and_are_counted(tmp_path: Path) -> None:
    """Rows of 64 and 96 do not divide into blocks of 256; the feed-forward ones of 96 into 32."""
    made = quantize_text(write_tiny_text(tmp_path / "tiny-F32.gguf"), "Q4_K_M", tmp_path, n_threads=1)
    assert made.path.name == "tiny-Q4_K_M.gguf"
    assert len(made.fallbacks) == made.matrices - 1 == 15  # the output matrix takes Q8_0 by rule
    assert {(fallback.wanted, fallback.given) for fallback in made.fallbacks} <= {("Q4_K", "Q5_0"), ("Q6_K", "Q8_0")}
    assert types_in(made.path) == {"Q5_0", "Q8_0"}


def test_pure_gives_every_matrix_the_same(tmp_path: Path) -> None:
    pure = quantize_text(DEMO.text, "Q4_K_M", tmp_path, n_threads=1, pure=True)
    source = open_source(pure.path)
    assert {source.tensors[name].type.name for name in source.matrices} == {"Q4_K"}


def test_a_split_model_becomes_one_file(tmp_path: Path, ladder: dict[str, Path]) -> None:
    parts = split_demo(tmp_path / "parts", 3)
    made = quantize_text(parts[0], "Q8_0", n_threads=1)
    assert made.path == tmp_path / "parts" / "demo-Q8_0.gguf"
    whole = {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(ladder["Q8_0"]).tensors}
    assert {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(made.path).tensors} == whole
    assert "split.count" not in read_header(made.path)


def test_two_threads_make_the_same_file(tmp_path: Path, ladder: dict[str, Path]) -> None:
    made = quantize_text(DEMO.text, "Q4_K_M", tmp_path, n_threads=2)
    assert made.path.read_bytes() == ladder["Q4_K_M"].read_bytes()


# ---- vision encoders


@pytest.mark.parametrize(
    "label",
    [
        pytest.param(kind.label, marks=[] if kind.label in ("Q8_0", "Q4_K_S") else SLOW)
        for kind in TYPES
        if kind.for_mmproj
    ],
)
def test_every_type_of_a_vision_encoder_loads_and_sees(tmp_path: Path, label: str) -> None:
    made = quantize_mmproj(DEMO.mmproj, label, tmp_path, n_threads=1)
    assert made.path.name == f"demo-mmproj-{label}.gguf"
    kinds = {name: tensor.type.name for name, tensor in open_source(made.path).tensors.items()}
    assert all(kind == "F32" for name, kind in kinds.items() if name.endswith(("bias", ".ln1.weight", ".ls1.weight")))
    assert (kinds["v.position_embd.weight"], kinds["v.patch_embd.weight"]) == ("F32", "F16")
    assert kinds["mm.model.mlp.1.weight"] == label.replace("_K_S", "_K")
    assert answer(DEMO.text, made.path) == "98"


def test_a_vision_encoder_in_q8_0_sees_nearly_the_same(tmp_path: Path) -> None:
    made = quantize_mmproj(DEMO.mmproj, "Q8_0", tmp_path, n_threads=1)
    with Session.open(DEMO.text, DEMO.mmproj, n_threads=1) as session:
        expected = session.embed_image(EXAMPLE)
    with Session.open(DEMO.text, made.path, n_threads=1) as session:
        found = session.embed_image(EXAMPLE)
    assert 0 < np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)


@pytest.mark.parametrize("label", ["Q4_K_M", "IQ2_XS", "TQ1_0"])
def test_mixtures_are_not_for_vision_encoders(tmp_path: Path, label: str) -> None:
    with pytest.raises(InvalidRequestError, match="for text models") as caught:
        quantize_mmproj(DEMO.mmproj, label, tmp_path)
    assert "Q8_0" in caught.value.hint
    assert not list(tmp_path.iterdir())


# ---- ladders


def test_a_ladder_goes_on_where_it_stopped(tmp_path: Path) -> None:
    made_labels: list[str] = []
    labels = ["Q8_0", "Q4_0"]

    def tell(label: str, _done: int, _count: int) -> None:
        if label not in made_labels:
            made_labels.append(label)
        if interrupted:
            raise KeyboardInterrupt

    interrupted = False
    paths = make_ladder(DEMO.text, tmp_path / "new", labels, on_progress=tell, n_threads=1)
    assert (made_labels, [path.name for path in paths]) == (labels, ["demo-text-Q8_0.gguf", "demo-text-Q4_0.gguf"])
    made_labels.clear()
    assert make_ladder(DEMO.text, tmp_path / "new", labels, on_progress=tell) == paths
    assert not made_labels
    interrupted = True
    with pytest.raises(KeyboardInterrupt):
        make_ladder(DEMO.text, tmp_path / "new", ["Q8_0", "Q6_K"], on_progress=tell, n_threads=1)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    interrupted = False
    made_labels.clear()
    paths[0].write_bytes(paths[0].read_bytes()[:-100])  # cut
    make_ladder(DEMO.text, tmp_path / "new", labels, on_progress=tell, n_threads=1)
    assert made_labels == ["Q8_0"]
    made_labels.clear()
    make_ladder(DEMO.text, tmp_path / "new", ["Q4_0"], even_matrix(DEMO.text), on_progress=tell, n_threads=1)
    assert made_labels == ["Q4_0"]  # the one there is was made without the matrix


def test_a_source_in_its_ladder_stands_for_its_type(tmp_path: Path) -> None:
    source = Path(shutil.copy(DEMO.text, tmp_path / "demo-BF16.gguf"))
    before = source.read_bytes()
    paths = make_ladder(source, tmp_path, ["BF16", "Q8_0"], n_threads=1)
    assert paths == [source, tmp_path / "demo-Q8_0.gguf"]
    assert source.read_bytes() == before
