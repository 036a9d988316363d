"""`internvl inspect`: show what the model will see of pictures, without loading a model."""

from __future__ import annotations

from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internvl_gguf.boxes.save import save_drawing
from internvl_gguf.cli import options
from internvl_gguf.cli.asking_options import takes_picture_options
from internvl_gguf.cli.inspect_boxes import AnswerOption, print_boxes, read_answer, say_unread, show_boxes
from internvl_gguf.cli.inspect_report import (
    LABEL_WIDTH,
    Encoder,
    Inspection,
    document,
    places_of,
    print_inspection,
    say_what_does_not_fit,
)
from internvl_gguf.cli.output import print_json, say
from internvl_gguf.cli.run import FAILED, option_errors
from internvl_gguf.config import DEFAULT_N_CTX, PictureOptions
from internvl_gguf.errors import ModelFileError, PictureError
from internvl_gguf.images.fit_context import ANSWER_ALLOWANCE, ContextBudget, PictureToCut, plan_cut
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.models.names import DEMO
from internvl_gguf.tiling import TILE_SIZE, Grid
from internvl_gguf.types import Picture

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

_ImagesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE...",
        help="The pictures of one question, or folders of them; - is one on stdin.",
        show_default=False,
    ),
]
_ContextOption = Annotated[int, typer.Option("--n-ctx", "--context", "--ctx-size", "-c", help="Tokens of the context.")]
_PromptTokensOption = Annotated[int, typer.Option(help="Tokens to keep for the system message and the question.")]
_SaveOption = Annotated[
    Path | None,
    typer.Option(
        "--save",
        "--output",
        "-o",
        metavar="PNG",
        help="Draw the grid over the picture and save it, over an older file; of several as PNG-1, PNG-2, ...",
        show_default=False,
    ),
]


@takes_picture_options
def inspect(
    image: _ImagesArgument,
    model: options.ModelOption = None,
    mmproj: options.MmprojOption = None,
    *,
    pictures: PictureOptions,
    n_ctx: _ContextOption = DEFAULT_N_CTX,
    prompt_tokens: _PromptTokensOption = PROMPT_ALLOWANCE,
    save: _SaveOption = None,
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
    inspection = _inspection(names, sizes, _encoder(model, mmproj), pictures, n_ctx, prompt_tokens)
    replaced = {target for target in targets if target.exists()}
    reading = None if answer is None else read_answer(answer, sizes)
    for number, (source, target) in enumerate(zip(sources, targets, strict=False)):
        if reading is None:
            _save_overlay(source, target, inspection.shown_plan.grids[number])
        else:
            save_drawing(target, source.source, reading.boxes, number)
    if json_output:
        boxes = {} if reading is None else {"boxes": [box.to_dict() for box in reading.boxes]}
        errors = [{"image": name, "error": error.message} for name, error in unreadable.items()]
        print_json({**document(inspection, targets), **boxes, "unreadable": errors})
    else:
        print_inspection(inspection)
        if reading is not None:
            print_boxes(reading, names, LABEL_WIDTH)
            show_boxes(sources, reading.boxes)
    if reading is not None:
        say_unread(reading)
    say_what_does_not_fit(inspection)
    for target in targets:
        if target in replaced:
            say(f"Replaced {target}, which was there already")
        elif not json_output:
            say(f"Saved {target}")
    for error in unreadable.values():
        say(f"Left out: {error.message} {error.hint}")
    if unreadable:
        raise typer.Exit(FAILED)


def _inspection(
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    encoder: Encoder,
    pictures: PictureOptions,
    n_ctx: int,
    prompt_tokens: int,
) -> Inspection:
    """Cut pictures as for one question of so many tokens."""
    budget = ContextBudget(
        n_ctx=n_ctx,
        n_ctx_train=encoder.n_ctx_train,
        text_tokens=prompt_tokens + PLACE_ALLOWANCE * places_of(len(names), pictures.layout),
        answer_tokens=ANSWER_ALLOWANCE,
        tile_size=encoder.tile_size,
        tokens_per_tile=encoder.tokens_per_tile,
    )
    to_cut = [PictureToCut(size, TileLimits.of(pictures)) for size in sizes]
    asked, plan = (plan_cut(to_cut, budget, fit=fit) for fit in (False, pictures.fit_pictures))
    return Inspection(names, sizes, encoder, pictures.layout, prompt_tokens, asked, plan)


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


def _encoder(model: str | None, mmproj: str | None) -> Encoder:
    """Return the encoder's numbers from the model's headers; for a model of the catalogue, without a request."""
    if model is None and mmproj is None:
        return Encoder("InternVL3", TILE_SIZE, TOKENS_PER_TILE, TRAINED_CONTEXT)
    from internvl_gguf.gguf.header import read_header

    if mmproj and Path(mmproj).is_file():
        return _encoder_of_header(model, read_header(mmproj), None)
    from internvl_gguf.cli.headers import model_headers
    from internvl_gguf.gguf.validation import validate_text_model
    from internvl_gguf.models.catalog import load_catalog

    name = model or DEMO
    spec = load_catalog().find(name.partition(":")[0])
    if spec and spec.vision:
        return Encoder(spec.name, spec.vision.image_size, spec.vision.tokens_per_tile, _trained_context(spec))
    headers = model_headers(name, mmproj)
    if headers.mmproj is None:
        raise ModelFileError(f"{name} has no mmproj beside it, which cuts the pictures.", "Name one with --mmproj.")
    first, *parts = headers.text
    return _encoder_of_header(model, headers.mmproj, validate_text_model(first, parts).n_ctx_train)


def _trained_context(spec: ModelSpec) -> int | None:
    return spec.text.n_ctx_train if spec.text else None


def _encoder_of_header(model: str | None, header: GGUFHeader, n_ctx_train: int | None) -> Encoder:
    from internvl_gguf.gguf.validation import validate_mmproj

    facts = validate_mmproj(header)
    return Encoder(model or Path(header.label).name, facts.image_size, facts.tokens_per_tile, n_ctx_train)


def _save_overlay(picture: Picture, target: Path, grid: Grid) -> None:
    from internvl_gguf.images.grid_overlay import draw_grid
    from internvl_gguf.images.load import load_image
    from internvl_gguf.utils.atomic_write import atomic_file

    try:
        with atomic_file(target, shared=True) as temporary:
            draw_grid(load_image(picture.source, name=picture.name), grid).save(temporary, format="PNG")
    except OSError as error:
        raise PictureError(f"{target} cannot be written: {error.strerror}.", "Choose another place for it.") from error
