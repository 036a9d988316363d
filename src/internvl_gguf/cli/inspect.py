"""`internvl inspect`: show what the model will see of pictures, without loading a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from internvl_gguf.boxes.save import save_drawing
from internvl_gguf.cli import options
from internvl_gguf.cli.asking_options import takes_picture_options
from internvl_gguf.cli.inspect_boxes import AnswerOption, print_boxes, read_answer, say_unread, show_boxes
from internvl_gguf.cli.output import print_fact, print_json, print_lines, say
from internvl_gguf.cli.parameters import in_flags
from internvl_gguf.cli.run import FAILED, option_errors
from internvl_gguf.config import DEFAULT_N_CTX, PictureOptions
from internvl_gguf.errors import ContextOverflowError, ModelFileError, PictureError
from internvl_gguf.images.fit_context import (
    ANSWER_ALLOWANCE,
    ContextBudget,
    CutPlan,
    PictureToCut,
    check_fits,
    count_tiles,
    cut_notices,
    plan_cut,
)
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.models.names import DEMO
from internvl_gguf.tiling import TILE_SIZE, Grid
from internvl_gguf.types import Picture, PictureLayout

if TYPE_CHECKING:
    from internvl_gguf.gguf.header import GGUFHeader
    from internvl_gguf.models.catalog import ModelSpec

TOKENS_PER_TILE = 256
"""Visual tokens of a 448-pixel tile in every published InternVL3."""
TRAINED_CONTEXT = 32768
"""Positions every published InternVL3 was trained for."""
PROMPT_ALLOWANCE = 128
"""Positions allowed for the text, whose tokens no one can count without a model: InternVL3's system message has 60
characters and its template about a dozen tokens, which leaves a question of 40 words or more."""
PLACE_ALLOWANCE = 10
"""Positions of a picture's place in the text, at most: "Image-123: <img></img>" and a line break."""
_MARKERS = 2  # <img> and </img>, which stand in every form

_LABEL_WIDTH = 13
_MOST_SHOWN = 20  # pictures that are described one by one


@dataclass(frozen=True)
class _Encoder:
    """The sizes of a model that determine how it encodes tiles.

    Attributes:
        name: of the model.
        tile_size: side of a tile in pixels.
        tokens_per_tile: visual tokens of a tile.
        n_ctx_train: positions the text model was trained for; None where only the vision encoder is known.
    """

    name: str
    tile_size: int
    tokens_per_tile: int
    n_ctx_train: int | None


@dataclass(frozen=True)
class _Inspection:
    """Pictures, cut as for one question.

    Attributes:
        names: the pictures as they were named.
        sizes: (width, height) of each in pixels.
        encoder: whose tiles they are cut into.
        layout: how they stand in the prompt.
        prompt_tokens: positions allowed for the system message and the question.
        asked: their cut by the limits given.
        plan: their cut as `ask` would do it, which is the same if they fit or may not be fitted.
    """

    names: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    encoder: _Encoder
    layout: PictureLayout
    prompt_tokens: int
    asked: CutPlan
    plan: CutPlan

    @property
    def places(self) -> int:
        """Places of pictures in the text."""
        return _places(len(self.names), self.layout)

    @property
    def is_fitted(self) -> bool:
        """Whether the pictures fit only because they are cut into fewer tiles than asked."""
        return self.plan.fits and not self.asked.fits


