"""Draw the tile grid over a picture: `internvl inspect --save` shows how the model sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from internvl_gguf.tiling import Grid, TiledPicture

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_OVERLAY_SIDE = 2048
"""Longest side of the saved overlay in pixels, the thumbnail beside the picture included."""

_LEGIBLE_TILE, _SMALLEST_TILE = 160, 64
_GAP = 16
_CAPTION, _CAPTION_SIZE = 28, 16
_Box: TypeAlias = tuple[int, int, int, int]
_INK, _PAPER, _BACKGROUND = (255, 214, 0), (0, 0, 0), (48, 48, 52)


def draw_grid(image: Image.Image, tiled: TiledPicture | Grid) -> Image.Image:
    """Draw the tiles' borders and numbers over a picture, and the thumbnail (if there is one) beside it.

    Tiles are numbered from 1 in the order the model receives them: row by row, the thumbnail last. The picture keeps
    its shape if its tiles stay large enough to be told apart; a picture of a few pixels is enlarged, and a strip is
    stretched across, as the model's tiles are. The thumbnail is shown square, as the model receives it, and its name
    stands below it.

    Args:
        image: the whole picture, upright (as `load_image` gives it).
        tiled: its cut, from `tile_image` or `choose_grid`.

    Returns:
        A new RGB picture whose sides are at most MAX_OVERLAY_SIDE.
    """
    cut = tiled if isinstance(tiled, Grid) else Grid(*tiled.grid, thumbnail=tiled.has_thumbnail)
    grid, side = (cut.columns, cut.rows), _thumbnail_side(image.size) if cut.thumbnail else 0
    below = image.width >= 2 * image.height
    block = side + _CAPTION if side else 0
    beside_x, beside_y = (0, block + _GAP) if side and below else (side + _GAP, 0) if side else (0, 0)
    room = MAX_OVERLAY_SIDE - 2 * _GAP
    width, height = _shown_size(image.size, grid, (room - beside_x, room - beside_y))

    canvas_size = (max(width + beside_x, side) + 2 * _GAP, max(height + beside_y, block) + 2 * _GAP)
    canvas = Image.new("RGB", canvas_size, _BACKGROUND)
    picture = image.convert("RGB")
    # A few pixels are shown as the squares they are; anything else is resampled smoothly.
    sampling = Image.Resampling.NEAREST if width >= 4 * image.width else Image.Resampling.LANCZOS
    canvas.paste(picture.resize((width, height), sampling), (_GAP, _GAP))
    boxes = list(_tile_boxes((width, height), grid))
    names = [str(number) for number in range(1, len(boxes) + 1)]
    draw = ImageDraw.Draw(canvas)
    if side:
        left, top = (_GAP, height + 2 * _GAP) if below else (width + 2 * _GAP, _GAP)
        canvas.paste(picture.resize((side, side)), (left, top))
        boxes.append((left, top, left + side, top + side))
        font = ImageFont.load_default(size=_CAPTION_SIZE)
        draw.text((left, top + block), f"{len(boxes)} thumbnail", font=font, fill=_INK, anchor="lb")
    _draw_borders(draw, boxes, max(1, round(4 * max(width, height) / MAX_OVERLAY_SIDE)))
    _draw_names(draw, boxes[: len(names)], names)
    return canvas


def _thumbnail_side(size: tuple[int, int]) -> int:
    """Return the side of the drawn thumbnail: a quarter of the picture's longer side, from 208 to 320 pixels."""
    return min(320, max(208, max(size) // 4))


def _shown_size(size: tuple[int, int], grid: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """Return the drawn width and height: the original size, or larger for legible tiles, or smaller to fit."""
    fitting = min(limit / side for side, limit in zip(size, room, strict=True))
    legible = max(_LEGIBLE_TILE * tiles / side for side, tiles in zip(size, grid, strict=True))
    scale = min(fitting, max(1.0, legible))
    width, height = (
        max(round(side * scale), min(_SMALLEST_TILE * tiles, limit))
        for side, tiles, limit in zip(size, grid, room, strict=True)
    )
    return width, height


def _tile_boxes(size: tuple[int, int], grid: tuple[int, int]) -> Iterator[_Box]:
    """Yield the tiles' (left, top, right, bottom) on the canvas, row by row."""
    (width, height), (columns, rows) = size, grid
    for row in range(rows):
        for column in range(columns):
            yield (
                _GAP + round(width * column / columns),
                _GAP + round(height * row / rows),
                _GAP + round(width * (column + 1) / columns),
                _GAP + round(height * (row + 1) / rows),
            )


def _draw_borders(draw: ImageDraw.ImageDraw, boxes: list[_Box], line: int) -> None:
    """Frame each box in a light line within a dark one, which is visible on any picture.

    The strokes are centred on the edges, so that neighbours share one line.
    """
    for width, colour in ((line + 2 * max(1, line // 2), _PAPER), (line, _INK)):
        for left, top, right, bottom in boxes:
            before, after = width // 2, width - width // 2 - 1
            outer = (left - before, top - before, right + after, bottom + after)
            draw.rectangle(outer, outline=colour, width=width)


def _draw_names(draw: ImageDraw.ImageDraw, boxes: list[_Box], names: list[str]) -> None:
    """Draw the name of each box on a plate in its upper left corner."""
    narrowest = min(min(right - left, bottom - top) for left, top, right, bottom in boxes)
    size = max(11, min(22, narrowest // 14))  # legible, and hiding as little as can be
    font, pad = ImageFont.load_default(size=size), size // 4
    for (left, top, _, _), name in zip(boxes, names, strict=True):
        x, y = left + 2 * pad, top + 2 * pad
        right, bottom = draw.textbbox((x, y), name, font=font, anchor="lt")[2:]
        plate = (x - pad, y - pad, right + pad, bottom + pad)
        draw.rounded_rectangle(plate, radius=pad, fill=_PAPER, outline=_INK)
        draw.text((x, y), name, font=font, fill=_INK, anchor="lt")
