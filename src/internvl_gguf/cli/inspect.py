"""`internvl inspect`: what the model will see of a picture, without loading a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from internvl_gguf.cli import options
from internvl_gguf.cli.output import option_errors, print_json, say
from internvl_gguf.config import DEFAULT_N_CTX
from internvl_gguf.model_names import DEMO
from internvl_gguf.tiling import MAX_TILES, TILE_SIZE, choose_grid, validate_tile_limits

TOKENS_PER_TILE = 256
"""Visual tokens of a 448-pixel tile in every published InternVL3."""


@dataclass(frozen=True)
class _Encoder:
    """What a model's vision encoder makes of a tile."""

    name: str
    tile_size: int
    tokens_per_tile: int


def inspect(
    image: Annotated[Path, typer.Argument(help="The picture.", show_default=False)],
    model: options.ModelOption = None,
    mmproj: options.MmprojOption = None,
    max_tiles: options.MaxTilesOption = None,
    min_tiles: options.MinTilesOption = 1,
    thumbnail: options.ThumbnailOption = True,
    n_ctx: Annotated[int, typer.Option("--n-ctx", "-c", help="Positions of the context.")] = DEFAULT_N_CTX,
    save: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw the grid over the picture and save it.", show_default=False)
    ] = None,
    json_output: options.JSONOption = False,
) -> None:
    """Show how a picture is cut into tiles, and what it takes of the context. Without a model, InternVL3's numbers."""
    most = MAX_TILES if max_tiles is None else max_tiles
    with option_errors():
        validate_tile_limits(min_tiles, most)
        if n_ctx < 1:
            raise typer.BadParameter("use a positive context length", param_hint="--n-ctx")
        if save and save.suffix.lower() != ".png":
            raise typer.BadParameter("the grid is saved as PNG: name it with .png", param_hint="--save")
        if save and save.exists() and image.exists() and save.samefile(image):
            raise typer.BadParameter("this would overwrite the picture itself", param_hint="--save")
    encoder = _encoder(model, mmproj)

    from internvl_gguf.images import load_image

    picture = load_image(image)
    grid = choose_grid(
        *picture.size, max_tiles=most, min_tiles=min_tiles, tile_size=encoder.tile_size, thumbnail=thumbnail
    )
    tokens = grid.tiles * encoder.tokens_per_tile
    facts = {
        "image": str(image),
        "width": picture.width,
        "height": picture.height,
        "encoder": encoder.name,
        "tile_size": encoder.tile_size,
        "columns": grid.columns,
        "rows": grid.rows,
        "thumbnail": grid.thumbnail,
        "tiles": grid.tiles,
        "visual_tokens": tokens,
        "prompt_tokens": tokens + 2,
        "n_ctx": n_ctx,
        "context_share": (tokens + 2) / n_ctx,
    }
    if save:
        _save_overlay(image, save, encoder, most, min_tiles, thumbnail)
        facts["saved"] = str(save)
    if json_output:
        print_json(facts)
        return
    thumbnail_text = " + thumbnail" if grid.thumbnail else ""
    typer.echo(f"{image}: {picture.width} x {picture.height} pixels")
    typer.echo(f"  cut into   {grid.columns} x {grid.rows} tiles of {encoder.tile_size} pixels{thumbnail_text}")
    typer.echo(f"  stretched  to {grid.columns * encoder.tile_size} x {grid.rows * encoder.tile_size} pixels")
    number = "1 tile" if grid.tiles == 1 else f"{grid.tiles} tiles"
    typer.echo(f"  the model  sees {number}, {tokens:,} visual tokens ({encoder.name})")
    typer.echo(f"  context    {tokens + 2:,} of {n_ctx:,} positions, {(tokens + 2) / n_ctx:.0%}")
    if tokens + 2 >= n_ctx:
        say("This does not fit the context: use fewer tiles (--max-tiles) or a larger context (--n-ctx).")
    if save:
        say(f"Saved {save}")


def _encoder(model: str | None, mmproj: str | None) -> _Encoder:
    """Its numbers by the mmproj's header; those of a model the catalogue knows, without a request."""
    if model is None and mmproj is None:
        return _Encoder("InternVL3", TILE_SIZE, TOKENS_PER_TILE)
    from internvl_gguf.gguf_header import read_header
    from internvl_gguf.validation import validate_mmproj

    if mmproj and Path(mmproj).is_file():
        header = read_header(mmproj)
    else:
        from internvl_gguf.catalog import load_catalog
        from internvl_gguf.cli.headers import model_headers

        name = model or DEMO
        spec = load_catalog().find(name.partition(":")[0])
        if spec and spec.vision:
            return _Encoder(spec.name, spec.vision.tile, spec.vision.tokens_per_tile)
        header = model_headers(name, mmproj).mmproj
    facts = validate_mmproj(header)
    return _Encoder(model or Path(header.label).name, facts.image_size, facts.tokens_per_tile)


def _save_overlay(
    image: Path, target: Path, encoder: _Encoder, max_tiles: int, min_tiles: int, thumbnail: bool
) -> None:
    from internvl_gguf.errors import PictureError
    from internvl_gguf.grid_overlay import draw_grid
    from internvl_gguf.images import load_image
    from internvl_gguf.tiling import tile_image

    picture = load_image(image)
    tiled = tile_image(picture, max_tiles, min_tiles, encoder.tile_size, thumbnail)
    try:
        draw_grid(picture, tiled).save(target, format="PNG")
    except OSError as error:
        raise PictureError(f"{target} cannot be written: {error.strerror}.", "Choose another place for it.") from error
