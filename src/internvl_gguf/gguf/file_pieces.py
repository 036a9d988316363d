"""Model files cut by a general tool such as `split`, not in llama.cpp's split format: they have to be joined.

Publishers of large files did this before llama.cpp could split them, as `model.Q6_K.gguf.part1of2` or
`model.Q6_K.gguf-split-a`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from internvl_gguf.errors import ModelFileError

_PIECE: Final = re.compile(
    r"(?P<whole>.+\.gguf)(?:[.-](?:part|split)[-_.]?(?:[a-z]|\d+)(?:[-_]?of[-_]?\d+)?|\.\d{3})", re.IGNORECASE
)
_SHOWN: Final = 4
_FORMAT: Final = "cut into pieces that llama.cpp does not read"


def whole_name(name: str) -> str | None:
    """Return the name of the file that a piece belongs to, from the piece's name or path; None if it is no piece."""
    found = _PIECE.fullmatch(name)
    return found["whole"] if found else None


def in_order(pieces: Iterable[str]) -> list[str]:
    """Sort the pieces of one file by their numbers: part2 before part10."""
    return sorted(pieces, key=lambda name: [part.zfill(9) for part in re.split(r"(\d+)", name)])


def join_command(pieces: Sequence[str]) -> str:
    """Return the shell command that joins pieces, given in order."""
    shown = list(map(shlex.quote, pieces))
    if len(shown) > _SHOWN:
        shown = [shown[0], shown[1], "...", shown[-1]]
    whole = whole_name(pieces[0]) or "model.gguf"
    return f"cat {' '.join(shown)} > {shlex.quote(whole)}"


def piece_error(path: str) -> ModelFileError | None:
    """Return the error for reading a file that is only a piece; None if it is no piece."""
    whole = whole_name(path)
    if whole is None:
        return None
    return ModelFileError(
        f"{path} is a piece of {Path(whole).name}, which was {_FORMAT}.", f"Join them: {join_command(_beside(whole))}"
    )


def missing_error(path: Path) -> ModelFileError | None:
    """Return the error for a missing file whose pieces exist; None if there are no pieces."""
    pieces = _beside(str(path))
    if not pieces:
        return None
    return ModelFileError(f"There is no file {path}: it was {_FORMAT}.", f"Join them: {join_command(pieces)}")


def listed_error(quant: str, where: str, pieces: Sequence[str]) -> ModelFileError:
    """Return the error for a quant that a repository or folder has in pieces only.

    Args:
        quant: its name.
        where: the repository or folder.
        pieces: paths in it, in order.
    """
    command = join_command([Path(each).name for each in pieces])
    return ModelFileError(
        f"{quant} of {where} was {_FORMAT}.", f"Take another quant, or get all pieces and join them: {command}"
    )


def _beside(whole: str) -> list[str]:
    """Return the pieces of a file that lie in its folder."""
    path = Path(whole)
    try:
        return in_order(str(each) for each in path.parent.glob("*") if whole_name(str(each)) == str(path))
    except OSError:
        return []
