"""Draw boxes with their labels over a picture."""

from __future__ import annotations

import colorsys
import math
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw, ImageFont

from internvl_gguf.boxes.given import given_boxes, given_number
from internvl_gguf.boxes.label_places import Rect, place_labels
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.load import ImageSource, load_image
from internvl_gguf.types import Box
from internvl_gguf.utils import arguments
from internvl_gguf.utils.safe_text import error_line, safe_line, safe_name, shortened

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

SMALLEST_SIDE: Final = 480
"""The longer side of a drawing at least: a smaller picture is enlarged, or its labels would hide it."""

_SHARP: Final = 4  # from this enlargement on, pixels are shown as the squares they are
_LINE_SHARE, _THINNEST = 320, 2
_TEXT_SHARE, _SMALLEST_TEXT = 42, 12
_LONGEST_TEXT: Final = 48  # characters
_WIDEST_TEXT: Final = 0.6  # of the picture's width

# Told apart by people with any colour vision (Okabe and Ito's eight without black and grey), then turned hues.
_COLOURS: Final = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_GOLDEN: Final = 0.618034  # of a turn: hues that follow each other lie far apart, however many there are
_LIGHT, _DARK = (255, 255, 255), (16, 16, 18)
_MISSING: Final = "\U0010ffff"  # no font has it
_SPELLED: Final = {
    "ß": "ss",
    "ø": "o",
    "Ø": "O",
    "æ": "ae",
    "œ": "oe",
    "ł": "l",
    "Ł": "L",
    "đ": "d",
    "…": "...",
    "–": "-",
}


@dataclass(frozen=True)
class _Style:
    """Sizes of a drawing in pixels: its lines and the halo around them, and its letters."""

    line: int
    halo: int
    font: FreeTypeFont | BitmapFont
    pad: int


