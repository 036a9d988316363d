"""Name and check the output files of a quantisation, and write them whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.filenames import renamed
from internvl_gguf.quantizing.quant_types import QuantType
from internvl_gguf.quantizing.source import Source
from internvl_gguf.utils.atomic_write import atomic_file
from internvl_gguf.utils.paths import free_bytes
from internvl_gguf.utils.sizes import format_size


def file_name(source: Source, kind: QuantType) -> str:
    """Return the published name of a type of a model: `name-Q4_K_M.gguf`, `mmproj-Q8_0.gguf`."""
    return f"{renamed(source.path.stem, kind.label)}.gguf"


def output_paths(
    source: Source, types: Sequence[QuantType], output: Path | None, *, default: Path | None = None, force: bool = False
) -> list[Path]:
    """Return the output path of each type of a model, checked before anything is computed.

    Args:
        source: the model.
        types: the types to make.
        output: a file, for one type; or a folder that exists.
        default: the folder if `output` is None; None takes the source's folder.
        force: whether existing files are replaced.

    Raises:
        InvalidRequestError: several types for one file, no such folder, a file that is there or is the source itself.
    """
    folder = output if output is not None else default or source.path.parent
    if output is not None and not output.is_dir():
        if output.suffix.lower() != ".gguf":
            raise InvalidRequestError(
                f"{output} is no folder, and no name that ends in .gguf.", "Make the folder first, or name a file."
            )
        if len(types) > 1:
            raise InvalidRequestError(f"{len(types)} types do not go into one file.", "Name a folder instead.")
        paths = [output]
    else:
        paths = [folder / file_name(source, each) for each in types]
    for path in paths:
        _check(path, source, force)
    return paths


def _check(path: Path, source: Source, force: bool) -> None:
    if not path.parent.is_dir():
        raise InvalidRequestError(f"There is no folder {path.parent}.", "Make it first, or name another.")
    if not path.exists():
        return
    if any(path.samefile(part) for part in source.parts):
        raise InvalidRequestError(f"{path} is the source itself.", "Name another file or folder.")
    if path.is_dir():
        raise InvalidRequestError(f"{path} is a folder.", "Name another file.")
    if not force:
        raise InvalidRequestError(f"{path} is there already.", "Use force=True, or name another file.")


def check_room(folder: Path, needed: int) -> None:
    """Refuse an output that the disk has no space for.

    Raises:
        InvalidRequestError: fewer than `needed` bytes are free where `folder` is.
    """
    free = free_bytes(folder)
    if free is not None and needed > free:
        raise InvalidRequestError(
            f"{format_size(needed)} are to be written, but {folder} has {format_size(free)} left.",
            "Free some space, or name a folder on another disk.",
        )


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, which becomes `path` if the block succeeds and is removed if not.

    Raises:
        InvalidRequestError: it cannot be written.
    """
    try:
        with atomic_file(path, shared=True) as part:
            yield part
    except OSError as error:
        raise InvalidRequestError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Free some space, or name a folder that you can write to.",
        ) from error
