"""Quantise a model: plan, check disk space, run the child process, check the file, move it into place."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from internvl_gguf.errors import InvalidRequestError, LibraryError, ModelFileError
from internvl_gguf.quantizing.matrix import ImportanceMatrix, check_matrix
from internvl_gguf.quantizing.output_files import check_room, output_file, output_paths
from internvl_gguf.quantizing.quant_types import Kind, QuantType, check_kind, parse_types
from internvl_gguf.quantizing.quantizer_process import Fallback, Job, QuantizeProcess
from internvl_gguf.quantizing.source import Source, elements, open_source
from internvl_gguf.utils.paths import making_temporary

TensorProgress = Callable[[int, int], None]
"""Called with the numbers of tensors done and in all."""

MATRIX_CHUNKS: Final = "quantize.imatrix.chunks_count"
"""Metadata key for the number of chunks of an importance matrix, as llama-quantize writes it."""

_ALIGNMENT: Final = 32  # of what llama.cpp writes
_METADATA_BYTES: Final = 4096  # of the keys that are added, at most


@dataclass(frozen=True)
class PlannedFile:
    """A file that could be made.

    Attributes:
        label: its type.
        n_bytes: size of the file, at most some kilobytes too large.
        bits_per_weight: of its tensors on average, norms and biases included.
        fallbacks: matrices that do not get the type they should, because their rows do not divide into its blocks.
        needs_matrix: whether it cannot be made without an importance matrix.
    """

    label: str
    n_bytes: int
    bits_per_weight: float
    fallbacks: tuple[Fallback, ...]
    needs_matrix: bool


@dataclass(frozen=True)
class QuantizedFile:
    """A file that was made.

    Attributes:
        path: where it is.
        label: its type.
        source_bytes, n_bytes: sizes of the source and of the file.
        bits_per_weight: of its tensors on average, norms and biases included.
        seconds: time it took.
        matrices: number of matrices of the model.
        fallbacks: matrices of another type than they should have, see `PlannedFile`.
        has_matrix: whether an importance matrix was used.
    """

    path: Path
    label: str
    source_bytes: int
    n_bytes: int
    bits_per_weight: float
    seconds: float
    matrices: int
    fallbacks: tuple[Fallback, ...]
    has_matrix: bool


class Quantizer:
    """Makes quants of one model. Owns the child process; close it.

    Args:
        source: the model.
        n_threads: CPU threads; None for as many as there are.
        pure: every matrix gets the type's own format instead of llama.cpp's mixture; a vision encoder always.
        force: quantise weights that are in blocks already.
    """

    def __init__(
        self, source: Source, *, n_threads: int | None = None, pure: bool = False, force: bool = False
    ) -> None:
        self.source = source
        self._matrix: ImportanceMatrix | None = None
        self._n_threads = n_threads or 0
        self._pure = pure or source.kind == "mmproj"
        self._force = force
        self._process = QuantizeProcess()
        with making_temporary():
            self._folder = tempfile.TemporaryDirectory(prefix="internvl-quantize-")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child process. Closing twice is harmless."""
        self._process.close()
        self._folder.cleanup()

    def use_matrix(self, matrix: ImportanceMatrix) -> None:
        """Use this importance matrix for all files made from now on.

        Raises:
            InvalidRequestError: the matrix is of another model, or this is a vision encoder.
        """
        check_matrix(matrix, self.source)
        means: dict[str, Any] = {name: entry.means for name, entry in matrix.entries.items()}
        np.savez(self._means, **means)
        self._matrix = matrix

    def plan(self, kind: QuantType) -> PlannedFile:
        """Return what a type would become; takes a moment, writes nothing.

        Raises:
            LibraryError: llama.cpp cannot make it.
        """
        plan = self._process.plan(self._job(kind))
        weights = padded = 0
        for name, tensor in self.source.tensors.items():
            block, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[plan.types.get(name, tensor.type.name)]]
            size = elements(tensor) // block * n_bytes
            weights += size
            padded += size + -size % _ALIGNMENT
        header = sum(header.data_offset for header in self.source.headers) + _METADATA_BYTES
        bits = 8 * weights / self.source.n_weights
        return PlannedFile(kind.label, header + padded, bits, plan.fallbacks, plan.needs_matrix)

    def check(
        self, types: Sequence[QuantType], outputs: Sequence[Path], *, matrix_follows: bool = False
    ) -> list[PlannedFile]:
        """Check that all types can be made, before the first one is.

        Args:
            types: the types.
            outputs: their files, of one folder.
            matrix_follows: whether an importance matrix will be set before they are made.

        Raises:
            ModelFileError: the source is quantised already, and `force` is not set.
            InvalidRequestError: a type is not for a vision encoder or needs an importance matrix, or the disk has no
                space for all of them.
            LibraryError: llama.cpp cannot make one.
        """
        if self.source.is_quantised and not self._force:
            raise ModelFileError(
                f"{self.source.path} is quantised already, and would lose more than from the original.",
                "Take the BF16 or F16 file of the model, or use force=True.",
            )
        check_kind(self.source.kind, types)
        planned = [self.plan(kind) for kind in types]
        needing = [plan.label for plan in planned if plan.needs_matrix]
        if needing and not matrix_follows and self._matrix is None:
            raise InvalidRequestError(
                f"{', '.join(needing)} cannot be made well without an importance matrix.",
                "Give one with --imatrix, or text and pictures to make it of with --calibrate.",
            )
        check_room(outputs[0].parent, sum(plan.n_bytes for plan in planned))
        return planned

    def make(self, kind: QuantType, output: Path, on_progress: TensorProgress | None = None) -> QuantizedFile:
        """Make one type; call `check` first.

        Args:
            kind: the type.
            output: the file, replaced if it is there.
            on_progress: called with the progress.

        Raises:
            LibraryError: llama.cpp cannot make it.
            InvalidRequestError: the file cannot be written.
        """
        started = time.perf_counter()
        source = self.source
        with output_file(output) as part:
            fallbacks = self._process.run(self._job(kind), part, on_progress or (lambda done, count: None))
            made = _checked_output(part, output, source.kind)
        weights = sum(tensor.n_bytes for tensor in made.tensors.values())
        return QuantizedFile(
            path=output,
            label=kind.label,
            source_bytes=source.n_bytes,
            n_bytes=made.n_bytes,
            bits_per_weight=8 * weights / made.n_weights,
            seconds=time.perf_counter() - started,
            matrices=len(source.matrices),
            fallbacks=fallbacks,
            has_matrix=self._matrix is not None,
        )

    @property
    def _means(self) -> Path:
        return Path(self._folder.name, "means.npz")

    def _job(self, kind: QuantType) -> Job:
        metadata: dict[str, int | str] = {}
        if self._matrix is not None:  # as llama-quantize notes it
            metadata = {
                "quantize.imatrix.entries_count": len(self._matrix.entries),
                MATRIX_CHUNKS: self._matrix.chunks,
            }
            if self._matrix.datasets:
                metadata["quantize.imatrix.dataset"] = ", ".join(self._matrix.datasets)
        return Job(
            source=self.source.path,
            label=kind.label,
            n_threads=self._n_threads,
            is_pure=self._pure,
            requantise=self._force,
            matrix=None if self._matrix is None else self._means,
            metadata=metadata,
        )