@takes_picture_options
def inspect(
    image: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="The pictures of one question, or folders of them; - is one on stdin.",
            show_default=False,
        ),
    ],
    model: options.ModelOption = None,
    mmproj: options.MmprojOption = None,
    *,
    pictures: PictureOptions,
    n_ctx: Annotated[
        int, typer.Option("--n-ctx", "--context", "--ctx-size", "-c", help="Tokens of the context.")
    ] = DEFAULT_N_CTX,
    prompt_tokens: Annotated[
        int, typer.Option(help="Tokens to keep for the system message and the question.")
    ] = PROMPT_ALLOWANCE,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            "--output",
            "-o",
            metavar="PNG",
            help="Draw the grid over the picture and save it, over an older file; of several as PNG-1, PNG-2, ...",
            show_default=False,
        ),
    ] = None,
    answer: AnswerOption = None,
    json_output: options.JSONOption = False,
) -> None:
    """Show how pictures are cut into tiles, and what they take of the context. Without a model, InternVL3's numbers."""
    with option_errors():
        if n_ctx < 1:
            raise typer.BadParameter("use a positive context length", param_hint="--n-ctx")
        if prompt_tokens < 0:
            raise typer.BadParameter("use 0 or more tokens", param_hint="--prompt-tokens")
    named = _with_folders(image)
    with option_errors():
        all_targets = _overlay_files(save, named) if save else []
    found, unreadable = _read(named)
    targets = [target for name, target in zip(named, all_targets, strict=False) if name in found]
    names = [name for name in named if name in found]
    sources, sizes = [found[name][0] for name in names], [found[name][1] for name in names]
    encoder = _encoder(model, mmproj)
    budget = ContextBudget(
        n_ctx=n_ctx,
        n_ctx_train=encoder.n_ctx_train,
        text_tokens=prompt_tokens + PLACE_ALLOWANCE * _places(len(names), pictures.layout),
        answer_tokens=ANSWER_ALLOWANCE,
        tile_size=encoder.tile_size,
        tokens_per_tile=encoder.tokens_per_tile,
    )
    to_cut = [PictureToCut(size, TileLimits.of(pictures)) for size in sizes]
    inspection = _Inspection(
        names,
        sizes,
        encoder,
        pictures.layout,
        prompt_tokens,
        plan_cut(to_cut, budget, fit=False),
        plan_cut(to_cut, budget, fit=pictures.fit_pictures),
    )
    replaced = {target for target in targets if target.exists()}
    reading = None if answer is None else read_answer(answer, sizes)
    for number, (source, target) in enumerate(zip(sources, targets, strict=False)):
        if reading is None:
            _save_overlay(source, target, _shown_plan(inspection).grids[number])
        else:
            save_drawing(target, source.source, reading.boxes, number)
    if json_output:
        boxes = {} if reading is None else {"boxes": [box.to_dict() for box in reading.boxes]}
        errors = [{"image": name, "error": error.message} for name, error in unreadable.items()]
        print_json({**_document(inspection, targets), **boxes, "unreadable": errors})
    else:
        _print(inspection)
        if reading is not None:
            print_boxes(reading, names, _LABEL_WIDTH)
            show_boxes(sources, reading.boxes)
    if reading is not None:
        say_unread(reading)
    _say_what_does_not_fit(inspection)
    for target in targets:
        if target in replaced:
            say(f"Replaced {target}, which was there already")
        elif not json_output:
            say(f"Saved {target}")
    for error in unreadable.values():
        say(f"Left out: {error.message} {error.hint}")
    if unreadable:
        raise typer.Exit(FAILED)


def _with_folders(images: Sequence[str]) -> list[str]:
    """Return the names with each folder replaced by the pictures in it, page2 before page10.

    Raises:
        PictureError: a folder without pictures.
    """
    from internvl_gguf.chat.typed_line import DISK, PathKind

    found: list[str] = []
    for image in images:
        if not Path(image).is_dir():
            found.append(image)
            continue
        inside = [path for path in DISK.matches(f"{escape(image)}/*") if DISK.kind(path) is PathKind.PICTURE]
        if not inside:
            raise PictureError(f"{image} has no pictures in it.", "Name a folder of pictures, or the files.")
        found += map(str, inside)
    return found


def _read(names: Sequence[str]) -> tuple[dict[str, tuple[Picture, tuple[int, int]]], dict[str, PictureError]]:
    """Return pictures with their sizes, and the errors of those that cannot be read, by their names.

    Raises:
        PictureError: none can be read.
    """
    from internvl_gguf.cli.stdin import is_stdin, take_pictures
    from internvl_gguf.images.load import load_image

    found: dict[str, tuple[Picture, tuple[int, int]]] = {}
    errors: dict[str, PictureError] = {}
    for name in dict.fromkeys(names):
        try:
            known = next((found[each] for each in found if is_stdin(each) and is_stdin(name)), None)
            (picture,) = [known[0]] if known else take_pictures([name])
            found[name] = picture, load_image(picture.source, name=picture.name).size
        except PictureError as error:
            errors[name] = error
    if not found:
        raise next(iter(errors.values()))
    return found, errors


def _places(pictures: int, layout: PictureLayout) -> int:
    return 1 if layout == "combined" else pictures


