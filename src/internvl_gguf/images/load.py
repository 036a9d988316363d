"""Load any kind of picture as an upright RGB Pillow picture.

What the model card does with a picture is `Image.open(file).convert("RGB")`: for opaque 8-bit pictures the result here
is equal to that byte for byte, and colour profiles are ignored as there. Four things differ, because the card's way
shows the model something else than the user sees: the EXIF orientation is applied, transparency is laid on white (the
card drops alpha and uncovers the pixels under it), 16-bit grey is scaled (the card clips it to white), and only raster
formats of an allow-list are decoded, within limits.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard

from PIL import Image

from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.images import raster_formats
from internvl_gguf.images.sources import (
    check_bytes,
    check_file_size,
    data_uri_bytes,
    file_bytes,
    is_data_uri,
    is_pipe,
    local_path,
    open_picture,
    stream_bytes,
    unreadable_error,
)
from internvl_gguf.types import Frames, MessagePicture, Picture, Video
from internvl_gguf.utils import arguments
from internvl_gguf.utils.safe_text import error_line, safe_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | npt.NDArray[Any]"
)
"""Sources of `load_image`: a path, a `data:` or `file://` URI, a file's bytes, an open file, a Pillow picture, a numpy
array."""

DEFAULT_MAX_PIXELS = 128_000_000
"""Most pixels a picture may have. Phone photos have 50 to 108 megapixels, an A4 page at 1000 dpi has 97. Pillow takes 4
bytes a pixel, as much again to turn or convert it, and more while it decodes a progressive JPEG: 127 megapixels were
measured at 1.0 to 1.2 GiB. The model sees at most 12 tiles of 448 x 448, which is 2.4 megapixels."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ARRAY_HINT = "Give height x width, or height x width x 3 (RGB) or 4 (RGBA): uint8, uint16, bool, or float from 0 to 1."
_LONGEST_NAME = 200  # characters of a path in a message


def load_image(source: ImageSource, *, max_pixels: int = DEFAULT_MAX_PIXELS, name: str | None = None) -> Image.Image:
    """Load a picture as RGB, upright and fully decoded; of an animation, the first frame.

    Args:
        source: a path, a `data:` or `file://` URI, the bytes of a picture file, a file opened in binary (read from its
            beginning), a Pillow picture (its current frame), or a numpy array (height x width, or height x width x 1, 3
            or 4). Nothing is fetched from a network.
        max_pixels: most pixels (width x height) accepted; a file is judged by its header, before decoding.
        name: name of the picture in errors; None for `describe_source`.

    Returns:
        A new RGB picture without metadata; the source is not changed and shares nothing with it.

    Raises:
        PictureError: no such file, damaged, not a picture, too large, or an array that cannot be read as a picture.
        InvalidRequestError: max_pixels below 1.
    """
    if max_pixels < 1:
        raise InvalidRequestError(f"max_pixels is {max_pixels}.", "Use a positive number of pixels.")
    name = describe_source(source) if name is None else name
    if isinstance(source, Image.Image):
        return _finish(_load_pillow(source, max_pixels, name), name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(source, max_pixels, name)
    if isinstance(source, str) and is_data_uri(source):
        return _from_bytes(data_uri_bytes(source, name), max_pixels, name)
    if isinstance(source, (str, os.PathLike)):
        return _from_bytes(file_bytes(local_path(source, name), name), max_pixels, name)
    if _is_array(source):
        return _from_array(source, max_pixels, name)
    if _is_stream(source):
        return _from_bytes(stream_bytes(source, name), max_pixels, name)
    raise PictureError(f"Cannot use {name}: it is not a kind of picture source.", _source_hint(source))


def picture_list(images: Any) -> list[Any]:
    """Return the pictures of a question as a list, from any iterable of them or from a single one; None is none.

    Raises:
        InvalidRequestError: neither a picture nor a list, or one array of several pictures.
    """
    if images is None:
        return []
    if hasattr(images, "__array__") and getattr(images, "ndim", 3) == 4:
        raise InvalidRequestError("images is one array of several pictures.", "Write images=list(array).")
    is_one = isinstance(
        images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, Picture, Video, Frames, MessagePicture)
    )
    if is_one or hasattr(images, "__array__") or hasattr(images, "read"):
        return [images]  # an array would be taken for the list of its rows
    hint = "Give a picture or a list of pictures, or leave it out."
    if isinstance(images, (set, frozenset)):  # which picture is the first?
        raise arguments.wrong("images", images, hint)
    return list(arguments.items("images", images, hint))


