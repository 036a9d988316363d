"""Write boxes to files that the user named: drawn over their pictures, or as COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.boxes.export import to_coco
from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.utils.atomic_write import atomic_file
from internvl_gguf.utils.safe_text import safe_name

if TYPE_CHECKING:
    from internvl_gguf.boxes.which_picture import Size
    from internvl_gguf.images.load import ImageSource
    from internvl_gguf.types import Box

_FORMATS: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_COCO: Final = ".json"
_QUALITY: Final = 92  # of a JPEG or WebP: thin lines show the artefacts of less


def is_coco(target: Path) -> bool:
    """Return whether a file is for COCO's JSON, by its ending."""
    return target.suffix.lower() == _COCO


def check_target(target: Path, sources: Sequence[object] = ()) -> None:
    """Check that boxes can be written to a file, before they are asked for.

    Args:
        target: the file.
        sources: the pictures, of which none is overwritten.

    Raises:
        InvalidRequestError: another ending, or one of the pictures.
        PictureError: there is no such folder, or a folder of that name.
    """
    if target.is_dir():
        raise is_folder(target)
    if target.suffix.lower() not in {*_FORMATS, _COCO}:
        raise InvalidRequestError(
            f"Boxes cannot be written to {safe_name(str(target))}: its ending names no format for them.",
            f"Use {', '.join(_FORMATS)} for the picture with its boxes, or {_COCO} for COCO's format.",
        )
    check_folder(target, "the boxes")
    for source in sources:
        is_file = isinstance(source, str | Path) and target.exists() and Path(source).exists()
        if is_file and target.samefile(str(source)):
            raise InvalidRequestError(
                f"{safe_name(str(target))} is one of the pictures: it would be overwritten.", "Name another file."
            )


def is_folder(target: Path) -> PictureError:
    """Return the error of a folder that is named in place of a file."""
    return PictureError(f"{safe_name(str(target))} is a folder.", "Name a file in it.")


def check_folder(target: Path, what: str) -> None:
    """Check that the folder of a file is there.

    Args:
        target: the file.
        what: what is to be written, for messages.

    Raises:
        PictureError: it is not.
    """
    if not target.parent.is_dir():
        raise PictureError(
            f"There is no folder {safe_name(str(target.parent))} for {what}.", "Make it, or name another place."
        )


def numbered(target: Path, count: int) -> list[Path]:
    """Return the files for the drawings of several pictures: OUT-1.png, OUT-2.png, ...; of one, the file itself."""
    if count == 1:
        return [target]
    return [target.with_stem(f"{target.stem}-{number}") for number in range(1, count + 1)]


def save_drawing(target: Path, image: ImageSource, boxes: Sequence[Box], picture: int | None = None) -> None:
    """Write a picture with its boxes, in the format that the file's ending names.

    Args:
        target: the file; an older one is replaced.
        image, boxes, picture: as in `draw_boxes`.

    Raises:
        PictureError: the picture cannot be read, or the file cannot be written.
    """
    from internvl_gguf.boxes.draw import draw_boxes

    drawing, ending = draw_boxes(image, boxes, picture=picture), _FORMATS[target.suffix.lower()]
    options: dict[str, Any] = {} if ending == "PNG" else {"quality": _QUALITY}
    try:
        with atomic_file(target, shared=True) as temporary:
            drawing.save(temporary, format=ending, **options)
    except (OSError, ValueError) as error:  # a WebP has at most 16,383 pixels a side
        raise _unwritable(target, error) from error


def save_coco(target: Path, boxes: Sequence[Box], pictures: Sequence[tuple[str, Size]]) -> None:
    """Write boxes in COCO's format. For arguments, see `to_coco`.

    Raises:
        PictureError: the file cannot be written.
    """
    text = json.dumps(to_coco(boxes, pictures), ensure_ascii=False, indent=2) + "\n"
    try:
        with atomic_file(target, shared=True) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: Exception) -> PictureError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return PictureError(f"{safe_name(str(target))} cannot be written: {reason}.", "Choose another place for it.")