def _overlay_files(save: Path, images: Sequence[str]) -> list[Path]:
    """Return the files for the grids: the named file, or numbered ones beside it.

    Raises:
        typer.BadParameter: a file of another format, or one of the pictures.
    """
    if save.suffix.lower() != ".png":
        raise typer.BadParameter("the grid is saved as PNG: name it with .png", param_hint="--save")
    numbered = [save.with_stem(f"{save.stem}-{number}") for number in range(1, len(images) + 1)]
    targets = [save] if len(images) == 1 else numbered
    for target in targets:
        if any(target.exists() and Path(image).exists() and target.samefile(image) for image in images):
            raise typer.BadParameter(f"{target} is one of the pictures: it would be overwritten", param_hint="--save")
    return targets


def _encoder(model: str | None, mmproj: str | None) -> _Encoder:
    """Return the encoder's numbers from the model's headers; for a model of the catalogue, without a request."""
    if model is None and mmproj is None:
        return _Encoder("InternVL3", TILE_SIZE, TOKENS_PER_TILE, TRAINED_CONTEXT)
    from internvl_gguf.gguf.header import read_header

    if mmproj and Path(mmproj).is_file():
        return _encoder_of_header(model, read_header(mmproj), None)
    from internvl_gguf.cli.headers import model_headers
    from internvl_gguf.gguf.validation import validate_text_model
    from internvl_gguf.models.catalog import load_catalog

    name = model or DEMO
    spec = load_catalog().find(name.partition(":")[0])
    if spec and spec.vision:
        return _Encoder(spec.name, spec.vision.image_size, spec.vision.tokens_per_tile, _trained_context(spec))
    headers = model_headers(name, mmproj)
    if headers.mmproj is None:
        raise ModelFileError(f"{name} has no mmproj beside it, which cuts the pictures.", "Name one with --mmproj.")
    first, *parts = headers.text
    return _encoder_of_header(model, headers.mmproj, validate_text_model(first, parts).n_ctx_train)


def _trained_context(spec: ModelSpec) -> int | None:
    return spec.text.n_ctx_train if spec.text else None


def _encoder_of_header(model: str | None, header: GGUFHeader, n_ctx_train: int | None) -> _Encoder:
    from internvl_gguf.gguf.validation import validate_mmproj

    facts = validate_mmproj(header)
    return _Encoder(model or Path(header.label).name, facts.image_size, facts.tokens_per_tile, n_ctx_train)


def _shown_plan(inspection: _Inspection) -> CutPlan:
    """Return the cut that `ask` would choose, or the one asked for if `ask` would refuse."""
    return inspection.plan if inspection.is_fitted else inspection.asked


def _document(inspection: _Inspection, saved: Sequence[Path]) -> dict[str, Any]:
    """Return the document of `--json`; the facts of a single picture are at the top level too."""
    pictures = [
        {
            "image": name,
            "width": width,
            "height": height,
            **_grid_facts(grid, inspection.encoder),
        }
        for name, (width, height), grid in zip(inspection.names, inspection.sizes, inspection.asked.grids, strict=True)
    ]
    for picture, target in zip(pictures, saved, strict=False):
        picture["saved"] = str(target)
    budget = inspection.asked.budget
    fitted = None
    if inspection.is_fitted:
        grids = [_grid_facts(grid, inspection.encoder) for grid in inspection.plan.grids]
        fitted = {"max_tiles": inspection.plan.cap, **_cut_facts(inspection, inspection.plan), "pictures": grids}
    return {
        **(pictures[0] if len(pictures) == 1 else {}),
        "encoder": inspection.encoder.name,
        "tile_size": inspection.encoder.tile_size,
        "layout": inspection.layout,
        **_cut_facts(inspection, inspection.asked),
        "n_ctx": budget.n_ctx,
        "text_tokens": budget.text_tokens,
        "fits": inspection.asked.fits,
        "fitted": fitted,
        "notices": list(cut_notices(inspection.plan)) if inspection.is_fitted else [],
        "pictures": pictures,
    }


def _grid_facts(grid: Grid, encoder: _Encoder) -> dict[str, Any]:
    return {
        "columns": grid.columns,
        "rows": grid.rows,
        "thumbnail": grid.thumbnail,
        "tiles": grid.tiles,
        "visual_tokens": grid.tiles * encoder.tokens_per_tile,
    }


