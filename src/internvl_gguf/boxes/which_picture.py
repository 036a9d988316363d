"""Which picture of a conversation a box lies in: what the answer, its label or the question says about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

Size = tuple[int, int]
"""Width and height of a picture in pixels."""

_ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_KINDS: Final = r"(?P<noun>image|picture|photo|frame)"
_FIRST_FRAME: Final = re.compile(r"(?:^|\n)Frame1[ :]")
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
            numbers them, which leaves frames of clips out.
        first: number, from 0, of the first picture that the question shows; of the last question that shows one, if
            it shows none. "The second picture" counts from here, and so does "Frame2" where there is no clip.
        count: number of pictures that this question shows.
        asked: number of the picture that the question names; None if it names none or several.
        labels: text before each picture in the prompt; "" for what the layout says, () for that of all. Frames of a
            clip have a label. "Frame2" is the second of the last clip.
    """

    sizes: tuple[Size, ...]
    first: int = 0
    count: int = 0
    asked: int | None = None
    labels: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, sizes: Sequence[Size], first: int, count: int, prompt: str, labels: Sequence[str] = ()
    ) -> AskedPictures:
        """Return the pictures of a question, with the one that its prompt names, if any."""
        pictures = cls(tuple(sizes), first, count, labels=tuple(labels))
        named = set(pictures._mentions(prompt))
        return replace(pictures, asked=named.pop() if len(named) == 1 else None)

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
        is_frame = (mention["kind"] or mention["noun"]).lower() == "frame"
        frames = self._last_clip if is_frame else range(0)
        if mention["number"]:
            place = int(mention["number"]) - 1
            if is_frame and not frames:
                return self.first + place
            return _at(frames or self._numbered, place)
        asked = range(self.first, self.first + self.count) if self.count > 1 else range(len(self.sizes))
        numbered = [each for each in asked if not self._label(each)]
        places = frames or (asked if is_frame else numbered or asked)
        if mention["nth"]:
            return _at(places, int(mention["nth"]) - 1)
        word = mention["word"].lower()
        return _at(places, len(places) - 1 if word == "last" else _ORDINALS.index(word))

    @property
    def _numbered(self) -> list[int]:
        """The pictures that the prompt counts, or all where it counts none."""
        everything = range(len(self.sizes))
        return [each for each in everything if not self._label(each)] or list(everything)

    @property
    def _last_clip(self) -> range:
        """The frames of the last clip, up to the question; none without one."""
        begins = [at for at in range(len(self.labels)) if _FIRST_FRAME.search(self.labels[at])]
        if not begins:
            return range(0)
        end = begins[-1] + 1
        while end < len(self.labels) and self.labels[end]:
            end += 1
        return range(begins[-1], end)

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else ""


def _at(places: Sequence[int], index: int) -> int:
    return places[index] if 0 <= index < len(places) else -1
