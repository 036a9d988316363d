"""Encoding pictures as sixels, the graphics format of DEC terminals: bands of six rows, one colour after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_COLOURS = 64
_BAND = 6
_FIRST = 63  # "?" is a column of six empty pixels


def encode_sixel(picture: Image) -> str:
    """Return the escape sequence that shows an RGB picture, in at most 64 colours."""
    reduced = picture.quantize(_COLOURS)
    pixels = bytes(reduced.tobytes())
    palette = (reduced.getpalette() or [])[: 3 * (max(pixels) + 1)]
    colours = [
        f"#{index};2;" + ";".join(str(round(part / 2.55)) for part in palette[3 * index : 3 * index + 3])
        for index in range(len(palette) // 3)
    ]
    bands = [_band(pixels, picture.width, top, picture.height) for top in range(0, picture.height, _BAND)]
    return f'\x1bP0;1q"1;1;{picture.width};{picture.height}{"".join(colours)}{"-".join(bands)}\x1b\\'


def _band(pixels: bytes, width: int, top: int, height: int) -> str:
    """Encode six rows: one pass from the left for each colour in them; bit n of a column stands for row n."""
    columns: dict[int, bytearray] = {}
    for row in range(min(_BAND, height - top)):
        for x, colour in enumerate(pixels[(top + row) * width : (top + row + 1) * width]):
            columns.setdefault(colour, bytearray(width))[x] |= 1 << row
    return "$".join(f"#{colour}{_runs(bits)}" for colour, bits in sorted(columns.items()))


def _runs(bits: bytearray) -> str:
    """Encode columns as characters, run-length encoded."""
    out, at = [], 0
    while at < len(bits):
        end = at
        while end < len(bits) and bits[end] == bits[at]:
            end += 1
        character, count = chr(_FIRST + bits[at]), end - at
        out.append(f"!{count}{character}" if count > 3 else character * count)
        at = end
    return "".join(out)
