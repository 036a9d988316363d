"""Check that the weights of a model are finite numbers.

llama.cpp loads NaN and infinity without an error and then answers token 0 for ever. Checked are the elements of float
tensors, and the scales of quantised ones: a quantised block with finite scales is finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.header import DAMAGED_HINT, GGUFHeader, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import BinaryIO

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

_CHUNK_BYTES: Final = 1024**2  # stays in the processor's cache between reading and checking

_T: Final = GGMLQuantizationType

# Where a block keeps the more significant byte of its half-precision scales (ggml-common.h). In it, five ones after the
# sign are NaN or infinity.
_SCALE_BYTES: Final[dict[GGMLQuantizationType, tuple[int, ...]]] = {
    **dict.fromkeys((_T.Q4_0, _T.Q5_0, _T.Q8_0, _T.Q1_0, _T.IQ4_NL, _T.IQ4_XS), (1,)),
    **dict.fromkeys((_T.IQ1_S, _T.IQ2_XXS, _T.IQ2_XS, _T.IQ2_S, _T.IQ3_XXS, _T.IQ3_S), (1,)),
    **dict.fromkeys((_T.Q4_1, _T.Q5_1, _T.Q4_K, _T.Q5_K), (1, 3)),
    _T.Q2_K: (81, 83),
    _T.Q3_K: (109,),
    _T.Q6_K: (209,),
    _T.TQ1_0: (53,),
    _T.TQ2_0: (65,),
}


def check_finite(path: str | PathLike[str], header: GGUFHeader) -> None:
    """Check every weight of a model file; reads the whole file once.

    Args:
        path: the file.
        header: its header.

    Raises:
        ModelFileError: a weight is NaN or infinite, or the file cannot be read to its end.
    """
    buffer = bytearray(_CHUNK_BYTES)
    try:
        with open(path, "rb", buffering=0) as stream:  # noqa: PTH123
            for tensor in header.tensors.values():
                _check_tensor(stream, header.label, tensor, buffer)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelFileError(f"{header.label} cannot be read: {reason}.", "Check the path and the disk.") from None


def _check_tensor(stream: BinaryIO, label: str, tensor: TensorInfo, buffer: bytearray) -> None:
    has_bad = _detector(tensor.type)
    if has_bad is None:
        return
    block_bytes = GGML_QUANT_SIZES[tensor.type][1]
    step = len(buffer) // block_bytes * block_bytes
    stream.seek(tensor.offset)
    for start in range(0, tensor.n_bytes, step):
        window = memoryview(buffer)[: min(step, tensor.n_bytes - start)]
        _fill(stream, window, label)
        if has_bad(np.frombuffer(window, np.uint8)):
            raise ModelFileError(f"{label}: weights of {tensor.name} are NaN or infinite.", DAMAGED_HINT)


def _fill(stream: BinaryIO, window: memoryview, label: str) -> None:
    filled = 0
    while filled < len(window):
        count = stream.readinto(window[filled:])  # type: ignore[attr-defined]
        if not count:
            raise ModelFileError(f"{label} got shorter while it was read.", DAMAGED_HINT)
        filled += count


def _detector(kind: GGMLQuantizationType) -> Callable[[Bytes], bool] | None:
    """Return a function that finds NaN or infinity in bytes of that type; None if the type has neither."""
    if kind is _T.F32:
        return lambda data: not bool(np.isfinite(data.view("<f4")).all())
    if kind is _T.F16:
        return lambda data: _exponent_is_full(data.view("<u2"), 0x7C00)
    if kind is _T.BF16:
        return lambda data: _exponent_is_full(data.view("<u2"), 0x7F80)
    if kind is _T.IQ1_M:
        return _iq1_m_is_bad
    if kind is _T.MXFP4:
        return lambda data: bool((data[::17] == 0xFF).any())
    columns = _SCALE_BYTES.get(kind)
    if columns is None:
        return None
    size = GGML_QUANT_SIZES[kind][1]
    return lambda data: any(_exponent_is_full(data[column::size], 0x7C) for column in columns)


def _exponent_is_full(values: NDArray[np.unsignedinteger], mask: int) -> bool:
    return bool((values & values.dtype.type(mask)).max() == mask)


def _iq1_m_is_bad(data: Bytes) -> bool:
    """Return whether a scale of IQ1_M is bad; its bits are spread over four 16-bit words at the end of a block."""
    high, low = data[55::56], data[53::56]
    return bool((((high & 0x70) == 0x70) & ((low & 0xC0) == 0xC0)).any())
