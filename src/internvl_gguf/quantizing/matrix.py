"""Importance matrices: the mean squared input of each column of each weight matrix, and their files.

With it a quantiser spends its bits on the columns that matter. The files are those of llama.cpp's `llama-imatrix`
(`common/imatrix-loader.cpp`): GGUF with the sums of squares and the counts of each tensor, or the older format without
a magic number, which is read and not written.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

from internvl_gguf.errors import InvalidRequestError, ModelFileError
from internvl_gguf.gguf.header import GGUFHeader, read_header
from internvl_gguf.quantizing.output_files import output_file
from internvl_gguf.quantizing.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK: Final = 512
"""Positions that the counts of a file are given in."""

_SUMS, _COUNTS = ".in_sum2", ".counts"
_DATASETS, _CHUNK_COUNT, _CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
_MAX_BYTES: Final = 4 * 1024**3  # of an older file; the largest model's are some megabytes
_AGAIN: Final = "Get or make it again: `--calibrate` makes one, and --save-imatrix keeps it."


@dataclass(frozen=True)
class Activations:
    """Squared inputs of one weight matrix, or of the matrices of all experts of a layer.

    Attributes:
        sums: sum of squares of each input, float64 [columns of the matrix], expert after expert.
        counts: number of positions summed, int64 [experts]; one number where there are no experts.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]

    def __add__(self, other: Activations) -> Activations:
        return Activations(self.sums + other.sums, self.counts + other.counts)

    @property
    def count(self) -> int:
        """Positions summed, of the expert that got the most."""
        return int(self.counts.max())

    @property
    def means(self) -> NDArray[np.float32]:
        """Mean squares, the input of the quantiser; ones for what read nothing, as in llama-quantize."""
        counts = self.counts[:, None]
        means = np.where(counts > 0, self.sums.reshape(len(counts), -1) / np.maximum(counts, 1), 1.0)
        return np.asarray(means.reshape(-1), np.float32)


@dataclass(frozen=True)
class ImportanceMatrix:
    """Squared inputs of the weight matrices of a model.

    Attributes:
        entries: by the tensor's name.
        datasets: names of the calibration data.
    """

    entries: Mapping[str, Activations]
    datasets: tuple[str, ...] = ()

    @property
    def positions(self) -> int:
        """Number of tokens and visual tokens it was made of."""
        return max((entry.count for entry in self.entries.values()), default=0)

    @property
    def chunks(self) -> int:
        """Number of positions in chunks of 512, as files give it."""
        return self.positions // CHUNK

    def __add__(self, other: ImportanceMatrix) -> ImportanceMatrix:
        """Return the matrix of the data of both.

        Raises:
            InvalidRequestError: they are of different models.
        """
        entries = dict(self.entries)
        for name, entry in other.entries.items():
            known = entries.get(name)
            if known is not None and len(known.sums) != len(entry.sums):
                raise InvalidRequestError(
                    f"The importance matrices are of two models: {name} has {len(known.sums)} columns in one and "
                    f"{len(entry.sums)} in the other.",
                    "Add up matrices of one model only.",
                )
            entries[name] = entry if known is None else known + entry
        return ImportanceMatrix(entries, (*self.datasets, *other.datasets))


def check_matrix(matrix: ImportanceMatrix, source: Source) -> None:
    """Refuse a matrix that was made for another model than `source`.

    Raises:
        InvalidRequestError: it has a tensor that the model lacks or has in another width, it lacks a tensor of a layer,
            or the model is a vision encoder.
    """
    if source.kind == "mmproj":
        raise InvalidRequestError(
            "An importance matrix is for the text model; a vision encoder takes none.", "Leave it out."
        )
    hint = "Take the matrix of this very model, or make one with --calibrate."
    columns = {name: _inputs(tensor.trimmed_shape) for name, tensor in source.tensors.items()}
    for name, entry in matrix.entries.items():
        if columns.get(name) != len(entry.sums):
            there = f"has {columns[name]} columns" if name in columns else "is not there"
            raise InvalidRequestError(
                f"The importance matrix is of another model: {name} has {len(entry.sums)} columns in it, and in "
                f"{source.path.name} {there}.",
                hint,
            )
    missing = [name for name in source.matrices if name.startswith("blk.") and name not in matrix.entries]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InvalidRequestError(
            f"The importance matrix is of another model: it has nothing about {missing[0]}{more}.", hint
        )


def _inputs(shape: tuple[int, ...]) -> int:
    """Return the number of inputs of a matrix, or of the matrices of all experts."""
    return shape[0] * math.prod(shape[2:])


class _Writer(GGUFWriter):  # type: ignore[misc]
    """A GGUF writer without an architecture key: the file is no model."""

    def add_architecture(self) -> None:
        """Write no architecture."""


