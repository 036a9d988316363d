"""Refusals before quantising, failures during it, and Ctrl-C: each is a two-line error and leaves no file behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from internvl_gguf import InvalidRequestError, LibraryError, ModelFileError
from internvl_gguf.quantizing import QuantizedFile, Quantizer, quantize_mmproj, quantize_text
from internvl_gguf.quantizing.source import open_source
from tests.quantizing.test_quantizer import DEMO, even_matrix, type_of, types_in
from tests.support.damage import Blueprint, write
from tests.support.tiny_models import tiny_text, write_tiny_mmproj, write_tiny_text


def make(source: Path, label: str = "Q8_0", output: Path | None = None, **options: Any) -> QuantizedFile:
    return quantize_text(source, label, output, n_threads=1, **options)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """A text model of a few kilobytes, in a folder of its own; it is the same afterwards, and nothing else is there."""
    folder = tmp_path / "models"
    folder.mkdir()
    path = write_tiny_text(folder / "tiny-F32.gguf")
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before
    assert not [each.name for each in tmp_path.rglob("*") if each.name.startswith(".")]


def test_what_is_no_model_is_refused(tmp_path: Path, source: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    (tmp_path / "cut.gguf").write_bytes(source.read_bytes()[:-1000])
    plan = tiny_text()
    plan.key("qwen2.block_count").value = 77
    write(tmp_path / "damaged.gguf", plan)
    write(tmp_path / "vocabulary.gguf", Blueprint(tiny_text().keys, []))
    mmproj = write_tiny_mmproj(tmp_path / "mmproj.gguf")
    for path, words in (
        (tmp_path / "missing.gguf", "There is no file"),
        (tmp_path, "is a folder"),
        (tmp_path / "text.gguf", "is not a GGUF"),
        (tmp_path / "cut.gguf", "is cut"),
        (tmp_path / "damaged.gguf", "is missing"),
        (tmp_path / "vocabulary.gguf", "holds no weights"),
        (mmproj, "is an mmproj"),
    ):
        with pytest.raises(ModelFileError, match=words):
            make(path)
    with pytest.raises(ModelFileError, match="is a text model"):
        quantize_mmproj(source, "Q8_0")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, source: Path) -> None:
    plan = tiny_text()
    plan.tensor("blk.1.ffn_up.weight").data = np.full(64 * 96, np.nan, np.float32).tobytes()
    broken = write(tmp_path / "broken.gguf", plan)
    with pytest.raises(LibraryError, match=r"blk\.1\.ffn_up\.weight") as caught:
        make(broken, output=tmp_path)
    assert "not a number" in caught.value.hint
    assert not (tmp_path / "broken-Q8_0.gguf").exists()


def test_a_quantised_source_is_refused_unless_forced(tmp_path: Path, source: Path) -> None:
    small = make(source).path
    with pytest.raises(ModelFileError, match="quantised already") as caught:
        make(small, "Q4_0", tmp_path)
    assert "force=True" in caught.value.hint
    made = make(small, "Q4_0", tmp_path, force=True)
    assert types_in(made.path) == {"Q4_0"}


def test_what_is_there_is_not_overwritten(tmp_path: Path, source: Path) -> None:
    there = source.with_name("tiny-Q8_0.gguf")
    there.write_text("precious")
    with pytest.raises(InvalidRequestError, match="is there already"):
        make(source)
    assert there.read_text() == "precious"
    assert make(source, force=True).path == there
    assert types_in(there) == {"Q8_0"}


@pytest.mark.parametrize("force", [False, True])
def test_the_source_is_never_its_own_output(source: Path, tmp_path: Path, force: bool) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(source)
    for output in (source, link):
        with pytest.raises(InvalidRequestError, match="is the source itself"):
            make(source, "F32", output, force=force)
    with pytest.raises(InvalidRequestError, match="is the source itself"):
        make(source, "F32", force=force)


def test_an_output_that_cannot_be_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "file").touch()
    for output, words in (
        (tmp_path / "missing" / "x.gguf", "There is no folder"),
        (tmp_path / "missing", "is no folder, and no name"),
        (tmp_path / "x.bin", "is no folder, and no name"),
        (tmp_path / "file" / "x.gguf", "There is no folder"),
    ):
        with pytest.raises(InvalidRequestError, match=words):
            make(source, output=output)
    assert make(source, output=tmp_path / "folder.gguf").path == tmp_path / "folder.gguf" / "tiny-Q8_0.gguf"
    with pytest.raises(InvalidRequestError, match="several types"):
        make(source, "Q8_0,Q4_0")


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that nobody can write")
def test_a_folder_that_cannot_be_written_is_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("internvl_gguf.quantizing.output_files.free_bytes", lambda path: None)
    with pytest.raises(InvalidRequestError, match="cannot be written"):
        make(source, output=Path("/proc/self/x.gguf"))


def test_a_full_disk_is_told_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = make(source, output=tmp_path).n_bytes
    monkeypatch.setattr("internvl_gguf.quantizing.output_files.free_bytes", lambda path: size - 1)
    with pytest.raises(InvalidRequestError, match="are to be written, but"):
        make(source, "Q8_0", source.with_name("new.gguf"))
    assert [path.name for path in source.parent.iterdir()] == [source.name]


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of a file's size")
def test_a_disk_that_fills_up_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    """llama.cpp writes on when a write failed; a limit on the size of files is the disk that is full."""
    script = (
        "import resource, sys; from pathlib import Path; from internvl_gguf.quantizing import quantize_text\n"
        "from internvl_gguf.errors import LibraryError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        "try: quantize_text(Path(sys.argv[1]), 'Q8_0', Path(sys.argv[2]), n_threads=1)\n"
        "except LibraryError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(DEMO.text), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "written" in done.stdout
    assert "Free some space" in done.stdout
    assert not list(tmp_path.iterdir())


INTERRUPTED = """
import signal
import sys
from pathlib import Path

