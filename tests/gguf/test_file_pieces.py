"""Model files that were cut without llama.cpp's split format: the next step is to join them, and that is said."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from internvl_gguf import Session
from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.file_pieces import in_order, join_command, whole_name
from internvl_gguf.gguf.filenames import RepoFile, find_copy, sort_out
from internvl_gguf.gguf.header import read_header
from internvl_gguf.models.resolve import ModelFiles, resolve_model
from internvl_gguf.models.select_files import complete_texts, named_text
from tests.cli.test_commands import FAST, assert_two_lines, run


@pytest.mark.parametrize(
    ("piece", "whole"),
    [
        ("model.Q6_K.gguf.part1of2", "model.Q6_K.gguf"),
        ("model.Q6_K.gguf-split-a", "model.Q6_K.gguf"),
        ("a/model.gguf.part01", "a/model.gguf"),
        ("model.gguf.part-b", "model.gguf"),
        ("MODEL.GGUF.PART2OF2", "MODEL.GGUF"),
        ("model.gguf.001", "model.gguf"),
        ("model.gguf", None),
        ("model-00001-of-00002.gguf", None),
        ("model.gguf.part", None),
        ("notes.part1of2", None),
    ],
)
def test_pieces_are_known_by_their_names(piece: str, whole: str | None) -> None:
    assert whole_name(piece) == whole


def test_pieces_are_joined_in_order() -> None:
    names = [f"a model.gguf.part{number}of10" for number in range(1, 11)]
    assert in_order(reversed(names)) == names
    shown = "'a model.gguf.part1of10' 'a model.gguf.part2of10' ... 'a model.gguf.part10of10'"
    assert join_command(names) == f"cat {shown} > 'a model.gguf'"


@pytest.fixture
def pieces(tiny: ModelFiles, tmp_path: Path) -> Path:
    """A folder with a model in two pieces, and its vision encoder."""
    data = tiny.text.read_bytes()
    for number, piece in enumerate((data[:20000], data[20000:]), 1):
        (tmp_path / f"model.Q6_K.gguf.part{number}of2").write_bytes(piece)
    (tmp_path / "mmproj-F16.gguf").write_bytes(tiny.mmproj.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "name", ["/model.Q6_K.gguf.part1of2", "/model.Q6_K.gguf.part2of2", "/model.Q6_K.gguf", "", ":Q6_K"]
)
def test_a_model_in_pieces_says_how_to_join_them(name: str, pieces: Path, tiny: ModelFiles) -> None:
    """The first piece was called damaged, the others no GGUF, and the folder without a model."""
    done = run("ask", f"{pieces}{name}", "What?", *FAST, COLUMNS="400")
    assert_two_lines(done)
    assert "cut into pieces" in done.stderr
    command = done.stderr.partition("join them: ")[2] or done.stderr.partition("Join them: ")[2]
    assert command.startswith("cat ")
    if os.name != "nt":
        subprocess.run(["/bin/sh", "-c", command], check=True, cwd=pieces)
        assert (pieces / "model.Q6_K.gguf").read_bytes() == tiny.text.read_bytes()
        assert resolve_model(f"{pieces}:Q6_K").text == pieces / "model.Q6_K.gguf"


def test_every_reader_of_a_piece_says_so(pieces: Path, tiny: ModelFiles) -> None:
    piece = pieces / "model.Q6_K.gguf.part1of2"
    with pytest.raises(ModelFileError, match=r"is a piece of model\.Q6_K\.gguf"):
        read_header(piece)
    with pytest.raises(ModelFileError, match="is a piece of"):
        Session.open(piece, tiny.mmproj)
    done = run("quantize", piece, "Q4_0", pieces / "out.gguf")
    assert_two_lines(done)
    assert "is a piece of" in done.stderr


def test_a_repository_with_pieces_has_its_other_quants() -> None:
    names = ["m.Q6_K.gguf.part2of2", "m.Q6_K.gguf.part1of2", "m.Q4_K_M.gguf", "m.mmproj-f16.gguf"]
    texts = sort_out(RepoFile(name, 10) for name in names).texts
    assert [copy.name for copy in complete_texts(texts, "owner/repo")] == ["Q4_K_M"]
    with pytest.raises(ModelFileError, match="cut into pieces") as refused:
        named_text(texts, "Q6_K", "owner/repo")
    assert refused.value.hint.endswith("cat m.Q6_K.gguf.part1of2 m.Q6_K.gguf.part2of2 > m.Q6_K.gguf")


def test_a_joined_file_beside_its_pieces_is_the_model() -> None:
    names = ["m.Q6_K.gguf.part2of2", "m.Q6_K.gguf.part1of2", "m.Q6_K.gguf"]
    texts = sort_out(RepoFile(name, 10 * len(name)) for name in names).texts
    found = find_copy(texts, "Q6_K")
    assert found is not None
    assert found.first.path == "m.Q6_K.gguf"
    assert named_text(texts, "Q6_K", "here") == found
