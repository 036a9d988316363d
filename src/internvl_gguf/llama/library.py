"""Loading llama.cpp: version and layout checks, logs, devices."""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from internvl_gguf.errors import LibraryError
from internvl_gguf.llama.forked import note_use, refuse_child

# A failing GGML_ASSERT otherwise starts a debugger on the dying process and can hang it.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

try:
    import llama_cpp
    from llama_cpp import mtmd_cpp
    from llama_cpp._ggml import libggml
except (ImportError, OSError, RuntimeError) as error:
    raise LibraryError(
        f"llama-cpp-python cannot be loaded: {error}.",
        "Install it with a C++ compiler at hand: pip install llama-cpp-python==0.3.36",
    ) from error

__all__ = [
    "SUPPORTED_VERSION",
    "Device",
    "abi_problems",
    "build",
    "cpu_features",
    "devices",
    "ggml_function",
    "has_gpu",
    "initialise",
    "last_error",
    "llama_cpp",
    "mtmd_cpp",
]

SUPPORTED_VERSION = "0.3.36"

logger = logging.getLogger("internvl_gguf.llama")
logger.addHandler(logging.NullHandler())  # where no logging is set up llama.cpp is silent; our own warnings are not

_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.WARNING}
_CONTINUATION = 5

recent_errors: deque[str] = deque(maxlen=8)
"""The last lines llama.cpp logged as errors, oldest first: the reason behind a refusal."""


class _LogSink:
    """Turns llama.cpp's log pieces into whole lines of the `internvl_gguf.llama` logger."""

    def __init__(self) -> None:
        self._level = 2
        self._line = ""

    def __call__(self, level: int, text: bytes, _user_data: int | None) -> None:
        if level != _CONTINUATION:
            self._level = level
        self._line += text.decode("utf-8", errors="replace")
        *lines, self._line = self._line.split("\n")
        for line in filter(str.strip, lines):
            if self._level == 4:
                recent_errors.append(line.strip())
            logger.log(_LEVELS.get(self._level, logging.DEBUG), "%s", line.rstrip())


# The library keeps the pointer for ever: the callback must live as long as the process.
_log_callback = llama_cpp.llama_log_callback(_LogSink())


def last_error() -> str:
    """The newest error line of llama.cpp as " (…)", or nothing; the list is emptied."""
    line = recent_errors[-1] if recent_errors else ""
    recent_errors.clear()
    return f" ({line})" if line else ""


@dataclass(frozen=True)
class Device:
    """A compute device of the installed llama.cpp build.

    Attributes:
        name: short name, as in "CUDA0".
        description: the maker's name of it.
        kind: "cpu", "gpu", "igpu", "accel" or "meta".
        free_bytes: memory free now.
        total_bytes: memory in all.
        handle: ggml's own name of it, for models that are to use some devices only.
    """

    name: str
    description: str
    kind: str
    free_bytes: int
    total_bytes: int
    handle: int = 0


_DEVICE_KINDS = ("cpu", "gpu", "igpu", "accel", "meta")
_GPU_KINDS = ("gpu", "igpu")


def ggml_function(name: str, restype: Any, *argtypes: Any) -> Any:
    """A function of ggml that the bindings do not declare, with its result and its arguments as ctypes."""
    function = getattr(libggml, name)
    function.restype, function.argtypes = restype, list(argtypes)
    return function


def devices() -> list[Device]:
    """Every device the installed llama.cpp can use, with its memory in bytes."""
    initialise()
    found = list(_listed_devices())
    if any(device.kind in _GPU_KINDS for device in found):
        note_use()  # drivers of GPUs do not work in forked children
    return found


def _listed_devices() -> Iterator[Device]:
    handle = ctypes.c_void_p
    size_pointer = ctypes.POINTER(ctypes.c_size_t)
    count = ggml_function("ggml_backend_dev_count", ctypes.c_size_t)
    get = ggml_function("ggml_backend_dev_get", handle, ctypes.c_size_t)
    name = ggml_function("ggml_backend_dev_name", ctypes.c_char_p, handle)
    description = ggml_function("ggml_backend_dev_description", ctypes.c_char_p, handle)
    kind = ggml_function("ggml_backend_dev_type", ctypes.c_int, handle)
    memory = ggml_function("ggml_backend_dev_memory", None, handle, size_pointer, size_pointer)
    for index in range(count()):
        device = get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        number = kind(device)
        yield Device(
            name=name(device).decode(errors="replace"),
            description=description(device).decode(errors="replace"),
            kind=_DEVICE_KINDS[number] if 0 <= number < len(_DEVICE_KINDS) else f"type {number}",
            free_bytes=free.value,
            total_bytes=total.value,
            handle=device,
        )


