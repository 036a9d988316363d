"""A file is written whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from internvl_gguf.utils.atomic_write import atomic_file, write_atomically

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")


def test_the_parts_stand_one_after_the_other_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.bin"
    write_atomically(path, b"old")
    write_atomically(path, b"one", memoryview(b"two"))
    assert path.read_bytes() == b"onetwo"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def interrupted(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic_file(path) as temporary:
        interrupted(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_stands_in_the_way_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "folder", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    """The temporary file's name was longer than the file's own, and so could not be made."""
    path = tmp_path / ("é" * 120 + ".json")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


@posix_only
def test_only_the_owner_reads_what_is_not_shared(tmp_path: Path) -> None:
    write_atomically(tmp_path / "own", b"")
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o600


@posix_only
def test_a_shared_file_keeps_its_permissions_else_has_the_usual_ones(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    umask = os.umask(0o027)
    try:
        write_atomically(path, b"", shared=True)
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o604)
    write_atomically(path, b"", shared=True)
    assert path.stat().st_mode & 0o777 == 0o604


def test_a_folder_that_the_user_named_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "mistyped" / "report.md", b"", shared=True)
    assert list(tmp_path.iterdir()) == []
