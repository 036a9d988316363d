"""Sheets of frames: each frame as the model sees it, within bounds, its caption legible."""

from __future__ import annotations

import pytest
from PIL import Image

from internvl_gguf.images.contact_sheet import MAX_SHEET_SIDE, SheetFrame, draw_sheet
from internvl_gguf.tiling import Grid

RED, GREEN = (200, 0, 0), (0, 200, 0)


def sheet_of(count: int, grid: Grid, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A sheet of frames that are red on the left and green on the right."""
    frame = Image.new("RGB", size, RED)
    frame.paste(GREEN, (size[0] // 2, 0, *size))
    return draw_sheet([SheetFrame(frame, grid, f"Frame{number + 1}", "1:02:03.4") for number in range(count)])


@pytest.mark.parametrize("count", [1, 2, 4, 8, 32, 200, 1024])
def test_any_number_of_frames_is_a_sheet_of_bounded_size(count: int) -> None:
    sheet = sheet_of(count, Grid(1, 1, False), (32, 24))
    assert max(sheet.size) <= MAX_SHEET_SIDE
    assert sheet.getcolors(2**24) is not None
    red = sum(number for number, colour in sheet.getcolors(2**24) or [] if colour == RED)
    assert red >= count * 20 * 40


def test_a_frame_is_stretched_to_its_tiles() -> None:
    """As the model sees it: a wide frame of one tile is a square."""
    sheet = sheet_of(1, Grid(1, 1, False), (640, 160))
    columns = [x for x in range(sheet.width) if sheet.getpixel((x, 60)) in (RED, GREEN)]
    rows = [y for y in range(sheet.height) if sheet.getpixel((60, y)) in (RED, GREEN)]
    assert abs(len(columns) - len(rows)) <= 8


def test_tiles_have_lines_between_them_and_a_thumbnail_beside_them() -> None:
    plain, cut = sheet_of(2, Grid(2, 1, False)), sheet_of(2, Grid(2, 1, True))
    assert cut.width > plain.width
    line = [sheet.getpixel((16 + 320, 100)) for sheet in (sheet_of(1, Grid(2, 1, False)),)]
    assert line == [(255, 214, 0)]


def test_few_frames_stand_in_a_row_and_many_near_the_shape_of_a_screen() -> None:
    four, many = sheet_of(4, Grid(1, 1, False)), sheet_of(32, Grid(1, 1, False))
    assert four.width > 3 * four.height
    assert 1 < many.width / many.height < 2


def test_times_are_legible_below_small_frames() -> None:
    """Below 200 frames there was room for their numbers only."""
    sheet = sheet_of(200, Grid(1, 1, False))
    assert sheet.width * sheet.height < 2048**2
    assert _lines_of_text(sheet, range(16, 96), range(90, 140)) == 2


def _lines_of_text(sheet: Image.Image, columns: range, rows: range) -> int:
    """Groups of rows in which there is ink."""

    def is_ink(x: int, y: int) -> bool:
        pixel = sheet.getpixel((x, y))
        return isinstance(pixel, tuple) and min(pixel[:2]) > 90 > pixel[2]

    inked = [any(is_ink(x, y) for x in columns) for y in rows]
    return sum(now and not before for before, now in zip([False, *inked], inked, strict=False))
