"""The tiling against a direct rendering of the model card's recipe (tests/parity/recipe.py), byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.tiling import MAX_TILES_LIMIT, candidate_grids, choose_grid, tile_image
from tests.parity.pictures import draw
from tests.parity.recipe import grid_of_card, grids_of_card, tiles_of_card

SIDES = (1, 2, 3, 7, 13, 28, 29, 40, 57, 84, 101, 150, 233, 377)
LIMITS = ((1, 12), (1, 1), (1, 2), (1, 6), (1, 24), (1, 40), (2, 12), (4, 4), (5, 9), (12, 12))


def assert_same_tiles(
    image: Image.Image, tile_size: int, min_tiles: int = 1, max_tiles: int = 12, thumbnail: bool = True
) -> None:
    expected = tiles_of_card(image, tile_size, min_tiles, max_tiles, thumbnail)
    found = tile_image(image, max_tiles, min_tiles, tile_size, thumbnail)
    columns, rows = found.grid
    assert found.source_size == image.size
    assert found.has_thumbnail == (thumbnail and columns * rows > 1)
    assert len(found.tiles) == columns * rows + found.has_thumbnail
    assert all(tile.mode == "RGB" for tile in found.tiles)
    assert np.array_equal(np.stack([np.asarray(tile) for tile in found.tiles]), expected)


@pytest.mark.parametrize("height", SIDES)
@pytest.mark.parametrize("width", SIDES)
def test_tiles_of_every_size_are_the_cards_byte_for_byte(width: int, height: int) -> None:
    assert_same_tiles(draw(width * 400 + height, width, height), tile_size=28)


@pytest.mark.parametrize("thumbnail", [True, False])
@pytest.mark.parametrize(("min_tiles", "max_tiles"), LIMITS)
def test_tile_limits_and_thumbnail_are_the_cards(min_tiles: int, max_tiles: int, thumbnail: bool) -> None:
    for width, height in ((90, 90), (200, 60), (61, 333), (150, 100), (17, 16)):
        assert_same_tiles(draw(5, width, height), 28, min_tiles, max_tiles, thumbnail)


@pytest.mark.parametrize("tile_size", [14, 56, 112, 224, 336])
@pytest.mark.parametrize("size", [(333, 222), (97, 500), (640, 64)])
def test_other_tile_sizes_are_cut_alike(size: tuple[int, int], tile_size: int) -> None:
    assert_same_tiles(draw(6, *size), tile_size)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((300, 200), (3, 2)),
        ((1920, 1080), (4, 2)),
        ((1024, 768), (4, 3)),
        ((448, 448), (1, 1)),
        ((640, 640), (2, 2)),
        ((900, 100), (9, 1)),
        ((100, 3000), (1, 12)),
    ],
)
def test_full_size_tiles_are_the_cards(size: tuple[int, int], grid: tuple[int, int]) -> None:
    image = draw(7, *size)
    assert tile_image(image).grid == grid
    assert_same_tiles(image, 448)


@settings(max_examples=300, deadline=None)
@given(
    width=st.integers(1, 20000),
    height=st.integers(1, 20000),
    limits=st.tuples(st.integers(1, 40), st.integers(1, 40)).map(sorted),
    tile_size=st.sampled_from([28, 56, 112, 224, 448]),
)
@example(width=500, height=400, limits=[2, 12], tile_size=448)  # as far from 1x2 as from 2x1: the set's order decides
@example(width=1700, height=1200, limits=[1, 12], tile_size=448)  # between 4x3 and 3x2
@example(width=20000, height=1, limits=[1, 12], tile_size=448)
def test_grid_is_the_one_that_listing_all_of_them_finds(
    width: int, height: int, limits: tuple[int, int], tile_size: int
) -> None:
    min_tiles, max_tiles = limits
    grid = choose_grid(width, height, max_tiles=max_tiles, min_tiles=min_tiles, tile_size=tile_size)
    assert (grid.columns, grid.rows) == grid_of_card(width, height, tile_size, min_tiles, max_tiles)
    assert min_tiles <= grid.columns * grid.rows <= max_tiles
    assert grid.tiles == grid.columns * grid.rows + (grid.columns * grid.rows > 1)


def closest_of_card(width: int, height: int, max_tiles: int) -> tuple[int, int]:
    """`find_closest_aspect_ratio` of the card, line by line, over the card's grids of 448 pixels."""
    best_difference = float("inf")
    best = (1, 1)
    area = width * height
    for ratio in grids_of_card(1, max_tiles):
        difference = abs(width / height - ratio[0] / ratio[1])
        if difference < best_difference:
            best_difference = difference
            best = ratio
        elif difference == best_difference and area > 0.5 * 448 * 448 * ratio[0] * ratio[1]:
            best = ratio
    return best


@pytest.mark.parametrize("max_tiles", [6, 12, 18, 24])
@given(width=st.integers(1, 8000), height=st.integers(1, 8000))
@settings(max_examples=300, deadline=None)
@example(width=448, height=448)
@example(width=4480, height=448)
@example(width=350, height=100)  # midway between 3 x 1 and 4 x 1
@example(width=2000, height=2000)
def test_limits_that_benchmarks_use_are_cut_by_the_cards_own_steps(max_tiles: int, width: int, height: int) -> None:
    """Published scores were taken with 6, 12, 18 and 24 tiles."""
    expected = closest_of_card(width, height, max_tiles)
    found = choose_grid(width, height, max_tiles=max_tiles)
    assert (found.columns, found.rows) == expected
    assert found.thumbnail == (expected != (1, 1))
    assert found.tiles <= max_tiles + 1


@pytest.mark.parametrize(("max_tiles", "grid"), [(6, (2, 3)), (12, (2, 3)), (18, (2, 3)), (24, (4, 6))])
def test_a_scanned_page_gains_from_24_tiles_alone(max_tiles: int, grid: tuple[int, int]) -> None:
    """An A4 page of 200 dots an inch: 2 x 3 is nearest in shape, and 4 x 6 is the next that is as near."""
    found = choose_grid(1654, 2339, max_tiles=max_tiles)
    assert (found.columns, found.rows) == closest_of_card(1654, 2339, max_tiles) == grid


@pytest.mark.parametrize("tile_size", [28, 56, 448])
def test_a_grid_of_the_same_shape_needs_more_than_half_of_its_pixels(tile_size: int) -> None:
    """Squares around the sizes where 2x2 replaces 1x1 and 3x3 replaces 2x2."""
    for side in range(tile_size // 2, tile_size * 3):
        grid = choose_grid(side, side, tile_size=tile_size)
        assert grid.columns == grid.rows
        assert grid.columns == max(n for n in (1, 2, 3) if n == 1 or 2 * side * side > tile_size * tile_size * n * n)


@pytest.mark.parametrize(("min_tiles", "max_tiles"), [(a, b) for a in (1, 2, 5) for b in (5, 12, 40, MAX_TILES_LIMIT)])
def test_candidate_grids_stand_in_the_cards_order(min_tiles: int, max_tiles: int) -> None:
    assert list(candidate_grids(min_tiles, max_tiles)) == grids_of_card(min_tiles, max_tiles)


@pytest.mark.parametrize(("min_tiles", "max_tiles"), [(0, 12), (-1, 4), (5, 4), (1, 0), (1, MAX_TILES_LIMIT + 1)])
def test_limits_that_no_grid_satisfies_are_refused(min_tiles: int, max_tiles: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"at least {min_tiles} and at most {max_tiles} tiles") as caught:
        tile_image(draw(8, 30, 20), max_tiles, min_tiles)
    assert "1 <= min_tiles <= max_tiles" in caught.value.hint