def _cut_facts(inspection: _Inspection, cut: CutPlan) -> dict[str, Any]:
    positions = _positions(inspection, cut)
    return {
        "tiles": cut.tiles,
        "visual_tokens": cut.visual_tokens,
        "prompt_tokens": positions,
        "context_share": positions / cut.budget.n_ctx,
    }


def _positions(inspection: _Inspection, cut: CutPlan) -> int:
    """Return the positions that the pictures take, with the markers around them."""
    return cut.visual_tokens + _MARKERS * inspection.places


def _print(inspection: _Inspection) -> None:
    encoder, several = inspection.encoder, len(inspection.names) > 1
    rows = zip(inspection.names, inspection.sizes, inspection.asked.grids, inspection.plan.grids, strict=True)
    is_short = len(inspection.names) > _MOST_SHOWN
    for name, (width, height), grid, planned in () if is_short else rows:
        print_lines(f"{name}: {width} x {height} pixels", hang=4)
        size = encoder.tile_size
        _print_fact("cut into", _grid_text(grid, size))
        _print_fact("stretched", f"to {grid.columns * size} x {grid.rows * size} pixels")
        _print_fact("the model", f"sees {_seen(grid.tiles, encoder)} ({encoder.name})")
        if inspection.is_fitted and several:
            _print_fact("to fit", f"{_grid_text(planned, size)}: {_seen(planned.tiles, encoder)}")
    asked, plan = inspection.asked, inspection.plan
    if several:
        print_lines(f"{len(inspection.names)} pictures together")
        if is_short:
            _print_fact("cut into", _by_tiles(asked))
            if inspection.is_fitted:
                _print_fact("to fit", _by_tiles(plan))
        _print_fact("the model", f"sees {_seen(asked.tiles, encoder)}")
    positions, n_ctx = _positions(inspection, asked), asked.budget.n_ctx
    beyond = "" if asked.fits else ": does not fit with the text" if positions <= n_ctx else ": does not fit"
    _print_fact("context", f"{positions:,} of {n_ctx:,} tokens, {positions / n_ctx:.0%}{beyond}")
    if inspection.is_fitted:
        cut = f"max_tiles {plan.cap} for each" if several else _grid_text(plan.grids[0], encoder.tile_size)
        positions = _positions(inspection, plan)
        _print_fact("to fit", f"{cut}: {_seen(plan.tiles, encoder)}, {positions / n_ctx:.0%}")
    labels = asked.budget.text_tokens - inspection.prompt_tokens - _MARKERS * inspection.places
    kept = f"{inspection.prompt_tokens:,} tokens kept for your question (--prompt-tokens), {labels:,} for labels"
    _print_fact("text", kept)


def _by_tiles(cut: CutPlan) -> str:
    """Return how many pictures have how many tiles: "3 of 1 tile, 20 of 13 tiles"."""
    numbers = Counter(grid.tiles for grid in cut.grids)
    return ", ".join(f"{numbers[tiles]} of {count_tiles(tiles)}" for tiles in sorted(numbers))


def _print_fact(label: str, fact: str) -> None:
    print_fact(f"  {label}", fact, _LABEL_WIDTH)


def _grid_text(grid: Grid, tile_size: int) -> str:
    tiles = "tile" if grid.columns * grid.rows == 1 else "tiles"
    return f"{grid.columns} x {grid.rows} {tiles} of {tile_size} pixels{' + thumbnail' if grid.thumbnail else ''}"


def _seen(tiles: int, encoder: _Encoder) -> str:
    return f"{count_tiles(tiles)}, {tiles * encoder.tokens_per_tile:,} visual tokens"


def _say_what_does_not_fit(inspection: _Inspection) -> None:
    try:
        check_fits(inspection.plan)
    except ContextOverflowError as error:
        say(f"This does not fit. {in_flags(error.message)}")
        say(f"  {in_flags(error.hint)}")
    else:
        for line in cut_notices(inspection.plan):
            say(in_flags(line))


def _save_overlay(picture: Picture, target: Path, grid: Grid) -> None:
    from internvl_gguf.images.grid_overlay import draw_grid
    from internvl_gguf.images.load import load_image
    from internvl_gguf.utils.atomic_write import atomic_file

    try:
        with atomic_file(target, shared=True) as temporary:
            draw_grid(load_image(picture.source, name=picture.name), grid).save(temporary, format="PNG")
    except OSError as error:
        raise PictureError(f"{target} cannot be written: {error.strerror}.", "Choose another place for it.") from error
