"""Draw a clip to ask the demo model about: a red circle, and after two seconds a blue square beside it.

    python -m internvl_gguf.demo.clip clip.mp4

The file's ending says what is written: an MP4 (`internvl-gguf[video]`) or, without the extra, a GIF.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw

from internvl_gguf.errors import InternVLError, InvalidRequestError

SIZE: Final = (320, 240)
SECONDS: Final = 4
_APPEARS: Final = 2  # seconds after which the square is there
_RATES: Final = {".mp4": 25, ".gif": 5}  # frames a second
_RED, _BLUE = (220, 38, 38), (40, 80, 220)
_LIGHT, _DIMMING = 252, 5  # the background's first level, and its loss a second
_CIRCLE, _SQUARE, _RADIUS = (70, 70), (250, 170), 40


def draw_clip(path: Path) -> None:
    """Write the clip, over an older file.

    Args:
        path: ends in .mp4 or .gif.

    Raises:
        InvalidRequestError: it ends otherwise.
        InternVLError: PyAV is missing, or the file cannot be written.
    """
    writers: dict[str, Callable[[Path, Sequence[Image.Image]], None]] = {".mp4": _write_mp4, ".gif": _write_gif}
    kind = path.suffix.lower()
    if kind not in writers:
        raise InvalidRequestError(f"{path} is neither an MP4 nor a GIF.", "Name it with .mp4 or .gif.")
    try:
        writers[kind](path, [frame(number / _RATES[kind]) for number in range(SECONDS * _RATES[kind])])
    except OSError as error:
        raise InternVLError(f"{path} cannot be written: {error.strerror}.", "Choose another place for it.") from error


def frame(seconds: float) -> Image.Image:
    """Return the frame at a time.

    The background grows darker by what no one sees: a GIF keeps frames that are equal as one.
    """
    level = int(_LIGHT - _DIMMING * seconds)
    image = Image.new("RGB", SIZE, (level, level, level))
    draw = ImageDraw.Draw(image)
    draw.ellipse(_box(_CIRCLE), fill=_RED)
    if seconds >= _APPEARS:
        draw.rectangle(_box(_SQUARE), fill=_BLUE)
    return image


def _box(centre: tuple[int, int]) -> tuple[int, int, int, int]:
    x, y = centre
    return x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS


def _write_mp4(path: Path, frames: Sequence[Image.Image]) -> None:
    """Write frames by FFmpeg's own encoder of MPEG-4, which has no licence but FFmpeg's."""
    try:
        import av
        import numpy as np
    except ImportError:
        raise InternVLError(
            "An MP4 is written by PyAV, which is not installed.",
            "Install it: pip install 'internvl-gguf[video]'; or name a .gif.",
        ) from None
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=_RATES[".mp4"])
        stream.width, stream.height, stream.pix_fmt = (*SIZE, "yuv420p")
        stream.bit_rate = 1_000_000
        for each in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(each), format="rgb24")))
        out.mux(stream.encode(None))


def _write_gif(path: Path, frames: Sequence[Image.Image]) -> None:
    first, *rest = frames
    first.save(path, save_all=True, append_images=rest, duration=1000 // _RATES[".gif"], optimize=False)


def main() -> int:
    """Write the clip that the command line names."""
    if len(sys.argv) != 2:
        print("Usage: python -m internvl_gguf.demo.clip FILE.mp4|FILE.gif", file=sys.stderr)
        return 2
    try:
        draw_clip(Path(sys.argv[1]))
    except InternVLError as error:
        print(f"Error: {error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    print(f"Drew {sys.argv[1]}: a red circle, and after {_APPEARS} seconds a blue square.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
