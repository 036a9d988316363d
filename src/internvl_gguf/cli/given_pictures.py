"""The pictures and clips that a command line names. What is given as a picture is a clip if its first bytes say so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from internvl_gguf.cli.output import say
from internvl_gguf.cli.stdin import is_stdin, read_picture
from internvl_gguf.images.load import describe_source, take_source
from internvl_gguf.images.sources import is_data_uri, is_pipe, unreadable_error
from internvl_gguf.types import Picture, Video
from internvl_gguf.video.animated import is_animation
from internvl_gguf.video.clip_wishes import ClipWishes, is_clip_source
from internvl_gguf.video.formats import HEAD_BYTES, is_meant_as_clip
from internvl_gguf.video.limits import ClipLimits

_PICTURE_ON_STDIN, _CLIP_ON_STDIN = "the picture on stdin", "the clip on stdin"


class GivenPictures:
    """The pictures and clips that a command line names; one on stdin or in a pipe is read, once.

    Args:
        wishes: which frames of clips are shown.
    """

    def __init__(self, wishes: ClipWishes) -> None:
        self._wishes = wishes
        self._stdin: bytes | None = None
        self._taken: dict[str, Picture | Video] = {}

    def picture(self, name: str) -> Picture | Video:
        """Return what is given as a picture: a clip where its first bytes say so.

        A name given twice is one picture twice.

        Raises:
            PictureError: it cannot be read.
            InvalidRequestError: none comes on stdin.
        """
        if name not in self._taken:
            self._taken[name] = self._read_picture(name)
        return self._taken[name]

    def video(self, name: str) -> Video:
        """Return what is given as a clip, an animation perhaps. Raises as `picture`; the clip is not read yet."""
        if is_stdin(name):
            return self._wishes.video(self._on_stdin(), _CLIP_ON_STDIN)
        if is_data_uri(name) or not is_pipe(name):
            return self._wishes.video(name)
        try:
            with Path(name).open("rb") as pipe:
                return self._wishes.video(pipe.read(ClipLimits().held_bytes + 1), describe_source(name))
        except OSError as error:
            raise unreadable_error(error, name, describe_source(name)) from None

    def _on_stdin(self) -> bytes:
        if self._stdin is None:
            self._stdin = read_picture()
        return self._stdin

    def _read_picture(self, name: str) -> Picture | Video:
        if is_stdin(name):
            data = self._on_stdin()
            return self.video(name) if is_meant_as_clip(data[:HEAD_BYTES], "") else take_source(data, _PICTURE_ON_STDIN)
        if is_clip_source(name):
            return self._wishes.video(name)
        picture = take_source(name)
        if isinstance(picture.source, bytes) and is_meant_as_clip(picture.source[:HEAD_BYTES], ""):  # a pipe
            return self._wishes.video(picture.source, picture.name)
        return picture


def say_animations(pictures: Iterable[Picture | Video]) -> None:
    """Tell the user of each animation that was given as a picture, and is one: its first frame."""
    for picture in pictures:
        if isinstance(picture, Picture) and is_animation(picture.source):
            say(f"{describe_picture(picture)} is animated, and its first frame is shown; --video shows its frames.")


def first_animation(pictures: Iterable[Picture | Video]) -> str | None:
    """Return the name of the first animation that was given as a picture; None for none."""
    stills = (each for each in pictures if isinstance(each, Picture))
    return next((describe_picture(each) for each in stills if is_animation(each.source)), None)


def describe_picture(picture: Picture) -> str:
    """Return the name of a picture for a line to the user."""
    return picture.name or describe_source(picture.source)


def check_clip(video: Video) -> None:
    """Open a clip, and refuse it where its frames could not be shown: before a large model is downloaded for it.

    Raises:
        VideoError: it cannot be read, or has not the frames that are wanted.
    """
    from internvl_gguf.video import choose_frames, probe_clip

    choose_frames(video, probe_clip(video))
