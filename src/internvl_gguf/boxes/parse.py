"""Read the boxes of an answer: `<ref>label</ref><box>[[x1, y1, x2, y2], ...]</box>`, with its tags or without.

Source of the format: "Grounding / Detection Data" of InternVL's chat data format. Coordinates are thousandths of the
whole upright picture, however it was cut into tiles. Any text can be read, in time that grows with its length alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from internvl_gguf.boxes.corners import in_pixels, mended_corners
from internvl_gguf.boxes.given import given_size
from internvl_gguf.boxes.which_picture import AskedPictures, Size
from internvl_gguf.types import Box, BoxIssue
from internvl_gguf.utils import arguments
from internvl_gguf.utils.safe_text import shortened

REF, REF_END, BOX, BOX_END = "<ref>", "</ref>", "<box>", "</box>"
GROUNDING_TOKENS: Final = (REF, REF_END, BOX, BOX_END)
"""The control tokens of the format. Where an answer is shown, they are hidden."""

# Possessive quantifiers (`*+`) keep every search linear: no part of a text is tried twice.
_NUMBER: Final = r"[-+]?\d++(?:\.\d++)?"
_NUMBERS: Final = re.compile(_NUMBER)
_CORNERS: Final = re.compile(r"\[\s*+" + r"\s*+,\s*+".join([f"({_NUMBER})"] * 4) + r"\s*+\]")
_MARK: Final = re.compile(
    r"<ref>|<box>|<(?:quad|poly)>|\[\s*+\[|```(?P<language>\w*+)"
    r"|(?P<key>[\"'](?:bbox|box|bounding_box)(?:_2d)?[\"']\s*+:\s*+(?=\[))"
)
_NAMED: Final = re.compile(
    r"[\"'](?:label|name|category|class|object)[\"']\s*+:\s*+(?:\"((?:[^\"\\]|\\.)*+)\"|'((?:[^'\\]|\\.)*+)')",
    re.DOTALL,
)
_LABEL: Final = re.compile(r"(?P<label>(?:[^<\n]|<(?!/?(?:ref|box)>))*+)(?P<end></ref>)?")
_RUN: Final = re.compile(r"[-+\d.,\s\[\]()]*+")
_WORD: Final = re.compile(r"\w")
_CLAUSE: Final = re.compile(r"[\n,;:!?(){}\[\]|]|\.\s|</?(?:ref|box)>")
_BULLET: Final = re.compile(r"^[\s\d.*_#>\-\"'`]+")

CUT_IN_BOX: Final = "The answer ends inside a box; what there is of it is left out."
CUT_IN_LIST: Final = "The answer ends inside a list of boxes; more may have been meant."

_LONGEST_LABEL: Final = 200  # characters; of a longer one, the middle is left out
_POLYGON: Final = 8  # numbers of an untagged list without boxes that are named; fewer are a vector or a small matrix
_NAMED_LABELS: Final = 3  # labels that a notice names
_LONGEST_OBJECT: Final = 400  # characters of a JSON object on either side of its box in which its label is looked for
_READ_FENCES: Final = ("", "json")  # what stands in others is code
_CODE: Final = ("=", "(", "[", "{")  # before `[[…]]` in code and JSON, never in an answer with boxes


@dataclass(frozen=True)
class BoxReading:
    """The boxes of an answer.

    Attributes:
        boxes: in the order of the answer.
        places: start and end of the numbers of each in the text.
        notices: what could not be read, one line each.
        is_cut_off: whether the text ends inside a box or a list of boxes.
    """

    boxes: tuple[Box, ...]
    places: tuple[tuple[int, int], ...]
    notices: tuple[str, ...]
    is_cut_off: bool


def parse_boxes(text: str, size: Size | Sequence[Size]) -> tuple[Box, ...]:
    """Return the boxes that an answer names, in its order.

    Args:
        text: the answer, with the tags `<ref>` and `<box>` or without them (`car[[75, 658, 250, 871]]`).
        size: (width, height) of the upright picture in pixels, or of each of several.

    Raises:
        InvalidRequestError: a text that is none, or sizes that are none. No text is refused for what it says.
    """
    return read_boxes(text, size).boxes


def read_boxes(text: str, pictures: AskedPictures | Size | Sequence[Size]) -> BoxReading:
    """Return the boxes of an answer with their places, and what could not be read.

    Args:
        text: as in `parse_boxes`.
        pictures: the pictures that it may speak of, or as `size` of `parse_boxes`.

    Raises:
        As `parse_boxes`.
    """
    arguments.text("text", text)
    asked = pictures if isinstance(pictures, AskedPictures) else _asked(pictures)
    return _Reader(text, asked).read()


def _asked(given: object) -> AskedPictures:
    hint = "Give (width, height) in pixels, each 1 or more, or a list with one of each picture."
    items = list(arguments.items("size", given, hint))
    if not items:
        raise arguments.wrong("size", given, hint)
    is_one = not isinstance(items[0], Sequence)
    sizes = tuple(given_size("size", pair, hint) for pair in ([tuple(items)] if is_one else items))
    return AskedPictures(sizes, 0, len(sizes))


@dataclass
class _Label:
    """A label in `<ref>`.

    Attributes:
        text: the label.
        is_closed: whether `</ref>` follows it.
        end: where it ends; after its first list of boxes, where that ends.
        picture: the picture that it names; None if it names none.
        has_box: whether it has boxes.
    """

    text: str
    is_closed: bool
    end: int
    picture: int | None
    has_box: bool = False


class _Reader:
    """Goes once through an answer, from one mark (`<ref>`, `<box>`, `[[`) to the next."""

    def __init__(self, text: str, pictures: AskedPictures) -> None:
        self._text = text
        self._pictures = pictures
        self._boxes: list[Box] = []
        self._places: list[tuple[int, int]] = []
        self._label = _Label("", is_closed=True, end=0, picture=None, has_box=True)
        self._last_end = 0  # of the last label or list of boxes
        self._heard = 0  # how far the text was searched for names of pictures
        self._picture: int | None = None  # that it named last
        self._without_box: list[str] = []
        self._n_polygons = 0
        self._n_unread = 0
        self._is_in_fence = False
        self._is_code = False
        self._is_cut_off = False
        self._lost_last = False

    def read(self) -> BoxReading:
        at = 0
        while mark := _MARK.search(self._text, at):
            if mark[0] == REF:
                at = self._take_label(mark.end())
            elif mark[0] == BOX:
                at = self._take_tagged(mark.start(), mark.end())
            elif mark[0].startswith("["):
                at = self._take_untagged(mark.start())
            elif mark["key"]:
                at = self._take_object(mark.start(), mark.end())
            elif mark[0].startswith("`"):
                # Lists of objects stand in fences without a language, or of JSON.
                self._is_code = not self._is_in_fence and mark["language"] not in _READ_FENCES
                self._is_in_fence = not self._is_in_fence
                at = self._last_end = mark.end()
            else:
                self._n_polygons += 1
                at = self._last_end = self._end_of_list(mark.end())
        self._leave_label()
        return BoxReading(tuple(self._boxes), tuple(self._places), tuple(self._notices()), self._is_cut_off)

    def _take_label(self, start: int) -> int:
        self._leave_label()
        self._hear(start)
        found = cast("re.Match[str]", _LABEL.match(self._text, start))
        label = shortened(found["label"].strip(), _LONGEST_LABEL)
        self._label = _Label(label, found["end"] is not None, found.end(), self._pictures.named(label))
        self._heard = self._last_end = found.end()
        return found.end()

    def _leave_label(self) -> None:
        if self._label.text and not self._label.has_box:
            self._without_box.append(self._label.text)

    def _hear(self, end: int) -> None:
        """Note the picture that the text up to here names last."""
        if end > self._heard:
            named = self._pictures.named(self._text, self._heard, end)
            self._picture = self._picture if named is None else named
            self._heard = end

    def _end_of_list(self, start: int) -> int:
        return cast("re.Match[str]", _RUN.match(self._text, start)).end()

    def _take_tagged(self, mark: int, start: int) -> int:
        """Read the list of boxes after a `<box>` at `mark`; return where it ends."""
        text, end = self._text, self._end_of_list(start)
        is_closed = text.startswith(BOX_END, end)
        is_cut = not is_closed and BOX_END.startswith(text[end : end + len(BOX_END)])
        after = end + len(BOX_END) if is_closed else end
        corners = list(_CORNERS.finditer(text, start, end))
        others = self._other_numbers(start, end, corners)
        issues: list[BoxIssue] = [] if is_closed else ["not closed"]
        if len(others) == 4 and not corners and not is_cut:
            place = (others[0].start(), others[-1].end())
            self._add(mark, after, [([found[0] for found in others], place)], [*issues, "no brackets"])
        else:
            self._note_rest(is_cut, is_lost=bool(others) or not corners)
            self._add(mark, after, [(found.groups(), found.span()) for found in corners], issues)
        return after

    def _take_untagged(self, mark: int) -> int:
        """Read the list of boxes that begins with the `[[` at `mark`, if it is one; return where it ends."""
        text, end = self._text, self._end_of_list(mark)
        after = end + len(BOX_END) if text.startswith(BOX_END, end) else end
        if self._is_code or text[max(0, mark - 4) : mark].rstrip().endswith(_CODE):
            return after
        corners = list(_CORNERS.finditer(text, mark, end))
        is_open = text.count("[", mark, end) > text.count("]", mark, end)
        is_cut = is_open and BOX_END.startswith(text[end : end + len(BOX_END)])
        # After the last bracket of a whole list stands other text, perhaps with numbers.
        last = end if is_open else text.rfind("]", mark, end) + 1
        others = self._other_numbers(mark, last, corners)
        if corners or (is_cut and others) or len(others) >= _POLYGON:
            self._note_rest(is_cut, is_lost=bool(others))
        self._add(mark, last, [(found.groups(), found.span()) for found in corners], ["no tags"])
        return after

    def _take_object(self, mark: int, start: int) -> int:
        """Read the box of a JSON object, as other models write them, whose key stands at `mark`; return where it ends.

        `{"bbox_2d": [1, 2, 300, 400], "label": "cat"}`: its label is another key of the object.
        """
        text, end = self._text, self._end_of_list(start)
        if self._is_code:
            return end
        corners = list(_CORNERS.finditer(text, start, end))
        is_cut = end == len(text) and text.count("[", start, end) > text.count("]", start, end)
        last = end if is_cut else text.rfind("]", start, end) + 1
        others = self._other_numbers(start, last, corners) if last else []
        if corners or (is_cut and others) or len(others) >= _POLYGON:
            self._note_rest(is_cut, is_lost=bool(others))
        label = self._label_of_object(mark, end) if corners else None
        self._add(mark, end, [(found.groups(), found.span()) for found in corners], ["no tags"], label)
        return end

    def _label_of_object(self, mark: int, end: int) -> _Label:
        """Return the label in the object around a box that stands from `mark` to `end`."""
        text = self._text
        first = max(text.rfind(brace, max(self._last_end, mark - _LONGEST_OBJECT), mark) for brace in "{}")
        last = text.find("}", end, end + _LONGEST_OBJECT)
        found = _NAMED.search(text, max(first, self._last_end), mark) or (
            _NAMED.search(text, end, last if last >= 0 else min(len(text), end + _LONGEST_OBJECT))
        )
        written = (found[1] if found[1] is not None else found[2]) if found else ""
        try:
            label = str(json.loads(f'"{written}"', strict=False))
        except ValueError:  # in single quotes, or with an escape that JSON does not have
            label = written
        label = shortened(label.strip(), _LONGEST_LABEL)
        return _Label(label, is_closed=True, end=end, picture=self._pictures.named(label))

    def _note_rest(self, is_cut: bool, *, is_lost: bool) -> None:
        """Note what a list has besides whole boxes: a part of one at the end of the answer, or other numbers."""
        if is_cut:
            self._is_cut_off, self._lost_last = True, is_lost
            self._label.has_box = True
        elif is_lost:
            self._n_unread += 1

    def _other_numbers(self, start: int, end: int, corners: Sequence[re.Match[str]]) -> list[re.Match[str]]:
        """Return the numbers of a list that belong to no box of it."""
        starts, ends = [start, *(found.end() for found in corners)], [*(found.start() for found in corners), end]
        gaps = zip(starts, ends, strict=True)
        return [found for first, last in gaps for found in _NUMBERS.finditer(self._text, first, last)]

    def _label_at(self, mark: int, is_tagged: bool) -> _Label:
        """Return the label of a list of boxes: that of the last <ref>, unless words follow it, else words before it."""
        label = self._label
        if label.text:
            is_next = not _WORD.search(self._text, label.end, mark)
            if is_next or (is_tagged and not label.has_box):
                return label
        before = self._text[max(self._last_end, mark - _LONGEST_LABEL) : mark].rstrip(" \t:=-–\"'`*_")
        words = _CLAUSE.split(before.removesuffix(REF_END))[-1]
        text = _BULLET.sub("", words).strip(" \t\"'`*_")
        return _Label(text, is_closed=True, end=mark, picture=self._pictures.named(text))

    def _add(
        self,
        mark: int,
        end: int,
        found: Sequence[tuple[Sequence[str], tuple[int, int]]],
        issues: list[BoxIssue],
        label: _Label | None = None,
    ) -> None:
        """Add the boxes of one list: the numbers and the place of each.

        Args:
            mark: where the list begins, its tag included.
            end: where it ends.
            issues: what is to be said of all of them.
            label: their label; None for the one that stands before them.
        """
        self._hear(mark)
        if found:
            label = label or self._label_at(mark, "no tags" not in issues)
            if not label.text:
                issues = [*issues, "no label"]
            elif not label.is_closed and "not closed" not in issues:
                issues = [*issues, "not closed"]
            picture, is_guess = self._pictures.default
            named = self._picture if label.picture is None else label.picture
            if named is not None:
                picture, is_guess = named, False
            guess: list[BoxIssue] = ["guessed"] if is_guess else []
            for numbers, place in found:
                corners, mended = mended_corners(numbers)
                pixels = in_pixels(corners, self._pictures.sizes[picture])
                all_issues = (*issues, *mended, *guess)
                self._boxes.append(Box(label.text, picture, pixels, corners, issues=all_issues))
                self._places.append(place)
            label.has_box, label.end = True, end
        self._last_end = end

    def _notices(self) -> list[str]:
        notices = []
        if self._lost_last:
            notices.append(CUT_IN_BOX)
        elif self._is_cut_off:
            notices.append(CUT_IN_LIST)
        if self._n_unread:
            notices.append(f"Numbers of the answer that are no box were not read: {_counted(self._n_unread, 'list')}.")
        if self._n_polygons:
            notices.append(f"Only boxes are read, no polygons: the answer has {_counted(self._n_polygons, 'polygon')}.")
        if self._without_box and (self._boxes or self._is_cut_off):
            named = ", ".join(shortened(label, 40) for label in self._without_box[:_NAMED_LABELS])
            rest = len(self._without_box) - _NAMED_LABELS
            notices.append(f"The answer names without a box: {named}{f' and {rest} more' if rest > 0 else ''}.")
        return notices


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
