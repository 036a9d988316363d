"""Clips that were added to the next question: some of their frames, each an attachment."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from PIL import Image

from internvl_gguf.chat.attachments import AttachedClip, Attachment, pixel_digest
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.load import load_image
from internvl_gguf.session.clips import ClipPictures, clip_pictures
from internvl_gguf.tiling import Grid, cut_by_grid
from internvl_gguf.types import Frames, Picture, Video
from internvl_gguf.utils.clip_times import parse_time
from internvl_gguf.utils.safe_text import safe_name
from internvl_gguf.video.formats import HEAD_BYTES, is_clip_file, is_meant_as_clip

if TYPE_CHECKING:
    from internvl_gguf.types import MessagePicture

FrameCount = int | Literal["auto"] | None
"""Frames of a clip, "auto" for as many as fit, None for 8."""

_SMALL: Final = (640, 640)
_SENT: Final = (896, 896)
"""Largest sides of a frame for a server that is not ours; others of its models may see more than one tile of it."""
_QUALITY: Final = 92
_FIRST_FRAME: Final = re.compile(r"(?:^|\n)Frame1[ :]")
_WISH: Final = re.compile(r"(?:^|(?<=\s))--([a-z][a-z-]*)(?:=|\s+)(\S+)")
_WISHES: Final = ("frames", "fps", "start", "end", "max-tiles")


def clip_of(source: Any, frames: FrameCount) -> Video | None:
    """Return what was added as a clip; None if it is a picture, as an animation is.

    Args:
        source: a path, the bytes of a file, a `Picture` with either, or a `Video`, which is a clip whatever it is.
        frames: how many are wanted.
    """
    if isinstance(source, Video):
        return source
    name = None
    if isinstance(source, Picture):
        if source.label:  # a frame of an earlier question
            return None
        source, name = source.source, source.name
    if isinstance(source, bytes):
        return Video(source, frames=frames, name=name) if is_meant_as_clip(source[:HEAD_BYTES], "") else None
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = Path(source)
    return Video(path, frames=frames, name=name) if is_clip_file(path) else None


def video_of(path: Path, text: str) -> Video:
    """Return a clip with the wishes of a line such as "--frames 16 --start 1:20"; see `split_wishes`.

    Raises:
        InvalidRequestError: a wish that there is not, or a value that it cannot have.
    """
    wishes: dict[str, Any] = {}
    for name, value in _WISH.findall(text):
        if name not in _WISHES:
            raise InvalidRequestError(
                f"There is no option --{safe_name(name)}.", f"The options are --{', --'.join(_WISHES)}."
            )
        wishes[name.replace("-", "_")] = parse_time(f"--{name}", value) if name in ("start", "end") else value
    for name, kind in (("frames", int), ("max_tiles", int), ("fps", float)):
        if name in wishes and wishes[name] != "auto":
            try:
                wishes[name] = kind(wishes[name])
            except ValueError:
                shown = safe_name(str(wishes[name]))
                raise InvalidRequestError(f"--{name.replace('_', '-')} is {shown}.", "Give a number.") from None
    return Video(path, **wishes)


def split_wishes(text: str) -> tuple[str, str]:
    """Split what follows /video into its paths and its wishes."""
    return _WISH.sub("", text).strip(), " ".join(found[0] for found in _WISH.finditer(text))


def attach_clip(video: Video, side: int | None, most: int) -> list[Attachment]:
    """Read the frames of a clip that the user added.

    Args:
        video: the clip.
        side: pixels of the side of the model's tile. A frame of one tile is kept as this tile; the session cuts it to
            itself. None for a model that may be any: its frames are scaled down.
        most: most frames that `frames="auto"` may be.

    Raises:
        VideoError: it cannot be read.
    """
    read = clip_pictures(video, {}, most)
    times = tuple(frame.time for frame in read.frames)
    clip = AttachedClip(video, safe_name(Path(read.info.name).name), read.info, times, read.notices)
    return [_frame(clip, read, number, side) for number in range(len(read.frames))]


def _frame(clip: AttachedClip, read: ClipPictures, number: int, side: int | None) -> Attachment:
    image, picture = read.frames[number].image, replace(read.pictures[number], label="")
    size = image.size
    if picture.max_tiles == 1:
        picture = _smaller(picture, image, side)
    digest = pixel_digest(load_image(picture.source))
    small = image.copy()
    small.thumbnail(_SMALL)
    label = f"{clip.label} at {read.frames[number].time:.1f} s"
    return Attachment(picture, label, size, small, digest, clip, read.frames[number].time)


def _smaller(picture: Picture, image: Image.Image, side: int | None) -> Picture:
    """Return a frame of one tile with the pixels that a model sees of it; one that is no larger stays."""
    if side is not None:
        if image.width * image.height <= side**2:
            return picture
        (tile,) = cut_by_grid(image, Grid(1, 1, thumbnail=False), side).tiles
        return replace(picture, source=tile, source_size=image.size)
    if image.width <= _SENT[0] and image.height <= _SENT[1]:
        return picture
    scaled, file = image.copy(), io.BytesIO()
    scaled.thumbnail(_SENT)
    scaled.save(file, "JPEG", quality=_QUALITY)
    return replace(picture, source=file.getvalue(), source_size=image.size)


def as_images(attachments: Sequence[Attachment]) -> list[Picture | Frames]:
    """Return what was added as a question takes it: the frames of a clip together."""
    found: list[Picture | Frames] = []
    before: AttachedClip | None = None
    for each in attachments:
        if each.clip is None:
            found.append(each.picture)
        elif each.clip is before and isinstance(found[-1], Frames):
            found[-1] = Frames((*found[-1].pictures, each.picture), (*found[-1].times, each.time))
        else:
            found.append(Frames((each.picture,), (each.time,)))
        before = each.clip
    return found


def is_frame(shown: MessagePicture | Attachment) -> bool:
    """Return whether a picture is a frame of a clip, which the prompt's numbers of pictures leave out."""
    return bool(shown.clip or shown.picture.label) if isinstance(shown, Attachment) else bool(shown.label)


