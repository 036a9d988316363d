"""One prompt for many lines, with places for what each of them has of its own: `What is sold in {name}?`"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import PurePath
from typing import Any, Final

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.sources import is_data_uri

_NAME: Final = r"[A-Za-z_][\w .\-]*"
_PLACE: Final = re.compile(rf"\{{\{{(?P<literal>{_NAME})\}}\}}|\{{(?P<name>{_NAME})\}}")

OF_PICTURE: Final = ("name", "path", "stem", "folder")
"""Names of what is known of the first picture of a line: its file name, its path, the file name without its suffix, and
the name of its folder."""


class PromptTemplate:
    """A prompt with names in braces. Other braces are text, as in JSON; `{{name}}` is `{name}` as text.

    Args:
        text: the prompt.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def names(self) -> frozenset[str]:
        """The names in it."""
        return frozenset(found["name"] for found in _PLACE.finditer(self._text) if found["name"])

    def check(self, columns: Collection[str]) -> None:
        """Refuse names that no line will have.

        Args:
            columns: the columns of the lines.

        Raises:
            InvalidRequestError: there is such a name.
        """
        known = (*columns, *(name for name in OF_PICTURE if name not in columns))
        for name in sorted(self.names.difference(known)):
            raise _unknown(name, known)

    def filled(self, values: Mapping[str, Any]) -> str:
        """Return the prompt of a line.

        Args:
            values: what the line has, by its names; None is nothing.

        Raises:
            InvalidRequestError: a name that is not among them.
        """

        def text_of(found: re.Match[str]) -> str:
            if found["literal"]:
                return f"{{{found['literal']}}}"
            name = found["name"]
            if name not in values:
                raise _unknown(name, values)
            return as_text(values[name])

        return _PLACE.sub(text_of, self._text)


def values_of_picture(reference: object) -> dict[str, str]:
    """Return what `OF_PICTURE` names of a picture's path; nothing of a picture that is no file."""
    if not isinstance(reference, str) or is_data_uri(reference):
        return {}
    path = PurePath(reference)
    values = (path.name, reference, path.stem, path.parent.name)
    return dict(zip(OF_PICTURE, values, strict=True))


def as_text(value: Any) -> str:
    """Return the value of a column as a prompt has it: "" for one that is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unknown(name: str, known: Collection[str]) -> InvalidRequestError:
    names = ", ".join(known)[:300] or "nothing"
    return InvalidRequestError(
        f"The prompt has a place for {{{name}}}, which is not known.",
        f"Known: {names}. Write {{{{{name}}}}} for the braces themselves.",
    )
