"""Frames of a question as a real clip, so that what decodes clips stands between them and the model."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from internvl_gguf import Video

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

RATE = 10
SHOWN = 7  # frames of the file for which each picture stays: an odd number has one in the middle


def as_clip(pictures: Sequence[Image]) -> Video:
    """Return an MP4 in H.264 in which each picture stays for a while, asked for as many frames as there are pictures.

    The frames that the model card takes are then the middle ones of each picture. Sides are made even, as the codec
    wants them, by leaving the last row or column out.
    """
    width, height = (min(side) // 2 * 2 for side in zip(*(picture.size for picture in pictures), strict=True))
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base, stream.options = Fraction(1, RATE), {"crf": "20"}
        for picture in pictures:
            pixels = np.asarray(picture.convert("RGB"))[:height, :width]
            for _ in range(SHOWN):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return Video(out.getvalue(), frames=len(pictures))
