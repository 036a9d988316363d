"""`internvl inspect`: show what the model will see of pictures, without loading a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internvl_gguf.boxes.save import check_folder, is_folder, save_drawing
from internvl_gguf.cli import options
from internvl_gguf.cli.asking_options import takes_picture_options
from internvl_gguf.cli.clip_options import VideoOption, refuse_wishes_without_clip, takes_clip_options
from internvl_gguf.cli.inspect_boxes import AnswerOption, print_boxes, read_answer, say_unread, show_boxes
from internvl_gguf.cli.inspect_clips import (
    CLIP_ALLOWANCE,
    InspectedClip,
    OpenedClip,
    draw_clip,
    frame_allowance,
    open_clip_of,
    read_frames,
)
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
from internvl_gguf.cli.stdin import is_stdin
from internvl_gguf.config import DEFAULT_N_CTX, PictureOptions
from internvl_gguf.errors import ModelFileError, PictureError
from internvl_gguf.images.fit_context import ANSWER_ALLOWANCE, ContextBudget, PictureToCut, plan_cut
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.models.names import DEMO
from internvl_gguf.tiling import TILE_SIZE, TileRange
from internvl_gguf.types import Picture, Video
from internvl_gguf.video.clip_wishes import ClipWishes

if TYPE_CHECKING:
    from PIL.Image import Image

    from internvl_gguf.gguf.header import GGUFHeader
    from internvl_gguf.models.model_spec import ModelSpec

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
    list[str] | None,
    typer.Argument(
        metavar="IMAGE",
        help="The pictures and clips of one question, or folders of them; - is one on stdin.",
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
        help="Draw the grid over the picture, or the frames of a clip side by side, and save that, over an older file; "
        "of several as PNG-1, PNG-2, ...",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class _Still:
    """A picture that was read.

    Attributes:
        picture: the picture.
        size: (width, height) in pixels.
    """

    picture: Picture
    size: tuple[int, int]


@takes_clip_options
@takes_picture_options
def inspect(
    image: _ImagesArgument = None,
    video: VideoOption = None,
    model: options.ModelOption = None,
    mmproj: options.MmprojOption = None,
    *,
    wishes: ClipWishes,
    pictures: PictureOptions,
    n_ctx: _ContextOption = DEFAULT_N_CTX,
    prompt_tokens: _PromptTokensOption = PROMPT_ALLOWANCE,
    save: _SaveOption = None,
    answer: AnswerOption = None,
    json_output: options.JSONOption = False,
) -> None:
    """Show how pictures and the frames of clips are cut into tiles, and what they take of the context.

    Without a model, with InternVL3's numbers.
    """
    image, video = image or [], video or []
    if not image and not video:
        raise typer.BadParameter("name a picture or a clip", param_hint="IMAGE")
    with option_errors():
        if n_ctx < 1:
            raise typer.BadParameter("use a positive context length", param_hint="--n-ctx")
        if prompt_tokens < 0:
            raise typer.BadParameter("use 0 or more tokens", param_hint="--prompt-tokens")
    if answer is not None and is_stdin(answer) and any(map(is_stdin, [*image, *video])):
        raise typer.BadParameter("the answer and a picture cannot both come on stdin", param_hint="--boxes")
    named = _with_folders(image)
    with option_errors():
        all_targets = _drawn_files(save, [*named, *video]) if save else []
    with ExitStack() as opened:
        found, unreadable = _read(named, video, wishes, opened)
        targets = [target for item, target in zip(found, all_targets, strict=False) if item]
        items = [item for item in found if item]
        _check_clips(items, wishes, pictures, has_answer=answer is not None)
        names = [name for item, name in zip(found, [*named, *video], strict=True) if item]
        inspection = _inspection(names, items, _encoder(model, mmproj), pictures, n_ctx, prompt_tokens)
    replaced = {target for target in targets if target.exists()}
    reading = None if answer is None else read_answer(answer, inspection.sizes, names)
    for number, (item, target) in enumerate(zip(items, targets, strict=False)):
        if isinstance(item, _Still) and reading is not None:
            save_drawing(target, item.picture.source, reading.boxes, number)
        else:
            _save(target, _drawing(item, number, inspection))
    if json_output:
        boxes = {} if reading is None else {"boxes": [box.to_dict() for box in reading.boxes]}
        errors = [{"image": name, "error": error.message} for name, error in unreadable.items()]
        print_json({**document(inspection, targets), **boxes, "unreadable": errors})
    else:
        print_inspection(inspection)
        if reading is not None:
            print_boxes(reading, names, LABEL_WIDTH)
            show_boxes([item.picture for item in items if isinstance(item, _Still)], reading.boxes)
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


def _check_clips(
    items: Sequence[_Still | OpenedClip], wishes: ClipWishes, pictures: PictureOptions, *, has_answer: bool
) -> None:
    """Refuse options of clips where there is none, and what clips do not go with.

    Raises:
        typer.BadParameter: options that do not go together.
        typer.Exit: the layout has no place for a clip; the user was told.
    """
    from internvl_gguf.cli.given_pictures import first_animation, say_animations

    stills = [item.picture for item in items if isinstance(item, _Still)]
    if len(stills) == len(items):
        refuse_wishes_without_clip(wishes, first_animation(stills))
    say_animations(stills)
    if len(stills) == len(items):
        return
    from internvl_gguf.session.clips import check_layout

    with option_errors():
        check_layout(pictures.layout)
    if has_answer:
        raise typer.BadParameter("boxes are shown on pictures, not on clips", param_hint="--boxes")


def _inspection(
    names: Sequence[str],
    items: Sequence[_Still | OpenedClip],
    encoder: Encoder,
    pictures: PictureOptions,
    n_ctx: int,
    prompt_tokens: int,
) -> Inspection:
    """Cut pictures and the frames of clips as for one question of so many tokens.

    Raises:
        VideoError: a clip that is damaged.
    """
    n_stills = sum(isinstance(item, _Still) for item in items)
    n_clips = len(items) - n_stills
    n_open = sum(isinstance(item, OpenedClip) and item.video.frames == "auto" for item in items)
    place = frame_allowance(pictures)
    room = n_ctx - prompt_tokens - ANSWER_ALLOWANCE
    most = (room // (encoder.tokens_per_tile + place) - n_stills) // max(1, n_open)
    shown: list[str] = []
    to_cut: list[PictureToCut] = []
    clips: dict[int, InspectedClip] = {}
    for name, item in zip(names, items, strict=True):
        if isinstance(item, _Still):
            shown.append(name)
            to_cut.append(PictureToCut(item.size, TileLimits.of(pictures, encoder.tiles)))
            continue
        clip = clips[len(shown)] = read_frames(item, pictures, max(1, most))
        shown += clip.names
        to_cut += [PictureToCut(size, clip.limits) for size in clip.sizes]
    labels = PLACE_ALLOWANCE * places_of(n_stills, pictures.layout) + place * (len(shown) - n_stills)
    budget = ContextBudget(
        n_ctx=n_ctx,
        n_ctx_train=encoder.n_ctx_train,
        text_tokens=prompt_tokens + labels + CLIP_ALLOWANCE * (n_clips if n_clips > 1 else 0),
        answer_tokens=ANSWER_ALLOWANCE,
        tile_size=encoder.tile_size,
        tokens_per_tile=encoder.tokens_per_tile,
        frames=len(shown) - n_stills,
        frame_tokens=place,
    )
    asked, plan = (plan_cut(to_cut, budget, fit=fit) for fit in (False, pictures.fit_pictures))
    sizes = [each.size for each in to_cut]
    is_limited = pictures.max_tiles is not None
    return Inspection(shown, sizes, encoder, pictures.layout, is_limited, prompt_tokens, asked, plan, clips)


def _with_folders(images: Sequence[str]) -> list[str]:
    """Return the names with each folder replaced by the pictures and clips in it, page2 before page10.

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