def draw_boxes(
    image: ImageSource,
    boxes: Iterable[Box],
    *,
    picture: int | None = None,
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Return a picture with boxes and their labels drawn over it.

    Each label has a colour, and each box the colour of its label, within a halo that shows on light and dark. Labels
    stand beside their boxes where there is room, and name the confidence where it is known. A picture whose longer
    side is below `SMALLEST_SIDE` is enlarged by a whole factor; any other keeps its size.

    Args:
        image: the picture that the boxes are of, as `Session.ask` takes it; it is turned upright.
        boxes: its boxes.
        picture: number of the picture, where boxes of other pictures are among them; None draws all.
        font: a TrueType or OpenType file for the labels; None for the one in Pillow, which has the letters of English
            alone: accents are left off, and a label in another script becomes the number of its box ("box 3").

    Returns:
        A new RGB picture.

    Raises:
        PictureError: a picture that cannot be read.
        InvalidRequestError: boxes that are none, a number that is none, or a font that cannot be read.
    """
    path = None if font is None else arguments.path("font", font)
    wanted = given_number("picture", picture)
    drawn = [box for box in given_boxes(boxes) if wanted is None or box.image == wanted]
    upright = load_image(image)
    factor = max(1, -(-SMALLEST_SIDE // max(upright.size)))
    if factor > 1:
        sampling = Image.Resampling.NEAREST if factor >= _SHARP else Image.Resampling.LANCZOS
        upright = upright.resize((upright.width * factor, upright.height * factor), sampling)
    style = _style(upright.size, path)
    rects = [_rect(box, upright.size) for box in drawn]
    colours = _colours(drawn)
    draw = ImageDraw.Draw(upright)
    for rect, colour in sorted(zip(rects, colours, strict=True), key=lambda pair: -_area(pair[0])):
        _draw_frame(draw, rect, colour, style, upright.size)
    labels = [_fitting(draw, text, style, upright.width) for text in drawn_labels(drawn, path)]
    named = [index for index, text in enumerate(labels) if text]
    outer = [_widened(rects[index], style.line // 2 + style.halo) for index in named]
    plates = place_labels(outer, [_plate_size(draw, labels[index], style) for index in named], upright.size)
    for index, plate in zip(named, plates, strict=True):
        _draw_label(draw, plate, labels[index], colours[index], style)
    return upright


def draw_frames(image: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """Return a copy of a very small picture with frames one pixel wide, without labels and halo.

    Args:
        image: an RGB picture, upright.
        boxes: its boxes.
    """
    drawing = image.copy()
    draw, (width, height) = ImageDraw.Draw(drawing), image.size
    for box, colour in zip(boxes, _colours(boxes), strict=True):
        left, top, right, bottom = _rect(box, image.size)
        corners = (min(int(left), width - 1), min(int(top), height - 1), math.ceil(right) - 1, math.ceil(bottom) - 1)
        draw.rectangle((*corners[:2], max(corners[0], corners[2]), max(corners[1], corners[3])), outline=colour)
    return drawing


def drawn_labels(boxes: Sequence[Box], font: str | None = None) -> list[str]:
    """Return the labels as they are drawn, with the confidence behind them; see `draw_boxes` for other scripts."""
    texts = []
    for number, box in enumerate(boxes, start=1):
        written = _written(box.label, font)
        label = f"box {number}" if written is None else written
        texts.append(label if box.confidence is None else f"{label} {box.confidence:.0%}".strip())
    return texts


def unwritable_labels(boxes: Sequence[Box], font: str | None = None) -> list[tuple[int, str]]:
    """Return the numbers of boxes, from 1, that are drawn in place of their labels, with these labels."""
    return [(number, box.label) for number, box in enumerate(boxes, start=1) if _written(box.label, font) is None]


def _written(label: str, font: str | None) -> str | None:
    """Return a label in letters that the font has, accents left off if need be; None if it lacks one even so."""
    text = shortened(safe_line(label).strip(), _LONGEST_TEXT)
    letters = [_written_letter(letter, font) for letter in text]
    return None if None in letters else "".join(letter or "" for letter in letters)


@lru_cache(maxsize=4096)
def _written_letter(letter: str, path: str | None) -> str | None:
    """Return a letter, or what a font has for it; None if that is nothing. One it lacks looks as any other it lacks."""
    font = _font(2 * _SMALLEST_TEXT, path)
    missing = bytes(font.getmask(_MISSING))
    plain = "".join(each for each in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(each))
    for text in (letter, _SPELLED.get(letter, plain)):
        if all(each.isspace() or bytes(font.getmask(each)) != missing for each in text):
            return text
    return None


@lru_cache(maxsize=16)
def _font(size: int, path: str | None) -> FreeTypeFont | BitmapFont:
    if path is None:
        return ImageFont.load_default(size=size)
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise InvalidRequestError(
            f"The font {safe_name(path)} cannot be read: {error_line(error)}.", "Give a TrueType or OpenType file."
        ) from None


def _style(size: tuple[int, int], font: str | None) -> _Style:
    line = max(_THINNEST, round(max(size) / _LINE_SHARE))
    text = max(_SMALLEST_TEXT, round(max(size) / _TEXT_SHARE))
    return _Style(line, max(1, line // 2), _font(text, font), max(2, text // 4))


def _colours(boxes: Sequence[Box]) -> list[tuple[int, int, int]]:
    """Return the colour of each box: that of its label."""
    places: dict[str, int] = {}
    return [_colour(places.setdefault(box.label, len(places))) for box in boxes]


def _colour(place: int) -> tuple[int, int, int]:
    if place < len(_COLOURS):
        return _COLOURS[place]
    red, green, blue = colorsys.hsv_to_rgb(place * _GOLDEN % 1, 0.85 if place % 2 else 0.55, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def _rect(box: Box, size: tuple[int, int]) -> Rect:
    left, top, right, bottom = (value / 1000 for value in box.thousandths)
    width, height = size
    return left * width, top * height, right * width, bottom * height


def _area(rect: Rect) -> float:
    return (rect[2] - rect[0]) * (rect[3] - rect[1])


def _widened(rect: Rect, by: float) -> Rect:
    left, top, right, bottom = rect
    return left - by, top - by, right + by, bottom + by


def _draw_frame(
    draw: ImageDraw.ImageDraw, rect: Rect, colour: tuple[int, int, int], style: _Style, size: tuple[int, int]
) -> None:
    """Frame a box by a line in its colour between two dark or light ones, centred on the edge, all in the picture."""
    width, height = size
    around = style.line / 2 + style.halo
    left, top, right, bottom = rect
    left, right = max(around, min(left, width - 1 - around)), min(width - 1 - around, max(right, around))
    top, bottom = max(around, min(top, height - 1 - around)), min(height - 1 - around, max(bottom, around))
    for stroke, ink in ((style.line + 2 * style.halo, _contrast(colour)), (style.line, colour)):
        before = stroke / 2
        outer = (round(left - before), round(top - before), round(right + before), round(bottom + before))
        draw.rectangle(outer, outline=ink, width=stroke)


def _fitting(draw: ImageDraw.ImageDraw, text: str, style: _Style, width: int) -> str:
    """Return a label, its middle left out if it is too wide for the picture."""
    longest = len(text)
    while longest > 1 and draw.textlength(shortened(text, longest), font=style.font) > _WIDEST_TEXT * width:
        longest -= 1
    return shortened(text, longest)


def _plate_size(draw: ImageDraw.ImageDraw, text: str, style: _Style) -> tuple[int, int]:
    ascent, descent = style.font.getmetrics() if isinstance(style.font, ImageFont.FreeTypeFont) else (10, 3)
    return round(draw.textlength(text, font=style.font)) + 2 * style.pad, ascent + descent + style.pad


def _draw_label(draw: ImageDraw.ImageDraw, plate: Rect, text: str, colour: tuple[int, int, int], style: _Style) -> None:
    ink = _contrast(colour)
    edges = tuple(round(value) for value in plate)
    draw.rectangle(edges, fill=colour, outline=ink, width=max(1, style.halo // 2))
    draw.text((edges[0] + style.pad, edges[1] + style.pad / 2), text, font=style.font, fill=ink)


def _contrast(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return black or white, whichever is read better on a colour (its luminance by ITU-R BT.709)."""
    red, green, blue = colour
    return _DARK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 110 else _LIGHT