def clip_beginnings(shown: Sequence[MessagePicture | Attachment]) -> list[int]:
    """Return the indexes of the pictures that are the first frames of clips."""
    found = []
    before: AttachedClip | None = None
    for index, each in enumerate(shown):
        clip = each.clip if isinstance(each, Attachment) else None
        label = each.picture.label if isinstance(each, Attachment) else each.label
        if (clip is not None and clip is not before) or _FIRST_FRAME.search(label):
            found.append(index)
        before = clip
    return found


def preview_of(frames: Sequence[Attachment]) -> Image.Image:
    """Return a picture of a clip: four of its frames, from the first to the last, or the first of fewer."""
    if len(frames) < 4:
        return frames[0].small
    width, height = (max(1, side // 2) for side in frames[0].small.size)
    sheet = Image.new("RGB", (2 * width, 2 * height))
    for place in range(4):
        small = frames[round(place * (len(frames) - 1) / 3)].small.resize((width, height))
        sheet.paste(small, (place % 2 * width, place // 2 * height))
    return sheet


def groups_of(attachments: Sequence[Attachment]) -> list[list[Attachment]]:
    """Return attachments one by one, but the frames of a clip together."""
    keyed = groupby(enumerate(attachments), lambda at: id(at[1].clip) if at[1].clip else -1 - at[0])
    return [[each for _, each in group] for _, group in keyed]


def as_counted(
    first: Sequence[int], shown: Sequence[MessagePicture | Attachment]
) -> tuple[list[int], int, set[int], int]:
    """Return numbers as a question names them, and how many pictures and clips there are.

    Args:
        first: index, among those shown, of each named picture or of the first frame of each named clip.
        shown: all pictures, those of the question last.
    """
    clips = clip_beginnings(shown)
    pictures = [index for index, each in enumerate(shown) if not is_frame(each)]
    numbers = [sum(index <= at for index in (clips if is_frame(shown[at]) else pictures)) for at in first]
    are_clips = {place for place, at in enumerate(first) if is_frame(shown[at])}
    return numbers, len(pictures), are_clips, len(clips)
