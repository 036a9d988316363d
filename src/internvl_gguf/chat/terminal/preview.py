"""Small previews of pictures, in the graphics protocol of the terminal.

The protocol is chosen by environment variables alone. Inside tmux and screen, which do not pass on picture protocols by
default, pictures are drawn in half blocks, as in unknown terminals.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from internvl_gguf.types import Box

PREVIEW_COLUMNS, PREVIEW_ROWS = 28, 8
"""Most columns and rows of a preview."""

BOXES_COLUMNS, BOXES_ROWS = 60, 20
"""Most columns and rows of a preview with boxes, whose labels are to be read."""

_CELL = (10, 20)  # pixels of a cell, about; terminals scale to whole cells
_KITTY_CHUNK = 4096
_KONSOLE_WITH_KITTY = 220400


class Protocol(Enum):
    """Graphics protocol of a terminal."""

    KITTY = "kitty"
    ITERM = "iterm"
    SIXEL = "sixel"
    BLOCKS = "blocks"
    BLOCKS_256 = "blocks in 256 colours"


def protocol_of(environment: Mapping[str, str]) -> Protocol:
    """Return the protocol of the terminal that these environment variables describe."""
    terminal, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    blocks = Protocol.BLOCKS if environment.get("COLORTERM") in ("truecolor", "24bit") else Protocol.BLOCKS_256
    if environment.get("TMUX") or environment.get("STY") or terminal.startswith(("screen", "tmux")):
        return blocks
    if terminal in ("xterm-kitty", "xterm-ghostty") or environment.get("KITTY_WINDOW_ID") or program == "ghostty":
        return Protocol.KITTY
    konsole = environment.get("KONSOLE_VERSION", "")
    if konsole.isdigit() and int(konsole) >= _KONSOLE_WITH_KITTY:
        return Protocol.KITTY
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return Protocol.ITERM
    if "sixel" in terminal or terminal.startswith(("foot", "mlterm", "contour")) or environment.get("MLTERM"):
        return Protocol.SIXEL
    return blocks


def draw(
    picture: Image,
    protocol: Protocol,
    room: tuple[int, int] = (PREVIEW_COLUMNS, PREVIEW_ROWS),
    boxes: Sequence[Box] = (),
) -> str:
    """Return the text that makes a terminal show an RGB picture; it ends at the beginning of a line.

    Args:
        picture: the picture, upright.
        protocol: how it is drawn.
        room: most columns and rows.
        boxes: boxes to draw on it; in half blocks their frames alone, for letters have no room there.
    """
    from internvl_gguf.boxes.draw import draw_boxes, draw_frames

    columns, rows = _size_in_cells(picture.size, room)
    if protocol in (Protocol.BLOCKS, Protocol.BLOCKS_256):
        small = draw_frames(picture.resize((columns, rows * 2)), boxes)
        line = _true_line if protocol is Protocol.BLOCKS else _indexed_line
        return "".join(f"{line(small, row)}\x1b[0m\n" for row in range(rows))
    pixels = (columns * _CELL[0], rows * _CELL[1])
    small = draw_boxes(picture.resize(pixels), boxes).resize(pixels) if boxes else picture.resize(pixels)
    if protocol is Protocol.SIXEL:
        from internvl_gguf.chat.terminal.sixel import encode_sixel

        return f"{encode_sixel(small)}\n"
    data = io.BytesIO()
    small.save(data, "PNG")
    if protocol is Protocol.ITERM:
        text = base64.b64encode(data.getvalue()).decode()
        size = f"size={len(data.getvalue())};width={columns};height={rows}"
        return f"\x1b]1337;File=inline=1;{size};preserveAspectRatio=0:{text}\x07\n"
    return "".join(_kitty(data.getvalue(), columns, rows)) + "\n"


def _size_in_cells(size: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """Return columns and rows of a preview with the picture's aspect ratio; a cell is about twice as high as wide."""
    (width, height), (most_columns, most_rows) = size, room
    columns = min(most_columns, max(1, round(2 * most_rows * width / height)))
    rows = min(most_rows, max(1, round(columns * height / width / 2)))
    return columns, rows


def _kitty(png: bytes, columns: int, rows: int) -> Iterator[str]:
    """Yield the picture in pieces of kitty's protocol; q=2 suppresses replies, which would be read as keys."""
    text = base64.b64encode(png).decode()
    for at in range(0, len(text), _KITTY_CHUNK):
        control = f"a=T,f=100,q=2,c={columns},r={rows}," if at == 0 else ""
        more = int(at + _KITTY_CHUNK < len(text))
        yield f"\x1b_G{control}m={more};{text[at : at + _KITTY_CHUNK]}\x1b\\"


def _pixel(picture: Image, x: int, y: int) -> tuple[int, int, int]:
    value = picture.getpixel((x, y))
    if not isinstance(value, tuple):
        raise TypeError(f"a pixel of a picture of mode {picture.mode}, not RGB")
    return int(value[0]), int(value[1]), int(value[2])


def _true_line(picture: Image, row: int) -> str:
    """Return a row of cells: an upper half block in the upper pixel's colour on the lower pixel's colour."""
    cells = []
    for x in range(picture.width):
        upper, lower = (";".join(map(str, _pixel(picture, x, 2 * row + half))) for half in (0, 1))
        cells.append(f"\x1b[38;2;{upper};48;2;{lower}m▀")
    return "".join(cells)


def _indexed_line(picture: Image, row: int) -> str:
    cells = []
    for x in range(picture.width):
        upper, lower = (_index(_pixel(picture, x, 2 * row + half)) for half in (0, 1))
        cells.append(f"\x1b[38;5;{upper};48;5;{lower}m▀")
    return "".join(cells)


def _index(colour: tuple[int, int, int]) -> int:
    """Return the nearest of xterm's 256 colours, from its cube of 6 x 6 x 6 or its greys."""
    levels = (0, 95, 135, 175, 215, 255)
    near = [_nearest(levels, part) for part in colour]
    grey = min(max(round((sum(colour) / 3 - 8) / 10), 0), 23)
    in_cube = sum((levels[index] - part) ** 2 for index, part in zip(near, colour, strict=True))
    in_greys = sum((8 + 10 * grey - part) ** 2 for part in colour)
    return 232 + grey if in_greys < in_cube else 16 + 36 * near[0] + 6 * near[1] + near[2]


def _nearest(levels: Sequence[int], part: int) -> int:
    distances = [abs(level - part) for level in levels]
    return distances.index(min(distances))
