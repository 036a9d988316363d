"""Kinds of option values: the same values from Python, from files and typed, whatever is wrong with them in words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from internvl_gguf.config import EngineConfig, GPULayers, PictureOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.tiling import TileRange
from internvl_gguf.utils.kinds import Choice, Kind, LayersOrAuto, Number, Switch, Texts, Whole, kind_of
from internvl_gguf.utils.options import Declared, options_of

DECLARED = [
    declared
    for configuration in (SamplingParams, PictureOptions, EngineConfig)
    for declared in options_of(configuration).values()
]


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.name)
def test_what_is_shown_can_be_typed(declared: Declared) -> None:
    for choice in declared.kind.choices:
        assert declared.kind.show(declared.kind.read(choice)) == choice
    if not declared.can_be_open:
        assert declared.kind.read(declared.kind.show(declared.default)) == declared.default
        assert declared.checked(declared.default) == declared.default


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.name)
def test_an_option_says_what_it_does_and_what_to_give_instead(declared: Declared) -> None:
    assert declared.help.endswith(".")
    assert (declared.option.allows is None) == (declared.option.hint == "")
    assert not declared.option.hint or declared.option.hint.endswith(".")


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (int, Whole),
        (int | None, Whole),
        (float, Number),
        (bool, Switch),
        (Literal["a", "b"] | None, Choice),
        (tuple[str, ...], Texts),
        (list[str] | None, Texts),
        (GPULayers, LayersOrAuto),
        (GPULayers | None, LayersOrAuto),
        (Annotated[int, "described"], Whole),
        (Path, Kind),
    ],
)
def test_a_kind_follows_from_the_type(annotation: Any, kind: type[Kind]) -> None:
    assert type(kind_of(annotation)) is kind


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Whole(), "1,024", 1024),
        (Whole(), "-5", -5),
        (Number(), "1e-3", 0.001),
        (Switch(), "Yes", True),
        (Switch(), "0", False),
        (Choice(Literal["frames"]), "FRAMES", "frames"),
        (Texts(), "'a b' c", ("a b", "c")),
        (Texts(), "it's", ("it's",)),
        (LayersOrAuto(), "all", -1),
        (LayersOrAuto(), "20", 20),
    ],
)
def test_typed_text(kind: Kind, text: str, value: Any) -> None:
    assert kind.read(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Whole(), "1_000"),
        (Whole(), "٥١٢"),
        (Whole(), ","),
        (Whole(), "1.5"),
        (Number(), "hot"),
        (Switch(), "maybe"),
        (Choice(Literal["frames"]), "rows"),
        (LayersOrAuto(), "some"),
    ],
)
def test_typed_text_of_another_kind(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        kind.read(text)


def test_a_video_frame_is_one_tile_and_the_fewest_tiles_may_be_more_than_the_usual_most() -> None:
    """`--min-tiles 13` alone was refused: at least 13 and at most 12."""
    frames = PictureOptions(layout="frames", min_tiles=3)
    assert frames.tiles() == TileRange(1, 1)
    assert PictureOptions(layout="frames", max_tiles=4).tiles() == TileRange(1, 4)
    assert PictureOptions(min_tiles=13).tiles() == TileRange(13, 13)
    with pytest.raises(InvalidRequestError, match="at least 5 and at most 4"):
        PictureOptions(min_tiles=5, max_tiles=4)


@pytest.mark.parametrize(
    ("options", "own", "tiles"),
    [
        ({}, TileRange(1, 6), TileRange(1, 6)),
        ({}, TileRange(2, 24), TileRange(2, 24)),
        ({"max_tiles": 24}, TileRange(1, 6), TileRange(1, 24)),
        ({"max_tiles": 1}, TileRange(2, 12), TileRange(1, 1)),
        ({"min_tiles": 8}, TileRange(1, 6), TileRange(8, 8)),
        ({"min_tiles": 1}, TileRange(2, 6), TileRange(1, 6)),
        ({"layout": "frames"}, TileRange(2, 24), TileRange(1, 1)),
    ],
)
def test_what_is_given_goes_before_what_the_model_says(
    options: dict[str, Any], own: TileRange, tiles: TileRange
) -> None:
    assert PictureOptions(**options).tiles(own) == tiles
    found = TileLimits.of(PictureOptions(**options), own)
    assert (found.min_tiles, found.max_tiles) == (tiles.least, tiles.most)


def test_memory_of_gpus_is_checked_where_it_is_given() -> None:
    """It was read when the quant was chosen, after the configuration had been taken."""
    assert EngineConfig(vram="24GiB,12GiB").vram == "24GiB,12GiB"
    with pytest.raises(InvalidRequestError, match="is not a size"):
        EngineConfig(vram="much")