def _read(
    names: Sequence[str], videos: Sequence[str], wishes: ClipWishes, opened: ExitStack
) -> tuple[list[_Still | OpenedClip | None], dict[str, PictureError]]:
    """Return pictures and open clips, None for those that cannot be read, and the errors of these by their names.

    Raises:
        PictureError: none can be read.
    """
    from internvl_gguf.cli.given_pictures import GivenPictures
    from internvl_gguf.images.load import load_image

    given = GivenPictures(wishes)
    found: list[_Still | OpenedClip | None] = []
    known: dict[tuple[str, bool], _Still | OpenedClip] = {}
    errors: dict[str, PictureError] = {}
    for name, is_video in [*((name, False) for name in names), *((name, True) for name in videos)]:
        try:
            if (name, is_video) not in known:
                taken = given.video(name) if is_video else given.picture(name)
                known[name, is_video] = (
                    open_clip_of(taken, opened)
                    if isinstance(taken, Video)
                    else _Still(taken, load_image(taken.source, name=taken.name).size)
                )
            found.append(known[name, is_video])
        except PictureError as error:
            errors[name] = error
            found.append(None)
    if not known:
        raise next(iter(errors.values()))
    return found, errors


def _drawn_files(save: Path, images: Sequence[str]) -> list[Path]:
    """Return the files for the drawings: the named file, or numbered ones beside it.

    Raises:
        typer.BadParameter: a file of another format, or one of the pictures.
        PictureError: there is no such folder, or a folder of that name.
    """
    if save.is_dir():
        raise is_folder(save)
    if save.suffix.lower() != ".png":
        raise typer.BadParameter("the drawing is saved as PNG: name it with .png", param_hint="--save")
    check_folder(save, "the drawing")
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
    return Encoder(
        model or Path(header.label).name,
        facts.image_size,
        facts.tokens_per_tile,
        n_ctx_train,
        TileRange.of(facts),
        says_tiles=facts.max_tiles is not None,
    )


def _drawing(item: _Still | OpenedClip, number: int, inspection: Inspection) -> Image:
    """Return the drawing of a picture or a clip, as the model sees it.

    Args:
        item: the picture or clip.
        number: its place among these.
        inspection: how they are cut.
    """
    from internvl_gguf.images.grid_overlay import draw_grid
    from internvl_gguf.images.load import load_image

    first, clip = inspection.items[number]
    grids = inspection.shown_plan.grids
    if clip is not None:
        return draw_clip(clip, grids[first : first + len(clip.frames)])
    assert isinstance(item, _Still)
    return draw_grid(load_image(item.picture.source, name=item.picture.name), grids[first])


def _save(target: Path, drawing: Image) -> None:
    from internvl_gguf.utils.atomic_write import atomic_file

    try:
        with atomic_file(target, shared=True) as temporary:
            drawing.save(temporary, format="PNG")
    except OSError as error:
        raise PictureError(f"{target} cannot be written: {error.strerror}.", "Choose another place for it.") from error
