"""The overlay shows each tile where it is, on any picture, in a file of bounded size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from internvl_gguf.images.grid_overlay import MAX_OVERLAY_SIDE, draw_grid
from internvl_gguf.tiling import Grid, choose_grid, tile_image

SIZES = [(1, 1), (20, 20), (300, 200), (1024, 768), (4000, 300), (300, 4000), (20000, 1), (1, 20000), (3000, 2400)]


def yellow(overlay: Image.Image) -> np.ndarray:
    """Where the grid's own colour is: 1 per pixel."""
    red, green, blue = np.asarray(overlay).astype(int).transpose(2, 0, 1)
    marks: np.ndarray = (red > 240) & (abs(green - 214) < 12) & (blue < 30)
    return marks


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255)])
def test_any_picture_gets_a_readable_overlay_of_bounded_size(
    size: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    grid = choose_grid(*size)
    overlay = draw_grid(Image.new("RGB", size, colour), grid)
    assert overlay.mode == "RGB"
    assert max(overlay.size) <= MAX_OVERLAY_SIDE
    # The grid is seen although it is as light as a white picture and its edge as dark as a black one.
    marks = yellow(overlay)
    assert marks.sum() > 200 * grid.tiles
    assert (np.asarray(overlay)[marks] != colour).any(axis=1).all()


def test_lines_stand_where_the_tiles_meet() -> None:
    overlay = draw_grid(Image.new("RGB", (1200, 600), (0, 0, 255)), Grid(4, 2, thumbnail=False))
    marks = yellow(overlay)
    inset = (overlay.width - 1200) // 2
    across, down = marks[inset + 150], marks[:, inset + 150]
    for column in range(5):
        assert across[inset + 300 * column - 2 : inset + 300 * column + 3].any()
    assert not across[inset + 40 : inset + 290].any()
    for row in range(3):
        assert down[inset + 300 * row - 2 : inset + 300 * row + 3].any()
    assert not down[inset + 60 : inset + 290].any()


def test_the_picture_keeps_its_shape_and_pixels() -> None:
    source = Image.frombytes("RGB", (900, 600), np.random.default_rng(2).bytes(900 * 600 * 3))
    overlay = np.asarray(draw_grid(source, Grid(3, 2, thumbnail=False)))
    inset = (overlay.shape[1] - 900) // 2
    middle = overlay[inset + 200 : inset + 290, inset + 200 : inset + 290]
    assert (middle == np.asarray(source)[200:290, 200:290]).all()


@pytest.mark.parametrize(("size", "below"), [((1600, 400), True), ((1000, 800), False), ((400, 1600), False)])
def test_the_thumbnail_stands_beside_the_picture(size: tuple[int, int], below: bool) -> None:
    source = Image.new("RGB", size, (0, 0, 255))
    alone = draw_grid(source, Grid(2, 2, thumbnail=False))
    both = draw_grid(source, Grid(2, 2, thumbnail=True))
    blue = (np.asarray(both) == (0, 0, 255)).all(axis=2).sum()
    assert blue > (np.asarray(alone) == (0, 0, 255)).all(axis=2).sum() + 20_000
    assert (both.height > alone.height) == below
    assert (both.width > alone.width) != below


def test_a_grid_and_its_tiles_give_the_same_overlay_and_change_nothing() -> None:
    source = Image.frombytes("RGB", (300, 200), np.random.default_rng(1).bytes(180_000))
    before = source.tobytes()
    assert draw_grid(source, tile_image(source)).tobytes() == draw_grid(source, choose_grid(300, 200)).tobytes()
    assert source.tobytes() == before


def test_the_most_tiles_there_can_be() -> None:
    for size in ((2100, 2100), (64, 64), (64000, 10)):
        grid = choose_grid(*size, max_tiles=64)
        assert max(draw_grid(Image.new("RGB", size), grid).size) <= MAX_OVERLAY_SIDE
