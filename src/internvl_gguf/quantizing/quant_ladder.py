"""Make a ladder of quants: one file for each of several types of a model, for a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from internvl_gguf.errors import InvalidRequestError, ModelFileError
from internvl_gguf.quantizing.matrix import ImportanceMatrix
from internvl_gguf.quantizing.output_files import file_name
from internvl_gguf.quantizing.quant_types import parse_types
from internvl_gguf.quantizing.quantizer import MATRIX_CHUNKS, Quantizer
from internvl_gguf.quantizing.source import Source, open_source

LadderProgress = Callable[[str, int, int], None]
"""Called with the label of the current type, and its numbers of tensors done and in all."""


def make_ladder(
    source: Path,
    folder: Path,
    types: Sequence[str],
    imatrix: ImportanceMatrix | None = None,
    on_progress: LadderProgress | None = None,
    *,
    n_threads: int | None = None,
) -> list[Path]:
    """Make the given types of a model, except those that exist already.

    Files appear whole or not at all, so an interrupted call can be repeated and continues where it stopped. A file that
    is older than the source, has other tensor shapes, or was made with another use of an importance matrix is made
    again.

    Args:
        source: a text model or an mmproj in F32, BF16 or F16.
        folder: where the files go, by the names of published files; made if it is not there. A source that lies there
            under the name of its type stands for that type.
        types: labels, such as "Q4_K_M".
        imatrix: the importance matrix of a text model.
        on_progress: called with the progress.
        n_threads: CPU threads; None for all cores.

    Returns:
        The files, in the order of `types`.

    Raises:
        ModelFileError: the source is missing, damaged, no part of an InternVL, or quantised already.
        InvalidRequestError: no such type, a type that needs a missing importance matrix, a full disk.
        LibraryError: llama.cpp cannot make one.
    """
    opened = open_source(source)
    kinds = parse_types(",".join(types))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequestError(f"{folder} cannot be made: {error.strerror}.", "Name another folder.") from error
    paths = {kind: folder / file_name(opened, kind) for kind in kinds}
    missing = [kind for kind, path in paths.items() if not _is_made(path, opened, imatrix)]
    if missing:
        with Quantizer(opened, n_threads=n_threads) as quantizer:
            if imatrix is not None:
                quantizer.use_matrix(imatrix)
            quantizer.check(missing, [paths[kind] for kind in missing])
            for kind in missing:
                quantizer.make(kind, paths[kind], on_progress and partial(on_progress, kind.label))
    return [paths[kind] for kind in kinds]


def _is_made(path: Path, source: Source, imatrix: ImportanceMatrix | None) -> bool:
    """Return whether a file is up to date, or the source itself."""
    try:
        if path.samefile(source.path):
            return True
        made = open_source(path)
        is_newer = path.stat().st_mtime >= max(part.stat().st_mtime for part in source.parts)
    except (ModelFileError, OSError):
        return False
    chunks = made.headers[0].integer(MATRIX_CHUNKS) if MATRIX_CHUNKS in made.headers[0] else None
    return is_newer and chunks == (None if imatrix is None else imatrix.chunks) and _shapes(made) == _shapes(source)


def _shapes(source: Source) -> dict[str, tuple[int, ...]]:
    return {name: tensor.trimmed_shape for name, tensor in source.tensors.items()}
