"""The report of `internvl inspect`: how pictures and clips are cut, and what they take of the context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from internvl_gguf.cli.inspect_clips import InspectedClip, clip_document, print_clip, print_frames
from internvl_gguf.cli.output import print_fact, print_lines, say
from internvl_gguf.cli.parameters import in_flags
from internvl_gguf.errors import ContextOverflowError
from internvl_gguf.images.fit_context import CutPlan, check_fits, count_tiles, cut_notices
from internvl_gguf.tiling import CARD_RANGE, Grid, TileRange
from internvl_gguf.types import PictureLayout
from internvl_gguf.utils.sizes import counted

LABEL_WIDTH: Final = 13
"""Columns of the labels of facts."""
_MARKERS: Final = 2  # <img> and </img>, which stand in every form
TileSource = Literal["option", "frames", "mmproj", "card"]
_LIMIT_WORDS: Final[Mapping[TileSource, str]] = {
    "option": "as asked for (--max-tiles)",
    "frames": "since pictures are frames of a video (--layout)",
    "mmproj": "as the mmproj says",
    "card": "as the model card says",
}
_MOST_SHOWN: Final = 20  # pictures that are described one by one


@dataclass(frozen=True)
class Encoder:
    """The sizes of a model that determine how it encodes tiles.

    Attributes:
        name: of the model.
        tile_size: side of a tile in pixels.
        tokens_per_tile: visual tokens of a tile.
        n_ctx_train: positions the text model was trained for; None where only the vision encoder is known.
        tiles: how many tiles a picture is cut into where nobody says otherwise.
        says_tiles: whether its file says so; else these are the model card's.
    """

    name: str
    tile_size: int
    tokens_per_tile: int
    n_ctx_train: int | None
    tiles: TileRange = CARD_RANGE
    says_tiles: bool = False


@dataclass(frozen=True)
class Inspection:
    """Pictures and frames of clips, cut as for one question.

    Attributes:
        names: the pictures as they were named, and the frames.
        sizes: (width, height) of each in pixels.
        encoder: whose tiles they are cut into.
        layout: how they stand in the prompt.
        is_limited: whether the most tiles of a picture were given.
        prompt_tokens: positions allowed for the system message and the question.
        asked: their cut by the limits given.
        plan: their cut as `ask` would do it, which is the same if they fit or may not be fitted.
        clips: the clips, by the place of the first frame of each.
    """

    names: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    encoder: Encoder
    layout: PictureLayout
    is_limited: bool
    prompt_tokens: int
    asked: CutPlan
    plan: CutPlan
    clips: Mapping[int, InspectedClip] = field(default_factory=dict)

    @property
    def items(self) -> list[tuple[int, InspectedClip | None]]:
        """What was named: the place of each picture, or of the first frame of each clip, and the clip."""
        found: list[tuple[int, InspectedClip | None]] = []
        place = 0
        while place < len(self.names):
            clip = self.clips.get(place)
            found.append((place, clip))
            place += len(clip.frames) if clip else 1
        return found

    @property
    def n_frames(self) -> int:
        """Number of the frames of all clips."""
        return sum(len(clip.frames) for clip in self.clips.values())

    @property
    def room(self) -> int:
        """Number of frames that fit the context beside the pictures and the shortest text, cut as these are."""
        plan, size = self.shown_plan, self.encoder.tokens_per_tile
        of_frames = [
            plan.grids[first + number].tiles for first, clip in self.items if clip for number in range(len(clip.frames))
        ]
        stills = (plan.tiles - sum(of_frames)) * size
        budget = plan.budget
        texts = budget.text_tokens - budget.frame_tokens * budget.frames
        free = budget.n_ctx - texts - stills - budget.answer_tokens
        return max(0, free // (max(of_frames) * size + budget.frame_tokens))

    @property
    def places(self) -> int:
        """Places of pictures in the text."""
        return places_of(len(self.names), self.layout)

    @property
    def is_fitted(self) -> bool:
        """Whether the pictures fit only because they are cut into fewer tiles than asked."""
        return self.plan.fits and not self.asked.fits

    @property
    def shown_plan(self) -> CutPlan:
        """The cut that `ask` would choose, or the one asked for if `ask` would refuse."""
        return self.plan if self.is_fitted else self.asked


def _limit_source(inspection: Inspection) -> TileSource:
    """Return where the most tiles of a picture come from."""
    if inspection.is_limited:
        return "option"
    if inspection.layout == "frames":
        return "frames"
    return "mmproj" if inspection.encoder.says_tiles else "card"


def places_of(pictures: int, layout: PictureLayout) -> int:
    """Return the number of places that pictures have in the text."""
    return 1 if layout == "combined" else pictures


def document(inspection: Inspection, saved: Sequence[Path]) -> dict[str, Any]:
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
    clips = {first: clip_document(clip, first) for first, clip in inspection.clips.items()}
    for (first, clip), target in zip(inspection.items, saved, strict=False):
        (pictures[first] if clip is None else clips[first])["saved"] = str(target)
    budget = inspection.asked.budget
    fitted = None
    if inspection.is_fitted:
        grids = [_grid_facts(grid, inspection.encoder) for grid in inspection.plan.grids]
        fitted = {"max_tiles": inspection.plan.cap, **_cut_facts(inspection, inspection.plan), "pictures": grids}
    return {
        **(pictures[0] if len(pictures) == 1 and not clips else {}),
        "encoder": inspection.encoder.name,
        "tile_size": inspection.encoder.tile_size,
        "layout": inspection.layout,
        **_limit_facts(inspection),
        **_cut_facts(inspection, inspection.asked),
        "n_ctx": budget.n_ctx,
        "text_tokens": budget.text_tokens,
        "fits": inspection.asked.fits,
        "fitted": fitted,
        "notices": [*_clip_notices(inspection), *(cut_notices(inspection.plan) if inspection.is_fitted else ())],
        "pictures": pictures,
        **({"clips": list(clips.values()), "frames_that_fit": inspection.room} if clips else {}),
    }


def _limit_facts(inspection: Inspection) -> dict[str, Any]:
    """Return the most tiles of a picture and where that comes from; nothing where there are only clips."""
    most = _most_tiles(inspection)
    return {} if most is None else {"max_tiles": most, "max_tiles_from": _limit_source(inspection)}


def _most_tiles(inspection: Inspection) -> int | None:
    """Return the most tiles of a picture; None where there are only clips."""
    first = next((place for place, clip in inspection.items if clip is None), None)
    return None if first is None else inspection.asked.pictures[first].limits.max_tiles


def _clip_notices(inspection: Inspection) -> list[str]:
    return [line for clip in inspection.clips.values() for line in clip.notices]


def _grid_facts(grid: Grid, encoder: Encoder) -> dict[str, Any]:
    return {
        "columns": grid.columns,
        "rows": grid.rows,
        "thumbnail": grid.thumbnail,
        "tiles": grid.tiles,
        "visual_tokens": grid.tiles * encoder.tokens_per_tile,
    }


def _cut_facts(inspection: Inspection, cut: CutPlan) -> dict[str, Any]:
    positions = _positions(inspection, cut)
    return {
        "tiles": cut.tiles,
        "visual_tokens": cut.visual_tokens,
        "prompt_tokens": positions,
        "context_share": positions / cut.budget.n_ctx,
    }


def _positions(inspection: Inspection, cut: CutPlan) -> int:
    """Return the positions that the pictures take, with the markers around them."""
    return cut.visual_tokens + _MARKERS * inspection.places


def print_inspection(inspection: Inspection) -> None:
    """Print how the pictures are cut; of more than a few, how many have how many tiles."""
    encoder, n_stills = inspection.encoder, len(inspection.names) - inspection.n_frames
    several, is_short = len(inspection.items) > 1, n_stills > _MOST_SHOWN
    for first, clip in inspection.items:
        if clip is not None:
            _print_clip(inspection, first, clip)
        elif not is_short:
            _print_picture(inspection, first)
    asked, plan = inspection.asked, inspection.plan
    if several:
        print_lines(f"{_what(n_stills, len(inspection.clips))} together")
        if is_short:
            _print_fact("cut into", _by_tiles(asked))
            if inspection.is_fitted:
                _print_fact("to fit", _by_tiles(plan))
        _print_fact("the model", f"sees {_seen(asked.tiles, encoder)}")
    if (most := _most_tiles(inspection)) is not None:
        _print_fact("at most", f"{count_tiles(most)} a picture, {_LIMIT_WORDS[_limit_source(inspection)]}")
    positions, n_ctx = _positions(inspection, asked), asked.budget.n_ctx
    beyond = "" if asked.fits else ": does not fit with the text" if positions <= n_ctx else ": does not fit"
    _print_fact("context", f"{positions:,} of {n_ctx:,} tokens, {positions / n_ctx:.0%}{beyond}")
    if inspection.is_fitted:
        are_many = len(inspection.names) > 1
        cut = f"max_tiles {plan.cap} for each" if are_many else _grid_text(plan.grids[0], encoder.tile_size)
        positions = _positions(inspection, plan)
        _print_fact("to fit", f"{cut}: {_seen(plan.tiles, encoder)}, {positions / n_ctx:.0%}")
    if inspection.clips:
        most = sum(clip.info.n_frames for clip in inspection.clips.values())
        told = f"{counted(inspection.room, 'frame')} in all (--frames)"
        _print_fact("would fit", told if inspection.room < most else "all frames that there are")
    labels = asked.budget.text_tokens - inspection.prompt_tokens - _MARKERS * inspection.places
    kept = f"{inspection.prompt_tokens:,} tokens kept for your question (--prompt-tokens), {labels:,} for labels"
    _print_fact("text", kept)


def _print_picture(inspection: Inspection, place: int) -> None:
    encoder, (width, height) = inspection.encoder, inspection.sizes[place]
    grid, planned, size = inspection.asked.grids[place], inspection.plan.grids[place], encoder.tile_size
    print_lines(f"{inspection.names[place]}: {width} x {height} pixels", hang=4)
    _print_fact("cut into", _grid_text(grid, size))
    _print_fact("stretched", f"to {grid.columns * size} x {grid.rows * size} pixels")
    _print_fact("the model", f"sees {_seen(grid.tiles, encoder)} ({encoder.name})")
    if inspection.is_fitted and len(inspection.names) > 1:
        _print_fact("to fit", f"{_grid_text(planned, size)}: {_seen(planned.tiles, encoder)}")


def _print_clip(inspection: Inspection, first: int, clip: InspectedClip) -> None:
    encoder, place = inspection.encoder, slice(first, first + len(clip.frames))
    grids, planned = inspection.asked.grids[place], inspection.plan.grids[place]
    print_clip(clip, LABEL_WIDTH)
    each = " each" if len(grids) > 1 else ""
    _print_fact("cut into", f"{_grid_text(grids[0], encoder.tile_size)}{each}")
    _print_fact("the model", f"sees {_seen(sum(grid.tiles for grid in grids), encoder)} ({encoder.name})")
    if inspection.is_fitted and len(inspection.items) > 1:
        seen = _seen(sum(grid.tiles for grid in planned), encoder)
        _print_fact("to fit", f"{_grid_text(planned[0], encoder.tile_size)}{each}: {seen}")
    print_frames(clip, grids)


def _what(stills: int, clips: int) -> str:
    """Return the words for so many pictures and clips: "2 pictures and 1 clip"."""
    named = ((stills, "picture"), (clips, "clip"))
    return " and ".join(counted(number, noun) for number, noun in named if number)


def _by_tiles(cut: CutPlan) -> str:
    """Return how many pictures have how many tiles: "3 of 1 tile, 20 of 13 tiles"."""
    numbers = Counter(grid.tiles for grid in cut.grids)
    return ", ".join(f"{numbers[tiles]} of {count_tiles(tiles)}" for tiles in sorted(numbers))


def _print_fact(label: str, fact: str) -> None:
    print_fact(f"  {label}", fact, LABEL_WIDTH)


def _grid_text(grid: Grid, tile_size: int) -> str:
    tiles = "tile" if grid.columns * grid.rows == 1 else "tiles"
    return f"{grid.columns} x {grid.rows} {tiles} of {tile_size} pixels{' + thumbnail' if grid.thumbnail else ''}"


def _seen(tiles: int, encoder: Encoder) -> str:
    return f"{count_tiles(tiles)}, {tiles * encoder.tokens_per_tile:,} visual tokens"


def say_what_does_not_fit(inspection: Inspection) -> None:
    """Say what `ask` would change so that the pictures fit, or that they do not, and what it would say of clips."""
    for line in _clip_notices(inspection):
        say(line)
    try:
        check_fits(inspection.plan)
    except ContextOverflowError as error:
        say(f"This does not fit. {in_flags(error.message)}")
        say(f"  {in_flags(error.hint)}")
    else:
        for line in cut_notices(inspection.plan):
            say(in_flags(line))
