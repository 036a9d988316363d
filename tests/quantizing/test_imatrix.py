"""Importance matrices: against numpy, in and out of files, what is read for them, and what they do to a quant."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf import InvalidRequestError, LibraryError, ModelFileError, Session
from internvl_gguf.gguf.header import read_header
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.models.local_files import demo_files
from internvl_gguf.quantizing import (
    TYPES,
    ImportanceMatrix,
    Quantizer,
    importance_matrix,
    quantize_text,
    read_matrix,
    write_matrix,
)
from internvl_gguf.quantizing.calibration_set import CalibrationQuestion, read_items
from internvl_gguf.quantizing.matrix import CHUNK, Activations, check_matrix
from internvl_gguf.quantizing.source import open_source
from internvl_gguf.session.prepare import prepare_question
from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM
from internvl_gguf.types import Message, TileSpan, TokenSpan
from tests.support.damage import write
from tests.support.pictures import noise
from tests.support.tiny_models import tiny_text, write_tiny_text

DEMO = demo_files()
EXAMPLE = DEMO.text.with_name("example.png")


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three chunks of the demo model's tongue."""
    path = tmp_path_factory.mktemp("calibration") / "text.txt"
    path.write_text("There is a red circle above the blue square. " * 100, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def matrix(text_file: Path) -> ImportanceMatrix:
    """What matters to the demo model when it reads a text and sees a picture."""
    return importance_matrix(DEMO.text, [text_file, EXAMPLE], mmproj=DEMO.mmproj, n_threads=1).matrix


def weights_of(path: Path) -> Callable[[str], np.ndarray[Any, Any]]:
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    return lambda name: gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type).astype(np.float64)


def rms_normed(rows: np.ndarray[Any, Any], weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-6) * weight)


