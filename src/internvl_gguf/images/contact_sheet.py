"""Draw the frames of a clip side by side: `internvl inspect clip.mp4 --save` shows what the model sees of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from internvl_gguf.tiling import Grid

MAX_SHEET_SIDE: Final = 4096
"""Longest side of a sheet in pixels."""
_LARGEST_TILE, _SMALLEST_TILE = 320, 64  # pixels of a tile's drawn side
_COMFORTABLE: Final = 2048  # pixels of a sheet's side within which tiles are drawn as large as may be
_SHAPE: Final = 1.5  # width by height that a sheet is near to
_ONE_ROW: Final = 4  # frames that stand in one row
_ONE_LINE: Final = 160  # pixels of a frame's width from which on its caption is one line
_GAP, _INNER_GAP = 16, 4
_INK, _LINE, _BACKGROUND = (255, 214, 0), (0, 0, 0), (48, 48, 52)


@dataclass(frozen=True)
class SheetFrame:
    """A frame of a sheet.

    Attributes:
        image: the frame, RGB and upright.
        grid: how it is cut into tiles.
        name, time: what stands below it.
    """

    image: Image.Image
    grid: Grid
    name: str
    time: str


def draw_sheet(frames: Sequence[SheetFrame]) -> Image.Image:
    """Draw frames row by row, each as the model sees it: stretched to whole tiles, with lines between these.

    A thumbnail stands beside the tiles of its frame.

    Args:
        frames: one or more, in order.

    Returns:
        A new RGB picture whose sides are at most MAX_SHEET_SIDE, unless there are thousands of tiles.
    """
    across = max(each.grid.columns + each.grid.thumbnail for each in frames)
    down = max(each.grid.rows for each in frames)
    cell, columns = _layout(len(frames), across, down)
    rows = math.ceil(len(frames) / columns)
    font = ImageFont.load_default(size=cell.text)
    sheet = Image.new("RGB", (columns * cell.width + _GAP, rows * cell.height + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, frame in enumerate(frames):
        left, top = _GAP + number % columns * cell.width, _GAP + number // columns * cell.height
        _draw_frame(sheet, draw, frame, (left, top), cell.side)
        below = (left, top + frame.grid.rows * cell.side + _INNER_GAP)
        caption = ("  " if cell.lines == 1 else "\n").join((frame.name, frame.time))
        draw.multiline_text(below, caption, font=font, fill=_INK, spacing=2)
    return sheet


@dataclass(frozen=True)
class _Cell:
    """The place of a frame on a sheet, in pixels.

    Attributes:
        side: of a tile.
        across, down: tiles of the largest frame.
    """

    side: int
    across: int
    down: int

    @property
    def text(self) -> int:
        """Size of the caption: legible, and not larger than the frame deserves."""
        return max(11, min(18, self.side * self.across // 10))

    @property
    def lines(self) -> int:
        """Lines of the caption."""
        return 1 if self.side * self.across >= _ONE_LINE else 2

    @property
    def width(self) -> int:
        """Width with the gap behind it."""
        return self.side * self.across + _GAP

    @property
    def height(self) -> int:
        """Height with the caption and the gap below it."""
        return self.side * self.down + _INNER_GAP + self.lines * (self.text + 4) + _GAP

    def columns(self, count: int) -> int:
        """Return the columns with which a sheet of so many frames is near to _SHAPE."""
        return min(count, max(1, round(math.sqrt(count * _SHAPE * self.height / self.width))))


def _layout(count: int, across: int, down: int) -> tuple[_Cell, int]:
    """Return the cell of a frame and the columns of a sheet that is near to _SHAPE and suits a screen."""
    for side in range(_LARGEST_TILE, _SMALLEST_TILE - 1, -8):
        cell = _Cell(side, across, down)
        columns = count if count <= _ONE_ROW else cell.columns(count)
        if max(columns * cell.width, math.ceil(count / columns) * cell.height) + _GAP <= _COMFORTABLE:
            return cell, columns
    cell = _Cell(_SMALLEST_TILE, across, down)
    return cell, min(cell.columns(count), max(1, (MAX_SHEET_SIDE - _GAP) // cell.width))


def _draw_frame(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, frame: SheetFrame, place: tuple[int, int], side: int
) -> None:
    """Draw a frame with its upper left corner at a place, its tiles `side` pixels wide."""
    (left, top), grid = place, frame.grid
    width, height = grid.columns * side, grid.rows * side
    sheet.paste(frame.image.resize((width, height), Image.Resampling.LANCZOS), place)
    for column in range(1, grid.columns):
        _draw_line(draw, (left + column * side, top), (left + column * side, top + height - 1))
    for row in range(1, grid.rows):
        _draw_line(draw, (left, top + row * side), (left + width - 1, top + row * side))
    if grid.thumbnail:
        small = side - _INNER_GAP
        sheet.paste(frame.image.resize((small, small), Image.Resampling.LANCZOS), (left + width + _INNER_GAP, top))


def _draw_line(draw: ImageDraw.ImageDraw, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Draw a light line within a dark one, which is visible on any picture."""
    draw.line((start, end), fill=_LINE, width=3)
    draw.line((start, end), fill=_INK, width=1)
