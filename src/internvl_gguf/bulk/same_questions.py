"""Lines that ask the same about equal pictures, which are answered once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from internvl_gguf.bulk.clip_fields import CLIP_FIELDS
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.contained import contained_bytes, contained_size
from internvl_gguf.bulk.contained_paths import split_contained
from internvl_gguf.bulk.lines import DIGEST_LENGTH, Line
from internvl_gguf.errors import InternVLError
from internvl_gguf.images.load import picture_bytes
from internvl_gguf.images.sources import is_data_uri, local_path

_DIGEST_BYTES: Final = 16


class SameQuestions:
    """Finds the lines whose answers are equal because their pictures and all else that decides them are.

    Only pictures of as many bytes as another's are read for that. A line whose sampling is left to chance has an answer
    of its own: of one that is not greedy and has no seed.

    Args:
        lines: all lines; they are read once.
        common: what they have in common.
    """

    def __init__(self, lines: Iterable[Line], common: Common) -> None:
        self._common = common
        self._alike = Counter(alike for line in lines if (alike := self._alike_of(line)) is not None)

    def key(self, line: Line) -> bytes | None:
        """Return what a line has in common with those that are answered as it is; None if there is none.

        Args:
            line: one of the lines.
        """
        alike = self._alike_of(line)
        if alike is None or self._alike[alike] < 2:
            return None
        digest = hashlib.blake2b(alike.to_bytes(8, "little", signed=True), digest_size=_DIGEST_BYTES)
        try:
            for image in _images(line):
                data = contained_bytes(image) if split_contained(image) else picture_bytes(image)
                digest.update(hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest())
        except (InternVLError, OSError):
            return None  # the line says so when it is asked
        return digest.digest()

    def _alike_of(self, line: Line) -> int | None:
        """Return a number that lines with equal answers share, and few others; None of a line that has no such twin."""
        try:
            question = self._common.as_written(line)
            images = _images(line)
        except InternVLError:
            return None
        sampling = question.options["sampling"]
        is_drawn = sampling.effective_temperature > 0 or sampling.best_of > 1
        if not images or (is_drawn and sampling.seed is None):
            return None
        try:
            sizes = tuple(map(_size, images))
        except (InternVLError, OSError, ValueError):
            return None
        return hash((sizes, self._common.hash_of(line)[DIGEST_LENGTH:]))


def _images(line: Line) -> list[Any]:
    """Return the pictures of a line that are files, or texts; none of a line with clips or without pictures."""
    fields = line.fields
    if any(name in fields for name in CLIP_FIELDS):
        return []
    images = fields.get("images", [])
    given = images if isinstance(images, list) else [images]
    return given if all(isinstance(each, str) for each in given) else []


def _size(image: str) -> int:
    """Return the bytes of a picture's file, without reading it where that is possible."""
    if is_data_uri(image):
        return len(image)
    return contained_size(image) if split_contained(image) else Path(local_path(image, image)).stat().st_size
