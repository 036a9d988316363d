"""The lines of a batch: one JSON object for each question."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.text_data import decode_text

DIGEST_LENGTH: Final = 16
"""Characters of each half of a hash."""
_LONGEST_PATH: Final = 300
_PICTURE_NAME: Final = re.compile(
    r"\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic|mp4|m4v|mov|mkv|webm|avi)$", re.IGNORECASE
)
EXAMPLE: Final = 'Write one object a line, as {"prompt": "What is it?", "images": ["photo.jpg"]}.'


@dataclass(frozen=True)
class Line:
    """A line of the input that is not blank.

    Attributes:
        number: from 1, blank lines counted.
        data: its bytes, without the end of the line: a JSON object.
        problem: why it asks nothing, found by the source that it comes from; "" where nothing is wrong.
        if_missing: what to do where a picture of it is missing; "" for what is said of any picture.
    """

    number: int
    data: bytes
    problem: str = ""
    if_missing: str = ""

    @property
    def digest(self) -> str:
        """Digest of the line, by which it is found again at another place."""
        return digest_of(self.data + self.problem.encode())

    @property
    def fields(self) -> dict[str, Any]:
        """Return the JSON object of the line.

        Raises:
            InvalidRequestError: it is none.
        """
        if self.problem:
            raise InvalidRequestError(self.problem, "Mend it, and run the same command again.")
        return self._object

    @property
    def _object(self) -> dict[str, Any]:
        try:
            value = json.loads(decode_text(self.data, "The line"))
        except InvalidRequestError:
            raise
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise InvalidRequestError(f"The line is not JSON: {reason}.", self._example) from error
        if not isinstance(value, dict):
            raise InvalidRequestError("The line is no JSON object.", EXAMPLE)
        return value

    @property
    def known_fields(self) -> dict[str, Any]:
        """Return the JSON object of the line, also of one that asks nothing; an empty one if it is none."""
        try:
            return self._object
        except InvalidRequestError:
            return {}

    @property
    def _example(self) -> str:
        """How to write the line; one that is the path of a picture is named in it."""
        text = self.data.decode("utf-8", "replace").strip()
        if len(text) > _LONGEST_PATH or text[:1] in '{["' or not _PICTURE_NAME.search(text):
            return EXAMPLE
        written = json.dumps({"prompt": "What is it?", "images": [text]}, ensure_ascii=False)
        return f"A path alone is no question: write {written}."


def read_lines(file: Iterable[bytes]) -> Iterator[Line]:
    """Return the lines of a file that are not blank."""
    for number, data in enumerate(file, 1):
        if data.strip():
            yield Line(number, data.rstrip(b"\r\n"))


def digest_of(data: bytes) -> str:
    """Return half a hash."""
    return hashlib.blake2b(data, digest_size=DIGEST_LENGTH // 2).hexdigest()
