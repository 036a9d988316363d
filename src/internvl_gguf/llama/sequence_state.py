"""Save the KV of one sequence as bytes, and load it."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from internvl_gguf.errors import LibraryError
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.library import last_error, llama_cpp

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BYTES = ctypes.POINTER(ctypes.c_uint8)


def read_state(context: Context, sequence: int) -> NDArray[np.uint8]:
    """Return the saved state of a sequence in llama.cpp's format, uint8 [bytes].

    Raises:
        LibraryError: llama.cpp refused.
    """
    size = llama_cpp.llama_state_seq_get_size(context.handle, sequence)
    data = np.empty(size, np.uint8)
    written = llama_cpp.llama_state_seq_get_data(context.handle, data.ctypes.data_as(_BYTES), size, sequence)
    if written != size:
        raise LibraryError(f"llama.cpp gave {written} of {size} bytes of the KV cache{last_error()}.", "Save it again.")
    return data


def write_state(context: Context, sequence: int, data: NDArray[np.uint8]) -> None:
    """Load a state from `read_state` into an emptied sequence, in a context of the same model, types and build.

    Args:
        context: the context.
        sequence: number of the sequence; its former content is dropped.
        data: uint8 [bytes], whose checksum the caller has verified: llama.cpp does not check it.

    Raises:
        LibraryError: llama.cpp refused; the sequence is empty then.
    """
    context.cut(sequence, 0)
    pointer = data.ctypes.data_as(_BYTES)
    if llama_cpp.llama_state_seq_set_data(context.handle, pointer, data.size, sequence) != data.size:
        context.cut(sequence, 0)
        raise LibraryError(
            f"llama.cpp does not take the saved KV cache{last_error()}.", "Restore it with recompute=True."
        )