def picture_bytes(source: ImageSource) -> bytes:
    """Return the bytes of a picture's file unchanged; a Pillow picture or an array is written as PNG.

    Args:
        source: see `load_image`; a file is not decoded.

    Raises:
        PictureError: there is no such file or it is too large, or another source cannot be read as a picture.
    """
    name = describe_source(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, str) and is_data_uri(source):
        return data_uri_bytes(source, name)
    if isinstance(source, (str, os.PathLike)):
        return file_bytes(local_path(source, name), name)
    if _is_stream(source):
        return stream_bytes(source, name)
    file = io.BytesIO()
    load_image(source).save(file, "PNG", compress_level=1)
    return file.getvalue()


def take_source(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Picture:
    """Return a picture that can be read as often as needed; nothing is decoded.

    Args:
        source: a path, a `data:` or `file://` URI, or the bytes of a file. A pipe gives its bytes once, so they are
            read and kept here.
        name: name of the picture in messages; None for `describe_source`.

    Raises:
        PictureError: no such file, a folder, not readable, empty, or too large.
    """
    name = describe_source(source) if name is None else name
    if isinstance(source, bytes):
        check_bytes(source, name)
        return Picture(source, name=name)
    if not is_data_uri(source):
        path = local_path(source, name)
        if is_pipe(path):
            return take_source(file_bytes(path, name), name)
        check_source(source)
    return Picture(source)


def check_source(source: ImageSource) -> None:
    """Raise the errors of `load_image` for a path without a readable file; nothing is decoded.

    Raises:
        PictureError: no such file, a folder, not readable, empty, or too large; or a pipe, which cannot be checked
            without consuming it.
    """
    if not isinstance(source, (str, os.PathLike)) or is_data_uri(source):
        return
    name = describe_source(source)
    path = local_path(source, name)
    if is_pipe(path):
        raise PictureError(
            f"Cannot use {name}: it is a pipe, which can be read only once.", "Write it to a file first."
        )
    try:
        with open_picture(path, name) as file:
            check_bytes(file.read(1), name)
    except (OSError, ValueError) as error:
        raise unreadable_error(error, path, name) from None


def describe_source(source: object) -> str:
    """Return a short one-line name of a picture source for messages: the path, or the kind of object."""
    if isinstance(source, str) and is_data_uri(source):
        return "the picture in the data URI"
    if isinstance(source, (str, os.PathLike)):
        return safe_name(os.fsdecode(source), _LONGEST_NAME) or "the picture with an empty path"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the picture given as bytes"
    if isinstance(source, Image.Image):
        return f"the Pillow picture ({source.mode}, {source.width} x {source.height})"
    if isinstance(source, io.IOBase):
        named = getattr(source, "name", None)
        return describe_source(named) if isinstance(named, str) else "the picture in the open file"
    if _is_array(source):
        return f"the array ({' x '.join(map(str, source.shape)) or 'a single number'}, {source.dtype})"
    return f"the object of type {type(source).__name__}"


def _from_bytes(source: bytes | bytearray | memoryview, max_pixels: int, name: str) -> Image.Image:
    check_file_size(source.nbytes if isinstance(source, memoryview) else len(source), name)
    data = bytes(source)
    check_bytes(data, name)
    return _finish(raster_formats.decode(data, max_pixels, name), name)


def _load_pillow(picture: Image.Image, max_pixels: int, name: str) -> Image.Image:
    """Load the pixels of the caller's Pillow picture."""
    raster_formats.check_size(picture.size, max_pixels, name)
    with raster_formats.quiet_pillow:
        try:
            picture.load()
        except Exception as error:  # the decoder of any format the caller opened
            reason = f"its data is damaged, cut short or closed ({error_line(error)})"
            raise PictureError(f"Cannot use {name}: {reason}.", "Open it again and call load() on it.") from error
    return picture


def _finish(picture: Image.Image, name: str) -> Image.Image:
    """Return the picture in RGB, upright, without metadata (a remaining orientation would be applied twice later)."""
    with raster_formats.quiet_pillow:
        try:
            # TIFF pictures are turned by Pillow when they are loaded.
            turn = None if hasattr(picture, "tag_v2") else _TURNS.get(raster_formats.orientation(picture.info))
            if turn is None:
                result = _to_rgb(picture, name)
            elif picture.mode == "RGB" and not picture.has_transparency_data:
                result = picture.transpose(turn)  # a phone's photo: one copy instead of two
            else:
                result = _to_rgb(picture, name).transpose(turn)
        except PictureError:
            raise
        except MemoryError:
            raise PictureError(f"Cannot use {name}: not enough memory to convert it.", "Scale it down first.") from None
        except Exception as error:  # Pillow raises all kinds of errors for inconsistent pictures
            reason = f"it cannot be turned into RGB ({error_line(error)})"
            raise PictureError(f"Cannot use {name}: {reason}.", "Convert it to RGB first.") from error
    result.info = {}
    return result


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """Convert to a new RGB picture: deep grey scaled to 8 bits, transparency on white, the rest as Pillow converts."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _deep_grey_to_rgb(picture, name)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    if picture.mode == "La":
        picture = picture.convert("LA")
    key = picture.info.get("transparency")
    if picture.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        # The key of a 16-bit RGB PNG has 16 bits; Pillow decodes the pixels to their upper 8.
        picture = picture.copy()
        picture.info["transparency"] = tuple(part >> 8 for part in key)
    layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    result = Image.new("RGB", layer.size, (255, 255, 255))
    result.paste(layer, mask=layer.getchannel("A"))
    return result


def _deep_grey_to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """Convert 16-bit grey (modes I;16, I) by rounding value / 257, float grey (F, from 0 to 1) by value x 255."""
    import numpy as np

    levels = np.asarray(picture)
    if picture.mode == "F":
        grey = _float_to_bytes(levels, name)
    else:
        low, high = int(levels.min()), int(levels.max())
        if low < 0 or high > 0xFFFF:
            raise PictureError(
                f"Cannot use {name}: its grey values reach from {low} to {high}, beyond 16 bits.",
                "Save it with 8 or 16 bits a pixel.",
            )
        # Mode I may also hold 8-bit levels; only a PGM of Pillow's is known to be scaled to 16 bits.
        eight_bit = picture.mode == "I" and high <= 0xFF and picture.format != "PPM"
        grey = levels.astype(np.uint8) if eight_bit else _sixteen_to_bytes(levels)
    result = Image.fromarray(grey).convert("RGB")
    key = picture.info.get("transparency")
    if isinstance(key, int):
        result.paste((255, 255, 255), mask=Image.fromarray((levels == key).astype(np.uint8) * np.uint8(255)))
    return result


def _sixteen_to_bytes(levels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale 0..65535 to 0..255, rounded to nearest."""
    wide = levels.astype("uint32")
    wide += 128
    wide //= 257
    return wide.astype("uint8")


def _float_to_bytes(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Scale 0.0..1.0 to 0..255, rounded to nearest; other values are refused rather than guessed."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):  # also false for NaN, which min and max pass on
        raise PictureError(
            f"Cannot use {name}: floating-point pixels must lie from 0 to 1, these reach from {low:g} to {high:g}.",
            "Scale them to 0..1, or to 0..255 as uint8; undo a normalisation by mean and deviation first.",
        )
    scaled = values.astype("float32")
    scaled *= 255.0
    scaled += 0.5
    return scaled.astype("uint8")


def _is_stream(source: object) -> TypeGuard[BinaryIO]:
    """Return whether source is an open file, or something that is read as one."""
    return hasattr(source, "read")


def _is_array(source: object) -> TypeGuard[npt.NDArray[Any]]:
    """Return whether source is a numpy array, without importing numpy: a caller that has one has imported it."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(source, numpy.ndarray)


def _from_array(array: npt.NDArray[Any], max_pixels: int, name: str) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = _ARRAY_HINT
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "The channels come first: use array.transpose(1, 2, 0)."
        elif array.ndim == 4:
            hint = "It looks like a batch: give its pictures one by one."
        raise PictureError(f"Cannot use {name}: this is not the shape of one picture.", hint)
    raster_formats.check_size((array.shape[1], array.shape[0]), max_pixels, name)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        pixels = array.astype("uint8") * 255
    elif kind == "f":
        pixels = _float_to_bytes(array, name)
    elif kind == "u" and size == 2:
        pixels = _sixteen_to_bytes(array)
    elif kind == "u" and size == 1:
        pixels = array
    else:
        raise PictureError(f"Cannot use {name}: pixels of type {array.dtype} are not read.", _ARRAY_HINT)
    if array.ndim == 3 and channels == 1:
        pixels = pixels[:, :, 0]
    return _finish(Image.fromarray(pixels), name)


def _source_hint(source: object) -> str:
    if type(source).__module__.partition(".")[0] == "torch":
        return "Give tensor.permute(1, 2, 0).cpu().numpy(), height x width x 3."
    if isinstance(source, (list, tuple)):
        return "Give one picture."
    if hasattr(source, "__array__"):
        return "Give numpy.asarray of it, height x width x 3."
    return "Give a path, a data URI, the bytes of a file, a Pillow picture or a numpy array."
