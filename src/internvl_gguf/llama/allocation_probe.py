"""Whether a device still has room, asked of the device itself."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from contextlib import ExitStack

from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.llama.library import forget_errors, ggml_function, initialise

_HANDLE = ctypes.c_void_p
_SIZE = ctypes.c_size_t
_CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU


def has_room(device: int | None, sizes: Iterable[int]) -> bool:
    """Whether a device gives buffers of these sizes, all at once; they are given back before this returns.

    Another program may take the memory that a device reports as free, or it may not be had in one piece.

    Args:
        device: ggml's name of it; None for the CPU.
        sizes: bytes of each buffer. One that is larger than the device's largest comes in parts, as llama.cpp does it.
    """
    initialise()
    by_type = ggml_function("ggml_backend_dev_by_type", _HANDLE, ctypes.c_int)
    buffer_type = ggml_function("ggml_backend_dev_buffer_type", _HANDLE, _HANDLE)
    largest = ggml_function("ggml_backend_buft_get_max_size", _SIZE, _HANDLE)
    allocate = ggml_function("ggml_backend_buft_alloc_buffer", _HANDLE, _HANDLE, _SIZE)
    free = ggml_function("ggml_backend_buffer_free", None, _HANDLE)
    forget_errors()
    with deferred_interrupts(), ExitStack() as owned:
        kind = buffer_type(by_type(_CPU) if device is None else device)
        for size in sizes:
            left = size
            while left > 0:
                part = min(left, largest(kind))
                buffer = allocate(kind, part)
                if not buffer:
                    return False
                owned.callback(free, buffer)
                left -= part
    return True