def write_matrix(path: Path, matrix: ImportanceMatrix) -> None:
    """Write a matrix as `llama-imatrix` does; the file appears whole or not at all.

    Raises:
        InvalidRequestError: the file cannot be written.
    """
    with output_file(path) as part:
        _write(part, matrix)


def _write(path: Path, matrix: ImportanceMatrix) -> None:
    writer = _Writer(path, "")
    writer.add_string("general.type", "imatrix")
    writer.add_array(_DATASETS, list(matrix.datasets) or [""])
    writer.add_uint32(_CHUNK_COUNT, matrix.chunks)
    writer.add_uint32(_CHUNK_SIZE, CHUNK)
    for name, entry in sorted(matrix.entries.items()):
        writer.add_tensor(name + _SUMS, np.asarray(entry.sums, np.float32))
        writer.add_tensor(name + _COUNTS, np.asarray(entry.counts, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_matrix(path: Path) -> ImportanceMatrix:
    """Read a matrix of llama-imatrix, in GGUF or in its older format.

    Raises:
        ModelFileError: no such file, damaged, or something else.
    """
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        matrix = _read_gguf(read_header(path)) if is_gguf else _read_older(path)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    for name, entry in matrix.entries.items():
        if not np.isfinite(entry.sums).all() or (entry.sums < 0).any():
            raise ModelFileError(f"{path} is damaged: the values of {name} are no sums of squares.", _AGAIN)
    return matrix


def _read_gguf(header: GGUFHeader) -> ImportanceMatrix:
    """Read the matrix of a GGUF from its header on."""
    entries = {}
    with Path(header.label).open("rb") as file:
        for name, tensor in header.tensors.items():
            if tensor.type is not GGMLQuantizationType.F32 or not name.endswith((_SUMS, _COUNTS)):
                raise ModelFileError(f"{header.label} is no importance matrix.", _AGAIN)
            if not name.endswith(_SUMS):
                continue
            stem = name.removesuffix(_SUMS)
            counts = header.tensors.get(stem + _COUNTS)
            if counts is None:
                raise ModelFileError(f"{header.label} is damaged: {stem} has sums and no counts.", _AGAIN)
            if not counts.n_bytes or tensor.n_bytes % counts.n_bytes:
                raise ModelFileError(f"{header.label} is damaged: {stem} has more counts than sums.", _AGAIN)
            file.seek(tensor.offset)
            sums = np.fromfile(file, "<f4", tensor.n_bytes // 4).astype(np.float64)
            file.seek(counts.offset)
            entries[stem] = Activations(sums, _counts(np.fromfile(file, "<f4", counts.n_bytes // 4), header.label))
    if not entries:
        raise ModelFileError(f"{header.label} is no importance matrix.", _AGAIN)
    names: Sequence[bytes] = ()
    if _DATASETS in header:
        names = header.array(_DATASETS, GGUFValueType.STRING).raw_strings()
    return ImportanceMatrix(entries, tuple(name.decode("utf-8", "replace") for name in names if name))


def _counts(values: NDArray[np.float32], label: str) -> NDArray[np.int64]:
    wrong = values[~np.isfinite(values) | (values < 0)]
    if len(wrong):
        raise ModelFileError(f"{label} is damaged: a count is {wrong[0]}.", _AGAIN)
    return np.rint(values).astype(np.int64)


def _read_older(path: Path) -> ImportanceMatrix:
    """Read a file of the older format, which has no magic number: means times a number of calls, by tensor."""
    if path.stat().st_size > _MAX_BYTES:
        raise ModelFileError(f"{path} is no importance matrix.", _AGAIN)
    data, position = path.read_bytes(), 0

    def take(length: int) -> bytes:
        nonlocal position
        if length < 0 or position + length > len(data):
            raise ModelFileError(f"{path} is no importance matrix, or is cut.", _AGAIN)
        position += length
        return data[position - length : position]

    def integer() -> int:
        return int(struct.unpack("<i", take(4))[0])

    entries = {}
    for _ in range(integer()):
        name = take(integer()).decode("utf-8", "replace")
        calls, length = integer(), integer()
        sums = np.frombuffer(take(4 * length), "<f4").astype(np.float64)
        if calls < 0:
            raise ModelFileError(f"{path} is damaged: {name} was called {calls} times.", _AGAIN)
        # A call was a chunk; the sums of one without a count are the means themselves.
        entries[name] = Activations(sums * CHUNK, np.array([max(calls, 1) * CHUNK]))
    if not entries:
        raise ModelFileError(f"{path} is no importance matrix.", _AGAIN)
    datasets: tuple[str, ...] = ()
    if len(data) - position >= 8:
        integer()  # chunks
        datasets = (take(integer()).decode("utf-8", "replace"),)
    return ImportanceMatrix(entries, datasets)