def has_gpu() -> bool:
    """Whether a GPU is among the devices of the installed build."""
    return any(device.kind in _GPU_KINDS for device in devices())


def build() -> str:
    """Identity of the installed build: llama-cpp-python's version, ggml's version and its commit."""
    version = ggml_function("ggml_version", ctypes.c_char_p)
    commit = ggml_function("ggml_commit", ctypes.c_char_p)
    return f"{llama_cpp.__version__}+ggml.{version().decode()}.{commit().decode()}"


def cpu_features() -> list[str]:
    """Instruction sets and options the build uses, as llama.cpp prints them ("AVX2", "OPENMP", ...)."""
    initialise()
    parts = llama_cpp.llama_print_system_info().decode(errors="replace").split("|")
    pairs = (part.split(":")[-1].split("=") for part in parts if "=" in part)
    return [name.strip() for name, value in pairs if value.strip() not in ("0", "")]


def _unexpected_defaults() -> list[str]:
    """Fields of the library's default parameters that differ from what this version is known to give.

    They lie at the beginning, middle and end of each structure, so a field added or moved by another build shows.
    """
    model = llama_cpp.llama_model_default_params()
    context = llama_cpp.llama_context_default_params()
    vision = mtmd_cpp.mtmd_context_params_default()
    expected: list[tuple[str, Any, dict[str, Any]]] = [
        (
            "llama_model_params",
            model,
            {"n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "use_extra_bufts": True, "no_alloc": False},
        ),
        (
            "llama_context_params",
            context,
            {
                "n_ctx": 512,
                "n_batch": 2048,
                "n_outputs_max": 0,
                "n_threads": 4,
                "flash_attn_type": -1,
                "defrag_thold": -1.0,
                "type_k": 1,
                "type_v": 1,
                "offload_kqv": True,
                "kv_unified": False,
                "n_samplers": 0,
                "ctx_other": None,
            },
        ),
        (
            "mtmd_context_params",
            vision,
            {
                "use_gpu": True,
                "n_threads": 4,
                "media_marker": b"<__media__>",
                "image_max_tokens": -1,
                "batch_max_tokens": 1024,
                "progress_callback_user_data": None,
            },
        ),
    ]
    return [
        f"{structure}.{name} is {getattr(values, name)!r}, not {value!r}"
        for structure, values, fields in expected
        for name, value in fields.items()
        if getattr(values, name) != value
    ]


def abi_problems() -> list[str]:
    """Why the installed llama.cpp is not the one this package is made for; empty when it is.

    A wrong layout of a structure passed by value is silent memory corruption, so both the version of the Python
    package and the values of the library's own defaults, read through our structures, are checked.
    """
    problems = []
    if llama_cpp.__version__ != SUPPORTED_VERSION:
        problems.append(f"llama-cpp-python is {llama_cpp.__version__}, not {SUPPORTED_VERSION}")
    return problems + _unexpected_defaults()


def initialise() -> None:
    """Check the build, route its logs and start its backends; once per process.

    Raises:
        LibraryError: another build of llama.cpp than this package is made for.
        SessionStateError: in a child forked from a process that used the library.
    """
    refuse_child()
    _initialise_once()


@lru_cache(maxsize=1)
def _initialise_once() -> None:
    problems = abi_problems()
    if problems:
        raise LibraryError(
            f"The installed llama.cpp does not match this package: {problems[0]}.",
            f"Install the matching build: pip install llama-cpp-python=={SUPPORTED_VERSION}",
        )
    for set_log in (llama_cpp.llama_log_set, mtmd_cpp.mtmd_log_set, mtmd_cpp.mtmd_helper_log_set):
        set_log(_log_callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
