"""Decode the frames of GIF, WebP and APNG animations with Pillow. Imported only by the child process.

A frame of an animation is drawn over those before it, so all are decoded once for their times, and again up to the last
one that is wanted. A frame is what `load_image` makes of Pillow's: transparency on white, as in any picture.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

from PIL import ImageFile

from internvl_gguf.errors import PictureError
from internvl_gguf.images import raster_formats
from internvl_gguf.images.load import load_image
from internvl_gguf.images.sources import MAX_FILE_BYTES
from internvl_gguf.video.decoder import ClipRefusedError, RawFrame, check_frame_size

_AGAIN: Final = "Export or download it again."
_NAME: Final = "clip"
_SHORTEST_SECONDS: Final = 0.1  # of a frame that is said to be shown for no time: browsers take as much


def open_animation(file: io.RawIOBase, size: int, max_pixels: int) -> AnimationDecoder:
    """Open an animation.

    Args:
        file: its bytes.
        size: their number.
        max_pixels: most pixels of a frame.

    Raises:
        ClipRefusedError: it is damaged or too large.
    """
    if size > MAX_FILE_BYTES:
        raise ClipRefusedError(
            f"it is an animation of more than {MAX_FILE_BYTES >> 20} MiB", "Convert it to MP4 first, or cut it."
        )
    return AnimationDecoder(io.BufferedReader(file).read(), max_pixels)


class AnimationDecoder:
    """An open animation; see `open_animation`."""

    found_damage = False  # of an animation the frames before damage are all there is

    def __init__(self, data: bytes, max_pixels: int) -> None:
        self._data = data
        self._max_pixels = max_pixels
        self._kind = raster_formats.identify(data, _NAME)
        self._times: list[float] = []
        self._duration = 0.0
        self._announced = 0
        for picture, _ in self._walk():
            self._size = picture.size
            self._announced = getattr(picture, "n_frames", 1) - self._skipped(picture)
            self._times.append(self._duration)
            self._duration += picture.info.get("duration", 0) / 1000 or _SHORTEST_SECONDS
        if not self._times:
            raise ClipRefusedError("none of its frames can be decoded", _AGAIN)

    def facts(self) -> dict[str, Any]:
        """Return the fields of `ClipInfo` but for its name and container; see `Decoder`."""
        count = len(self._times)
        return {
            "codec": self._kind,
            "size": self._size,
            "n_frames": count,
            "fps": count / self._duration,
            "duration": self._duration,
            "is_counted": True,
            "n_missing": max(0, self._announced - count),
        }

    def frames(self, wanted: Sequence[int]) -> Iterator[RawFrame]:
        """Yield a frame for each number; see `Decoder`."""
        walk = self._walk()
        at, pixels, size = -1, b"", self._size
        for number in wanted:
            while at < number:
                picture, at = next(walk)
            if at == number:
                upright = load_image(picture, max_pixels=self._max_pixels, name=_NAME)
                pixels, size = upright.tobytes(), upright.size
            yield RawFrame(number, number, self._times[number], size, "RGB", "", pixels)

    def _walk(self) -> Iterator[tuple[ImageFile.ImageFile, int]]:
        """Yield Pillow's picture at each frame with the frame's number, up to the end or to damage.

        Raises:
            ClipRefusedError: the first frame cannot be decoded.
        """
        try:
            picture = raster_formats.decode(self._data, self._max_pixels, _NAME)
        except PictureError as error:
            raise _refusal(error) from error
        skipped = self._skipped(picture)
        with raster_formats.quiet_pillow:
            for number in range(skipped, getattr(picture, "n_frames", 1)):
                try:
                    picture.seek(number)
                    check_frame_size(*picture.size, self._max_pixels)
                    picture.load()
                except ClipRefusedError:
                    raise
                except Exception:  # decoders raise all kinds of errors for damaged data
                    return
                yield picture, number - skipped

    @staticmethod
    def _skipped(picture: ImageFile.ImageFile) -> int:
        """Return 1 where the first picture is not of the animation but for programs that show none, else 0."""
        return int(bool(picture.info.get("default_image")))


def _refusal(error: PictureError) -> ClipRefusedError:
    return ClipRefusedError(error.message.removeprefix(f"Cannot use {_NAME}: ").rstrip("."), error.hint)
