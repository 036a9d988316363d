"""Ask a device whether it can allocate buffers."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from contextlib import ExitStack

from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.llama.library import forget_errors, ggml_function, initialise

_HANDLE = ctypes.c_void_p
_SIZE = ctypes.c_size_t
_CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU


def can_allocate(device: int | None, sizes: Iterable[int]) -> bool:
    """Return whether a device can allocate buffers of these sizes, all at once; they are freed before the return.

    Memory that a device reports as free may be taken by another program, or may be fragmented.

    Args:
        device: ggml's handle of the device; None for the CPU.
        sizes: bytes of each buffer. A size above the device's largest buffer is allocated in parts, as llama.cpp does.
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
