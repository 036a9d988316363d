"""Pictures and clips of a folder, or of a glob such as `photos/**/*.jpg`."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from internvl_gguf.bulk.sources.picture_paths import is_shown
from internvl_gguf.bulk.sources.source import Source, numbered
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.sizes import counted

_OF_MACOS: Final = "__MACOSX"  # what a Mac adds to an archive
_HIDDEN: Final = (".", _OF_MACOS)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and those below it, sorted; hidden ones and those of hidden folders are left out."""
    for where, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(each for each in folders if not each.startswith(_HIDDEN))
        yield from (Path(where, name) for name in sorted(files) if not name.startswith(_HIDDEN))


def files_of_glob(pattern: str) -> list[Path]:
    """Return the files that a glob names, sorted; `**` stands for any folders."""
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207  (Path.glob takes no absolute pattern)
    return [path for each in sorted(found) if (path := Path(each)).is_file() and _OF_MACOS not in path.parts]


def pictures_source(name: str, files: Iterable[Path], *, is_folder: bool) -> Source:
    """Return a source with a line for each picture and clip.

    Args:
        name: the folder or glob.
        files: the files in it.
        is_folder: whether others are only passed over; of a glob each was asked for.

    Raises:
        InvalidRequestError: there is no picture.
    """
    found = list(files)
    shown = [path for path in found if not is_folder or is_shown(path)]
    if not shown:
        what = "has no picture" if is_folder else "names no file"
        others = f", only {counted(len(found), 'other file')}" if found else ""
        raise InvalidRequestError(
            f"{name} {what}{others}.", "Name a folder of pictures, a glob in quotes, or a file of lines or rows."
        )
    left_out = len(found) - len(shown)
    kind = "is no picture" if left_out == 1 else "are no pictures"
    notices = (f"{counted(left_out, 'file')} in {name} that {kind}: left out.",) if left_out else ()
    paths = [str(path) for path in shown]

    def rows() -> Iterator[dict[str, Any]]:
        for path in paths:
            yield {"images": [path]}

    return Source(name, lambda: numbered(rows()), (), notices)
