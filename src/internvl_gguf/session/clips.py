"""The clips of a question as pictures: some of their frames, each with its label in the prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from internvl_gguf.config import AskOptions, PictureOptions
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.session.asked import Asked
from internvl_gguf.session.prompt_template import IMAGE_PLACE
from internvl_gguf.tiling import Grid, cut_by_grid
from internvl_gguf.types import Frames, Picture, PictureLayout, ShownClip, ShownFrame, Video
from internvl_gguf.video import ClipFrame, ClipInfo, choose_frames, open_clip
from internvl_gguf.video.reader import ClipReader, damage_notices

OpenClip: TypeAlias = Callable[[Video], ClipReader]
"""Opens a clip as `open_clip` does, within limits of its own."""


def longest_label(options: AskOptions) -> str:
    """Return a label as long as those of frames become, to measure what a frame takes beside its visual tokens."""
    return _label(888, 8888.8 if options.get("frame_times", PictureOptions.frame_times) else None)


def with_frames(
    messages: Sequence[Asked],
    options: AskOptions,
    most: Callable[[], int],
    n_before: int = 0,
    opens: OpenClip = open_clip,
    tile_size: int | None = None,
) -> tuple[list[Asked], tuple[ShownClip, ...], tuple[str, ...]]:
    """Return messages whose clips are pictures, the frames that these are, and what users should know, one line each.

    Frames are labelled `Frame1: `, `Frame2: ` and so on, as the model card labels them; of several clips each is begun
    by a line `Video-1:`. With `frame_times` the label has the frame's time: `Frame1 (0.5 s): `.

    Args:
        messages: what is asked.
        options: options of the question.
        most: called for the number of frames that the context has room for, where a clip takes as many as fit.
        n_before: pictures of the conversation before these messages.
        opens: opens clips.
        tile_size: as in `clip_pictures`.

    Raises:
        VideoError: a clip that cannot be read.
        InvalidRequestError: clips in the layout `combined`.
    """
    clips = [image for each in messages for image in each.images if isinstance(image, Video | Frames)]
    if not clips:
        return list(messages), (), ()
    for each in messages:
        check_layout(each.message.layout)
    open_ended = sum(isinstance(clip, Video) and clip.frames == "auto" for clip in clips)
    share = max(1, most() // open_ended) if open_ended else None
    notices: list[str] = []
    shown_clips: list[ShownClip] = []
    number = 0
    found = []
    for each in messages:
        shown: list[list[Picture]] = []
        for image in each.images:
            if isinstance(image, Video | Frames):
                number += 1
                first = f"Video-{number}:\n" if len(clips) > 1 else ""
                if isinstance(image, Video):
                    read = clip_pictures(image, options, share, first, opens, tile_size)
                    notices += read.notices
                    shown_clips.append(read.shown(n_before))
                    shown.append(read.pictures)
                else:
                    shown.append(_labelled(image, options, first))
                    if image.name:
                        shown_clips.append(_shown_frames(image, n_before))
            else:
                shown.append([image])
            n_before += len(shown[-1])
        text = _with_places(each.message.text, shown)
        images = tuple(picture for pictures in shown for picture in pictures)
        found.append(Asked(replace(each.message, text=text), images))
    return found, tuple(shown_clips), tuple(notices)


def check_layout(layout: PictureLayout) -> None:
    """Refuse a layout that has no place for a clip.

    Raises:
        InvalidRequestError: it is `combined`.
    """
    if layout == "combined":
        raise InvalidRequestError(
            "A clip cannot be asked about in the layout combined.", "Leave layout out: frames have labels of their own."
        )


@dataclass(frozen=True)
class ClipPictures:
    """The frames of a clip as pictures.

    Attributes:
        info: facts of the clip.
        frames: the frames.
        pictures: the same, labelled.
        notices: what users should know of it, one line each.
    """

    info: ClipInfo
    frames: list[ClipFrame]
    pictures: list[Picture]
    notices: tuple[str, ...]

    def shown(self, first: int) -> ShownClip:
        """Return which frames these are; `first` is the number of the first picture in its conversation."""
        frames = (ShownFrame(number, each.index, each.time) for number, each in enumerate(self.frames, first))
        return ShownClip(self.info.name, tuple(frames))


def clip_pictures(
    video: Video,
    options: AskOptions,
    most: int | None = None,
    first: str = "",
    opens: OpenClip = open_clip,
    tile_size: int | None = None,
) -> ClipPictures:
    """Return the frames of a clip as labelled pictures.

    Args:
        video: the clip.
        options: options of the question: `max_tiles` where the clip says nothing, `frame_times`.
        most: most frames that `frames="auto"` may be; see `choose_frames`.
        first: text before the label of the first frame.
        opens: opens the clip.
        tile_size: side of a tile in pixels. A frame of one tile is stretched to it as soon as it is read: those of a
            large clip would take gigabytes together. None leaves all frames whole.

    Raises:
        VideoError: it cannot be read.
    """
    most_tiles = options.get("max_tiles", 1) if video.max_tiles is None else video.max_tiles
    frames: list[ClipFrame] = []
    pictures: list[Picture] = []
    with opens(video) as reader:
        choice = choose_frames(video, reader.info, most=most, limits=reader.limits)
        for each in reader.frames(choice.indices):
            picture = Picture(each.image, max_tiles=most_tiles, name=frame_name(reader.info.name, each.time))
            if tile_size and most_tiles == 1:
                cut = cut_by_grid(each.image, Grid(1, 1, thumbnail=False), tile_size)
                picture = replace(picture, source=cut.tiles[0], source_size=cut.source_size)
            frames.append(replace(each, image=picture.source))
            pictures.append(picture)
    labelled = _labelled(Frames(tuple(pictures), tuple(frame.time for frame in frames)), options, first)
    return ClipPictures(reader.info, frames, labelled, (*choice.notices, *damage_notices(reader, frames)))


def _shown_frames(frames: Frames, first: int) -> ShownClip:
    """Return which frames a list has; `first` is the number of the first picture in its conversation."""
    times = frames.times or (None,) * len(frames.pictures)
    return ShownClip(frames.name, tuple(ShownFrame(first + number, number, time) for number, time in enumerate(times)))


def _labelled(frames: Frames, options: AskOptions, first: str) -> list[Picture]:
    """Return frames with their labels; `first` is text before that of the first frame.

    The question's `min_tiles` gives way to the most tiles of a frame.
    """
    is_timed = options.get("frame_times", PictureOptions.frame_times)
    times = frames.times if is_timed and frames.times else (None,) * len(frames.pictures)
    return [
        replace(
            picture,
            label=(first if number == 1 else "") + _label(number, seconds),
            min_tiles=_least_tiles(picture, options),
        )
        for number, (picture, seconds) in enumerate(zip(frames.pictures, times, strict=True), 1)
    ]


def _least_tiles(picture: Picture, options: AskOptions) -> int | None:
    least, most = options.get("min_tiles"), picture.max_tiles
    return picture.min_tiles if least is None or most is None or picture.min_tiles is not None else min(least, most)


def frame_name(clip: str, seconds: float) -> str:
    """Return the name of a frame in messages, for example "clip.mp4 at 12.5 s"."""
    return f"{clip} at {seconds:.1f} s"


def _label(number: int, seconds: float | None) -> str:
    return f"Frame{number}: " if seconds is None else f"Frame{number} ({seconds:.1f} s): "


def _with_places(text: str, shown: Sequence[Sequence[Picture]]) -> str:
    """Return a text whose place of a clip is one place for each of its frames, labelled."""
    if IMAGE_PLACE not in text:
        return text
    before, *rest = text.split(IMAGE_PLACE)
    return before + "".join(f"{_places(pictures)}{after}" for pictures, after in zip(shown, rest, strict=True))


def _places(pictures: Sequence[Picture]) -> str:
    def lines() -> Iterator[str]:
        for picture in pictures:
            label = picture.label if isinstance(picture, Picture) else ""
            yield f"{label}{IMAGE_PLACE}"

    return "\n".join(lines())