def _checked_output(part: Path, output: Path, kind: Kind) -> Source:
    """Check a written file as any model is checked, and return it.

    Raises:
        LibraryError: it is incomplete. llama.cpp does not notice a disk that fills up while it writes.
    """
    try:
        made = open_source(part)
    except ModelFileError as error:
        raise LibraryError(
            f"{output.name} was not written whole: the disk may be full.", "Free some space, or name another folder."
        ) from error
    if made.kind != kind:
        raise LibraryError(f"{output.name} became a file of another kind.", "Report this with the model's name.")
    return made


def quantize_text(
    source: Path,
    label: str,
    output: Path | None = None,
    *,
    matrix: ImportanceMatrix | None = None,
    n_threads: int | None = None,
    pure: bool = False,
    force: bool = False,
    on_progress: TensorProgress | None = None,
) -> QuantizedFile:
    """Quantise a text model.

    Args:
        source: a GGUF in F32, BF16 or F16; the first part of a split one.
        label: the type, such as "Q4_K_M".
        output: a file or a folder; None for the source's folder, by the names of published files.
        matrix: the importance matrix of the model; see `importance_matrix`.
        n_threads: CPU threads; None for as many as there are.
        pure: every matrix gets the type's own format instead of llama.cpp's mixture.
        force: replace an existing file, and quantise weights that are quantised already.
        on_progress: called with the progress.

    Raises:
        ModelFileError: the source is missing, damaged, no text model of an InternVL, or quantised already.
        InvalidRequestError: no such type, a type that needs a matrix, an output that exists or cannot be written, a
            full disk, a matrix of another model.
        LibraryError: llama.cpp cannot make it.
    """
    opened = open_source(source)
    if opened.kind != "text":
        raise ModelFileError(f"{source} is an mmproj, no text model.", "Use quantize_mmproj.")
    return _quantize(opened, label, output, matrix, n_threads, pure, force, on_progress)


def quantize_mmproj(
    source: Path,
    label: str,
    output: Path | None = None,
    *,
    n_threads: int | None = None,
    force: bool = False,
    on_progress: TensorProgress | None = None,
) -> QuantizedFile:
    """Quantise a vision encoder: the matrices of its layers and projector. Other tensors stay as they are.

    See `quantize_text` for arguments and errors.
    """
    opened = open_source(source)
    if opened.kind != "mmproj":
        raise ModelFileError(f"{source} is a text model, no mmproj.", "Use quantize_text.")
    return _quantize(opened, label, output, None, n_threads, True, force, on_progress)


def _quantize(
    source: Source,
    label: str,
    output: Path | None,
    matrix: ImportanceMatrix | None,
    n_threads: int | None,
    pure: bool,
    force: bool,
    on_progress: TensorProgress | None,
) -> QuantizedFile:
    (kind, *others) = parse_types(label)
    if others:
        raise InvalidRequestError(f"{label!r} names several types.", "Call this once for each.")
    (path,) = output_paths(source, [kind], output, force=force)
    with Quantizer(source, n_threads=n_threads, pure=pure, force=force) as quantizer:
        if matrix is not None:
            quantizer.use_matrix(matrix)
        quantizer.check([kind], [path])
        return quantizer.make(kind, path, on_progress)
