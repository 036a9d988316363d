"""Make the corrected copy of an mmproj, for builds of llama.cpp that give every patch its neighbour's position.

`tools/mtmd/models/internvl.cpp` appends the class token after the patches and then adds `v.position_embd`, whose row
0 is the class token's: patch i gets row i instead of row i + 1. Rolling the rows by -1, class row last, makes both
mistakes cancel. The trial (`hardware.trial`) finds whether the installed build needs it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path

from internvl_gguf.errors import LibraryError, ModelFileError
from internvl_gguf.gguf.header import GGUFHeader
from internvl_gguf.utils.atomic_write import atomic_file
from internvl_gguf.utils.records import CORRECTED_ENCODERS

POSITION_TENSOR = "v.position_embd.weight"
_FICLONE = 0x40049409  # Linux: let two files share blocks until one is written


def corrected_copies_dir() -> Path:
    """Return the folder of corrected copies, one for each mmproj in use."""
    return CORRECTED_ENCODERS.path


def corrected_copy(path: Path, header: GGUFHeader, fingerprint: str) -> Path:
    """Return the copy of an mmproj with its position rows rolled; it is made on first use.

    The file system shares the unchanged blocks where it can. The copy appears whole or not at all, and is made again
    when its size or its rows are wrong.

    Args:
        path: the mmproj as published.
        header: its header.
        fingerprint: identity of its content.

    Raises:
        ModelFileError: the file cannot be read.
        LibraryError: the cache folder has no room or cannot be written.
    """
    target = corrected_copies_dir() / f"{fingerprint}.gguf"
    if _is_intact(target, path.stat().st_size, header.tensors[POSITION_TENSOR].offset, _rolled_rows(path, header)):
        return target
    try:
        return write_corrected(path, header, target)
    except OSError as error:
        raise LibraryError(
            f"The corrected copy of {path.name} cannot be kept in {target.parent}: {error.strerror}.",
            f"Make room for {path.stat().st_size / 2**20:.0f} MiB there, or set INTERNVL_CACHE to another folder.",
        ) from error


def write_corrected(path: Path, header: GGUFHeader, target: Path) -> Path:
    """Write the copy of an mmproj with its position rows rolled, whole or not at all; return `target`.

    Raises:
        ModelFileError: the file cannot be read.
        OSError: the folder of `target` cannot be written, or has no room.
    """
    rows = _rolled_rows(path, header)
    with atomic_file(target) as temporary:
        _copy(path, temporary)
        with temporary.open("r+b") as file:
            file.seek(header.tensors[POSITION_TENSOR].offset)
            file.write(rows)
    return target


def _rolled_rows(path: Path, header: GGUFHeader) -> bytes:
    tensor = header.tensors[POSITION_TENSOR]
    row_bytes = tensor.n_bytes // tensor.shape[1]
    try:
        with path.open("rb") as file:
            file.seek(tensor.offset)
            rows = file.read(tensor.n_bytes)
    except OSError as error:
        raise ModelFileError(f"{path.name} cannot be read: {error.strerror}.", "Check the file.") from error
    return rows[row_bytes:] + rows[:row_bytes]


def _is_intact(target: Path, size: int, offset: int, rows: bytes) -> bool:
    try:
        if target.stat().st_size != size:
            return False
        with target.open("rb") as file:
            file.seek(offset)
            return file.read(len(rows)) == rows
    except OSError:
        return False


def _copy(source: Path, target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can (Btrfs, XFS, APFS)."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError), source.open("rb") as original, target.open("wb") as clone:
            fcntl.ioctl(clone.fileno(), _FICLONE, original.fileno())
            return
    elif sys.platform == "darwin":
        import ctypes

        target.unlink()
        if ctypes.CDLL(None, use_errno=True).clonefile(os.fsencode(source), os.fsencode(target), 0) == 0:
            return
    shutil.copyfile(source, target)