def test_the_first_layer_gets_what_numpy_says_it_gets_pictures_too(tmp_path: Path) -> None:
    """Its input is known without the model: token embeddings and what the encoder made of the tiles, normed."""
    answer_text = "98 is written there."
    lines = tmp_path / "set.jsonl"
    lines.write_text(
        json.dumps({"prompt": "What number is written?", "images": [str(EXAMPLE)], "answer": answer_text, "id": 1})
    )
    text = tmp_path / "text.txt"
    text.write_text("The colour of the circle is red. " * 70)  # a chunk and a piece of one
    result = importance_matrix(DEMO.text, [text, lines], mmproj=DEMO.mmproj, n_threads=1)
    weights = weights_of(DEMO.text)
    with Session.open("demo", n_threads=1) as session:
        runtime = session.runtime
        embeddings = session.embed_image(EXAMPLE).astype(np.float64)
        request = prepare_question(
            runtime, TileLimits(), [Message("system", OFFICIAL_SYSTEM)], "What number is written?", [EXAMPLE], {}
        )
        tokenize = runtime.engine.model.tokenize
        read = tokenize(text.read_text())
        ends = [*tokenize(answer_text), runtime.text.im_end]
    asked = [token for span in request.spans if isinstance(span, TokenSpan) for token in span.ids]
    ids = [*read, *asked, *ends]
    assert sum(isinstance(span, TileSpan) for span in request.spans) == len(embeddings) == result.visual_tokens / 36
    rows = np.concatenate([weights("token_embd.weight")[ids], embeddings.reshape(-1, embeddings.shape[-1])])
    expected = (rms_normed(rows, weights("blk.0.attn_norm.weight")) ** 2).mean(axis=0)
    for part in "qkv":
        entry = result.matrix.entries[f"blk.0.attn_{part}.weight"]
        assert entry.count == len(rows) == result.matrix.positions
        assert np.allclose(entry.means, expected, rtol=1e-4)
    assert (result.chunks, result.questions, result.skipped) == (-(-len(read) // CHUNK), 1, 0)


def test_every_matrix_of_the_layers_is_measured_at_every_position(matrix: ImportanceMatrix) -> None:
    """The last layer's feed-forward matrices, too: they only see positions whose output is wanted."""
    source = open_source(DEMO.text)
    assert matrix.entries.keys() == {name for name in source.matrices if name.startswith("blk.")}
    assert {entry.count for entry in matrix.entries.values()} == {matrix.positions}
    for name, entry in matrix.entries.items():
        assert len(entry.sums) == source.tensors[name].shape[0]
        assert (entry.sums > 0).all()
    assert matrix.datasets == ("text.txt", "example.png")


def test_each_expert_is_measured_at_the_positions_that_go_through_it(tmp_path: Path, text_file: Path) -> None:
    """Every token goes through two of four; what all experts get is what the rows that choose among them get, twice."""
    source = write_tiny_text(tmp_path / "moe.gguf", kind="qwen3moe", head_dim=32, n_ff=128, n_ctx=1024)
    found = importance_matrix(source, [text_file], n_threads=1).matrix
    check_matrix(found, open_source(source))
    for layer in (0, 1):
        entries = {
            name: found.entries[f"blk.{layer}.ffn_{name}.weight"] for name in ("gate_inp", "gate_exps", "up_exps")
        }
        chooser, gate = entries["gate_inp"], entries["gate_exps"]
        assert (chooser.count, gate.counts.sum()) == (found.positions, 2 * found.positions)
        assert (len(gate.counts), len(gate.sums)) == (4, 4 * 64)
        assert np.allclose(gate.sums.reshape(4, 64).sum(axis=0), 2 * chooser.sums)
        assert np.array_equal(gate.sums, entries["up_exps"].sums)
        assert len(found.entries[f"blk.{layer}.ffn_down_exps.weight"].sums) == 4 * 64
    write_matrix(tmp_path / "imatrix.gguf", found)
    read = read_matrix(tmp_path / "imatrix.gguf").entries["blk.1.ffn_down_exps.weight"]
    assert np.allclose(read.means, found.entries["blk.1.ffn_down_exps.weight"].means, rtol=1e-6)
    made = quantize_text(source, "Q4_0", tmp_path / "Q4_0.gguf", matrix=found, pure=True)
    types = {name: tensor.type.name for name, tensor in read_header(made.path).tensors.items()}
    assert (types["blk.0.ffn_down_exps.weight"], types["blk.0.ffn_gate_inp.weight"]) == ("Q4_0", "F32")


def test_an_expert_that_read_nothing_weighs_all_alike() -> None:
    assert Activations(np.array([6.0, 2.0, 0.0, 0.0]), np.array([2, 0])).means.tolist() == [3.0, 1.0, 1.0, 1.0]


def test_only_so_many_chunks_are_read(text_file: Path) -> None:
    progress: list[tuple[int, int]] = []
    first = importance_matrix(
        DEMO.text, [text_file], n_threads=1, max_chunks=2, on_progress=lambda *done: progress.append(done)
    )
    assert (first.chunks, first.matrix.positions) == (2, 2 * CHUNK)
    assert progress == [(0, 2), (1, 2), (2, 2)]
    with pytest.raises(InvalidRequestError, match="max_chunks is 0"):
        importance_matrix(DEMO.text, [text_file], max_chunks=0)


def test_a_long_text_is_tokenised_in_parts_at_ends_of_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same tokens as in one."""
    text = tmp_path / "long.txt"
    text.write_text("There is a red circle.\n" * 150, encoding="utf-8")
    whole = importance_matrix(DEMO.text, [text], n_threads=1).matrix
    monkeypatch.setattr("internvl_gguf.quantizing.calibration._PIECE", 100)
    parts = importance_matrix(DEMO.text, [text], n_threads=1).matrix
    assert parts.positions == whole.positions > CHUNK
    for name, entry in parts.entries.items():
        assert np.array_equal(entry.sums, whole.entries[name].sums)


def test_a_matrix_survives_its_file(tmp_path: Path, matrix: ImportanceMatrix) -> None:
    path = tmp_path / "imatrix.gguf"
    write_matrix(path, matrix)
    read = read_matrix(path)
    assert (read.datasets, read.positions, read.entries.keys()) == (
        matrix.datasets,
        matrix.positions,
        matrix.entries.keys(),
    )
    for name, entry in read.entries.items():
        assert np.allclose(entry.means, matrix.entries[name].means, rtol=1e-6)
    assert os.listdir(tmp_path) == [path.name]  # noqa: PTH208


def test_the_file_is_that_of_llama_imatrix(tmp_path: Path) -> None:
    """Compared with a file of the real llama-imatrix once, to the byte; this holds what was found."""
    entries = {
        "blk.0.b.weight": Activations(np.array([2.0, 4.0]), np.array([1024])),
        "blk.0.a.weight": Activations(np.ones(3), np.array([7])),
    }
    write_matrix(tmp_path / "m.gguf", ImportanceMatrix(entries, ("a.txt",)))
    header = read_header(tmp_path / "m.gguf")
    assert list(header.key_values) == ["general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"]
    assert (header.text("general.type"), header.integer("imatrix.chunk_count")) == ("imatrix", 2)
    assert header.integer("imatrix.chunk_size") == 512
    assert {name: tensor.shape for name, tensor in header.tensors.items()} == {
        "blk.0.a.weight.in_sum2": (3,),
        "blk.0.a.weight.counts": (1,),
        "blk.0.b.weight.in_sum2": (2,),
        "blk.0.b.weight.counts": (1,),
    }


def test_the_older_format_of_llama_imatrix_is_read(tmp_path: Path) -> None:
    """Name, calls, values: means times calls."""
    name = b"blk.0.attn_q.weight"
    values = np.array([3.0, 6.0], "<f4")
    data = struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 3, 2) + values.tobytes()
    data += struct.pack("<ii", 3, 6) + b"wiki.t"
    path = tmp_path / "imatrix.dat"
    path.write_bytes(data)
    read = read_matrix(path)
    assert read.entries["blk.0.attn_q.weight"].means.tolist() == [1.0, 2.0]
    assert (read.chunks, read.datasets) == (3, ("wiki.t",))


@given(st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_a_damaged_older_file_is_read_or_refused(place: int, junk: bytes) -> None:
    """Whatever it says, reading it ends in a matrix or in an error of ours."""
    name = b"blk.0.attn_q.weight"
    data = bytearray(struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 3, 2) + bytes(8))
    place %= len(data)
    data[place : place + len(junk)] = junk
    path = Path(os.environ["INTERNVL_CACHE"]) / "damaged.dat"
    path.write_bytes(bytes(data))
    with contextlib.suppress(ModelFileError):
        assert read_matrix(path).entries


def test_a_quant_of_the_model_measures_nearly_the_same(tmp_path: Path, text_file: Path) -> None:
    """Where the source does not fit the memory, its Q8_0 does for a matrix."""
    small = quantize_text(DEMO.text, "Q8_0", tmp_path, n_threads=1).path
    exact, near = (importance_matrix(path, [text_file], n_threads=1).matrix for path in (DEMO.text, small))
    for name, entry in exact.entries.items():
        error = np.linalg.norm(near.entries[name].means - entry.means)
        assert 0 < error < 0.02 * np.linalg.norm(entry.means)


def test_matrices_add_up(matrix: ImportanceMatrix) -> None:
    twice = matrix + matrix
    assert twice.positions == 2 * matrix.positions
    for name, entry in twice.entries.items():
        assert np.array_equal(entry.means, matrix.entries[name].means)
    other = ImportanceMatrix({"blk.0.attn_q.weight": Activations(np.ones(8), np.array([600]))})
    with pytest.raises(InvalidRequestError, match="of two models"):
        _ = matrix + other


def test_a_matrix_spends_the_bits_where_they_matter(tmp_path: Path, matrix: ImportanceMatrix) -> None:
    """The law of it: the error weighted by the matrix gets smaller, for all the files differ in nothing else."""
    plain = quantize_text(DEMO.text, "Q3_K_S", tmp_path / "plain.gguf", n_threads=1)
    guided = quantize_text(DEMO.text, "Q3_K_S", tmp_path / "guided.gguf", matrix=matrix, n_threads=1)
    assert guided.has_matrix
    assert guided.n_bytes - plain.n_bytes < 512  # the keys that say so
    header = read_header(guided.path)
    assert header.integer("quantize.imatrix.entries_count") == 35
    assert header.text("quantize.imatrix.dataset") == "text.txt, example.png"
    source, without, with_it = map(weights_of, (DEMO.text, plain.path, guided.path))
    errors = []
    for name, entry in matrix.entries.items():
        weighted = [float((entry.means * (made(name) - source(name)) ** 2).sum()) for made in (without, with_it)]
        errors.append(weighted)
    before, after = np.array(errors).T
    assert after.sum() < 0.95 * before.sum()


def test_types_that_need_a_matrix_say_so_before_anything_starts(tmp_path: Path, matrix: ImportanceMatrix) -> None:
    with pytest.raises(InvalidRequestError, match="Q2_K_S cannot be made well without an importance matrix") as caught:
        quantize_text(DEMO.text, "Q2_K_S", tmp_path)
    assert "--calibrate" in caught.value.hint
    assert not list(tmp_path.iterdir())
    with Quantizer(open_source(DEMO.text)) as quantizer:
        needing = {kind.label for kind in TYPES if quantizer.plan(kind).needs_matrix}
    assert needing == {
        "IQ3_XS", "IQ3_XXS", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"
    }  # fmt: skip
    assert quantize_text(DEMO.text, "Q2_K_S", tmp_path, matrix=matrix, n_threads=1).path.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_ff": 128}, "ffn_down.weight has 96 columns in it, and in other.gguf has 128 columns"),
        ({"n_layers": 1}, "is not there"),
        ({"n_layers": 3}, "nothing about blk.2"),
    ],
)
def test_a_matrix_of_another_model_is_refused(tmp_path: Path, change: dict[str, int], words: str) -> None:
    source = write_tiny_text(tmp_path / "source.gguf")
    text = tmp_path / "text.txt"
    text.write_text("the thing in the ring " * 60)
    found = importance_matrix(source, [text], n_threads=1).matrix
    other = write_tiny_text(tmp_path / "other.gguf", **change)
    with pytest.raises(InvalidRequestError, match="is of another model") as caught:
        quantize_text(other, "Q8_0", tmp_path / "x.gguf", matrix=found)
    assert words in caught.value.message
    check_matrix(found, open_source(source))


@pytest.mark.parametrize("damage", ["cut", "text", "model", "counts", "infinite", "missing"])
def test_a_damaged_matrix_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "imatrix.gguf"
    write_matrix(path, ImportanceMatrix({"blk.0.attn_q.weight": Activations(np.ones(8), np.array([600]))}))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "text":
        path.write_text("no matrix at all")
    elif damage == "model":
        path = DEMO.text
    elif damage == "missing":
        path = tmp_path / "missing.gguf"
    else:
        data = path.read_bytes()
        value, place = (-1.0, -32) if damage == "counts" else (float("inf"), -64)
        end = place + 4 or None
        path.write_bytes(data[:place] + struct.pack("<f", value) + data[end:])
    with pytest.raises(ModelFileError) as caught:
        read_matrix(path)
    assert str(path) in caught.value.message


def test_a_picture_that_does_not_load_is_reported_skipped_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    noise(1, 500, 500).save(folder / "a.png")
    noise(2, 500, 500).save(folder / "deeper" / "c.JPG", format="JPEG")
    (folder / "b.png").write_text("no picture")
    (folder / "notes.txt").write_text("no picture either")
    notices: list[str] = []
    result = importance_matrix(DEMO.text, [folder], mmproj=DEMO.mmproj, n_threads=1, on_notice=notices.append)
    assert (result.questions, result.skipped, len(notices)) == (2, 1, 1)
    assert str(folder / "b.png") in notices[0]
    assert result.visual_tokens == 2 * 10 * 36  # 3 x 3 tiles and the thumbnail each


def test_questions_are_read_as_ask_takes_them(tmp_path: Path) -> None:
    noise(1).save(tmp_path / "beside.png")
    lines = [
        {"prompt": "What?", "images": ["beside.png"], "answer": "A thing.", "id": 7, "max_tiles": 1, "max_tokens": 5},
        {"prompt": "And now?", "system": ""},
    ]
    path = tmp_path / "set.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    first, second = read_items([path])
    assert isinstance(first, CalibrationQuestion)
    assert isinstance(second, CalibrationQuestion)
    assert (first.question.images, first.answer) == ((tmp_path / "beside.png",), "A thing.")
    assert first.question.options == {"max_tiles": 1}
    assert (second.question.prompt, second.question.system, second.answer) == ("And now?", "", "")
    assert second.label == f"{path}, line 3"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", "is empty"),
        ("blank.txt", b" \n", "is empty"),
        ("latin.txt", b"caf\xe9", "is not UTF-8: byte 3"),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": ', "line 2 is not JSON"),
        ("a.jsonl", b"[1]", "is no JSON object"),
        ("a.jsonl", b'{"images": []}', "has no prompt"),
        ("a.jsonl", b'{"prompt": "a", "images": "b.png"}', "not a list of paths"),
        ("a.jsonl", b'{"prompt": "a", "answer": 4}', "not text"),
        ("missing.txt", None, "cannot be read"),
        ("folder", None, "no pictures in the folder"),
    ],
)
def test_a_calibration_file_that_cannot_be_used_is_told(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequestError, match=re.escape(words)) as caught:
        importance_matrix(DEMO.text, [tmp_path / name], mmproj=DEMO.mmproj, n_threads=1)
    assert str(tmp_path / name) in caught.value.message


def test_too_little_to_read_is_told(tmp_path: Path) -> None:
    source = write_tiny_text(tmp_path / "source.gguf")
    text = tmp_path / "short.txt"
    text.write_text("the thing")
    with pytest.raises(InvalidRequestError, match=r"There are \d tokens to calibrate with: too few"):
        importance_matrix(source, [text], n_threads=1)
    picture = tmp_path / "a.png"
    picture.write_text("no picture")
    with pytest.raises(InvalidRequestError, match=r"1 of the questions could not be read"):
        importance_matrix(DEMO.text, [picture], mmproj=DEMO.mmproj, n_threads=1, on_notice=lambda line: None)
    noise(1).save(picture)
    with pytest.raises(InvalidRequestError, match="need the vision encoder"):
        importance_matrix(source, [picture], n_threads=1)


def test_weights_that_are_no_numbers_are_found_while_reading(tmp_path: Path, text_file: Path) -> None:
    plan = tiny_text(n_ctx=1024)
    plan.tensor("blk.0.attn_q.weight").data = np.full(64 * 64, np.nan, np.float32).tobytes()
    with pytest.raises(LibraryError, match="not numbers"):
        importance_matrix(write(tmp_path / "broken.gguf", plan), [text_file], n_threads=1)


CHILD = """
import signal
import sys
from pathlib import Path

from internvl_gguf.models.local_files import demo_files
from internvl_gguf.llama.imatrix import ActivationContext
from internvl_gguf.quantizing import importance_matrix

signal.signal(signal.SIGINT, signal.default_int_handler)
seen, add = [], ActivationContext._add


def interrupting(context, name, product, n_matrices):
    seen.append(name)
    if len(seen) == 3:
        signal.raise_signal(signal.SIGINT)
    add(context, name, product, n_matrices)


ActivationContext._add = interrupting
try:
    importance_matrix(demo_files().text, [Path(sys.argv[1])], n_threads=1)
except KeyboardInterrupt:
    print("interrupted after", len(seen))
"""


def test_ctrl_c_while_reading_ends_it_soon(text_file: Path) -> None:
    """It comes inside the library's callback, where an exception would be lost. A process of its own takes it."""
    done = subprocess.run([sys.executable, "-c", CHILD, str(text_file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted after 3\n", "")
