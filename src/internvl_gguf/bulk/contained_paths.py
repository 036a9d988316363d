"""Paths of pictures that are no files of their own: they go on behind the file that holds them.

`photos.zip/cats/1.jpg` is a member of an archive, and `pictures.parquet/17/image` the column `image` of row 17, counted
from 1 (see `parquet_pictures.ParquetPictures`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

ZIP_SUFFIXES: Final = (".zip",)
TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PARQUET_SUFFIXES: Final = (".parquet",)
_SUFFIXES: Final = (*ZIP_SUFFIXES, *TAR_SUFFIXES, *PARQUET_SUFFIXES)


def split_contained(path: str) -> tuple[str, str] | None:
    """Return the container's path and the member's name of such a path; None of any other.

    A file of that very path, in a folder that is called as a container is, is no member.
    """
    folded = path.lower()
    if not any(f"{suffix}/" in folded for suffix in _SUFFIXES):
        return None
    ends = sorted(
        at + len(suffix) for suffix in _SUFFIXES for at in range(len(path)) if folded.startswith(f"{suffix}/", at)
    )
    for end in ends:
        if Path(path[:end]).is_file():
            return path[:end], path[end + 1 :]
    return None