from internvl_gguf.quantizing import quantize_text

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    quantize_text(
        Path(sys.argv[1]), "Q4_0", None, n_threads=1,
        on_progress=lambda done, _: signal.raise_signal(signal.SIGINT) if done == 5 else None,
    )
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_in_the_middle_leaves_nothing(source: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n")
    assert [path.name for path in source.parent.iterdir()] == [source.name]


@pytest.fixture
def slow_request(tmp_path: Path) -> dict[str, Any]:
    """A request that keeps the library busy for many seconds: the tables of IQ1_M."""
    means: dict[str, Any] = {name: entry.means for name, entry in even_matrix(DEMO.text).entries.items()}
    np.savez(tmp_path / "means.npz", **means)
    return {
        "source": str(DEMO.text), "output": str(tmp_path / "out.gguf"), "type": "IQ1_M", "threads": 1, "pure": False,
        "requantize": False, "matrix": str(tmp_path / "means.npz"), "metadata": {},
    }  # fmt: skip


def test_the_process_ends_with_whoever_asked(slow_request: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "internvl_gguf.llama.quantize_process"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(slow_request) + "\n")
        process.stdin.flush()
        assert "tensor" in process.stdout.readline()
        assert Path(slow_request["output"]).exists()
        process.stdin.close()
        assert process.wait(timeout=60) == 1
    assert not Path(slow_request["output"]).exists()


def test_a_process_that_dies_is_an_error_and_the_next_job_gets_a_new_one(tmp_path: Path) -> None:
    with Quantizer(open_source(DEMO.text), n_threads=1) as quantizer:
        quantizer.use_matrix(even_matrix(DEMO.text))

        def kill(_done: int, _count: int) -> None:
            process = quantizer._process._process
            assert process is not None
            process.kill()

        with pytest.raises(LibraryError, match=r"llama\.cpp was killed by SIGKILL"):
            quantizer.make(type_of("IQ1_M"), tmp_path / "dead.gguf", kill)
        assert not list(tmp_path.iterdir())
        assert quantizer.make(type_of("Q8_0"), tmp_path / "alive.gguf").path.exists()


def test_an_abort_of_the_library_is_an_error_of_ours(tmp_path: Path) -> None:
    """A mixture over an mmproj asserts on a layer that is not there; nobody can ask for it but by mistake."""
    with Quantizer(open_source(DEMO.mmproj), n_threads=1) as quantizer:
        quantizer._pure = False
        with pytest.raises(LibraryError, match="ended with status"):
            quantizer.make(type_of("IQ4_NL"), tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())
