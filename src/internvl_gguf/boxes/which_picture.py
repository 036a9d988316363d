"""Which picture of a conversation a box lies in: what the answer, its label or the question says about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Size = tuple[int, int]
"""Width and height of a picture in pixels."""

_ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_KINDS: Final = r"(?:image|picture|photo|frame)"
_MENTION: Final = re.compile(
    rf"\b(?P<kind>image|picture|photo|frame)[ -]?\#?(?P<number>\d{{1,4}})\b"
    rf"|\b(?:(?P<word>{'|'.join(_ORDINALS)}|last)|(?P<nth>\d{{1,4}})(?:st|nd|rd|th))\s{{1,3}}{_KINDS}\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class AskedPictures:
    """The pictures that an answer may speak of.

    InternVL's published training data has boxes for questions with one picture only, so no format says which of
    several pictures a box lies in. What decides is, in this order: the label ("the cat in Image-2"), what the answer
    named last before the box ("In the second picture, …"), the question if it names just one picture, and the first
    picture of the question, which is a guess.

    Attributes:
        sizes: (width, height) of all pictures of the conversation; "Image-2" is the second of them, as the prompt
            numbers them.
        first: number, from 0, of the first picture that the question shows; of the last question that shows one, if
            it shows none. "The second picture" counts from here, and so does "Frame2".
        count: number of pictures that this question shows.
        asked: number of the picture that the question names; None if it names none or several.
    """

    sizes: tuple[Size, ...]
    first: int = 0
    count: int = 0
    asked: int | None = None

    @classmethod
    def of(cls, sizes: Sequence[Size], first: int, count: int, prompt: str) -> AskedPictures:
        """Return the pictures of a question, with the one that its prompt names, if any."""
        pictures = cls(tuple(sizes), first, count)
        named = set(pictures._mentions(prompt))
        return cls(pictures.sizes, first, count, named.pop() if len(named) == 1 else None)

    def named(self, text: str, start: int = 0, end: int | None = None) -> int | None:
        """Return the number of the picture that a part of a text names last; None if it names none."""
        mentions = self._mentions(text, start, end)
        return mentions[-1] if mentions else None

    @property
    def default(self) -> tuple[int, bool]:
        """The picture of a box about which the answer says nothing, and whether that is a guess."""
        if self.asked is not None:
            return self.asked, False
        return self.first, self.count > 1

    def _mentions(self, text: str, start: int = 0, end: int | None = None) -> list[int]:
        if len(self.sizes) < 2:
            return []
        found = _MENTION.finditer(text, start, len(text) if end is None else end)
        return [index for index in map(self._index, found) if 0 <= index < len(self.sizes)]

    def _index(self, mention: re.Match[str]) -> int:
        """Return the number of a mentioned picture; it may lie outside the conversation."""
        if mention["number"]:
            shift = self.first if mention["kind"].lower() == "frame" else 0
            return shift + int(mention["number"]) - 1
        first, count = (self.first, self.count) if self.count > 1 else (0, len(self.sizes))
        if mention["nth"]:
            place = int(mention["nth"]) - 1
        elif mention["word"].lower() == "last":
            place = count - 1
        else:
            place = _ORDINALS.index(mention["word"].lower())
        return first + place if 0 <= place < count else -1
