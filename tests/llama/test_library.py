"""The wrapper of llama.cpp: corrected encoders, build checks, refusals."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gguf import GGUFReader

from internvl_gguf import LibraryError
from internvl_gguf.gguf.fingerprint import file_fingerprint, remembered_fingerprint
from internvl_gguf.gguf.header import read_header
from internvl_gguf.llama import library
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.position_fix import POSITION_TENSOR, corrected_copies_dir, corrected_copy
from internvl_gguf.llama.vision import VisionEncoder
from internvl_gguf.models.resolve import ModelFiles
from tests.support.tiny_models import write_tiny_mmproj


def test_the_corrected_copy_differs_in_the_position_rows_only(tiny: ModelFiles) -> None:
    """Read back by the gguf package, which has its own idea of where a tensor begins."""
    copy = corrected_copy(tiny.mmproj, read_header(tiny.mmproj), "a" * 32)
    before, after = ({t.name: t.data for t in GGUFReader(path).tensors} for path in (tiny.mmproj, copy))
    assert before.keys() == after.keys()
    for name, data in before.items():
        expected = np.roll(data, -1, axis=-2) if name == POSITION_TENSOR else data
        assert np.array_equal(after[name], expected), name
    assert not np.array_equal(before[POSITION_TENSOR], after[POSITION_TENSOR])


def test_the_copy_is_made_once_and_again_when_it_is_damaged(tiny: ModelFiles) -> None:
    header = read_header(tiny.mmproj)
    copy = corrected_copy(tiny.mmproj, header, "b" * 32)
    good, made = copy.read_bytes(), copy.stat().st_mtime_ns
    assert corrected_copy(tiny.mmproj, header, "b" * 32).stat().st_mtime_ns == made
    for damaged in (good[:-10], tiny.mmproj.read_bytes()):
        copy.write_bytes(damaged)
        assert corrected_copy(tiny.mmproj, header, "b" * 32).read_bytes() == good
    assert not list(corrected_copies_dir().glob(".*"))


def test_a_cache_that_cannot_be_written_is_told(
    tiny: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path / "file"))
    with pytest.raises(LibraryError, match="cannot be kept") as caught:
        corrected_copy(tiny.mmproj, read_header(tiny.mmproj), "c" * 32)
    assert "INTERNVL_CACHE" in caught.value.hint


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    one, two = write_tiny_mmproj(tmp_path / "1.gguf"), write_tiny_mmproj(tmp_path / "2.gguf")
    assert remembered_fingerprint(one) is None
    assert file_fingerprint(one) == file_fingerprint(two) == remembered_fingerprint(one)
    write_tiny_mmproj(two, seed=9)
    assert file_fingerprint(one) != file_fingerprint(two)


def test_the_installed_build_is_the_one_this_package_is_made_for() -> None:
    assert library.abi_problems() == []
    assert library.build().startswith("0.3.36+ggml.")
    assert [device.kind for device in library.devices()].count("cpu") == 1


def test_a_moved_field_of_a_native_structure_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read through a wrong layout, the library's own defaults come out wrong."""
    defaults = library.llama_cpp.llama_context_default_params()
    shifted = SimpleNamespace(**{name: getattr(defaults, name) for name, _ in defaults._fields_})
    shifted.type_k, shifted.offload_kqv = 0, False
    monkeypatch.setattr(library.llama_cpp, "llama_context_default_params", lambda: shifted)
    assert library.abi_problems() == [
        "llama_context_params.type_k is 0, not 1",
        "llama_context_params.offload_kqv is False, not True",
    ]


def test_log_lines_arrive_whole_with_their_level(caplog: pytest.LogCaptureFixture) -> None:
    sink = library._LogSink()
    with caplog.at_level(logging.DEBUG, logger="internvl_gguf.llama"):
        sink(4, b"half a ", None)
        sink(5, b"line \xff\nsecond", None)
        sink(2, b" line\n", None)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "half a line \ufffd"),
        ("DEBUG", "second line"),
    ]
    assert "half a line" in library.last_error()
    assert library.last_error() == ""


@pytest.fixture
def model(tiny: ModelFiles) -> TextModel:
    return TextModel(tiny.text, vocab_only=True)


def test_a_token_outside_the_vocabulary_does_not_reach_the_library(model: TextModel) -> None:
    for token in (-1, model.n_vocab):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            model.piece(token)
    model.close()


def test_tiles_of_another_size_do_not_reach_the_library(model: TextModel, tiny: ModelFiles) -> None:
    """mtmd reads width * height * 3 bytes whatever it is given."""
    encoder = VisionEncoder(tiny.mmproj, model, tile_size=32, tokens_per_tile=4, n_embd=64, use_gpu=False, n_threads=1)
    with pytest.raises(ValueError, match="a tile of 5 bytes"):
        encoder.encode([b"short"])
    encoder.close()
    model.close()


@pytest.mark.parametrize("text", ["", "a", "Hello, world", "书生·万象", "tabs\tand\n\nlines", "nul\0byte", "🙂" * 50])
def test_tokens_spell_the_text(model: TextModel, text: str) -> None:
    assert b"".join(map(model.piece, model.tokenize(text))).decode() == text
    model.close()
