"""Load llama.cpp: check its version and structure layouts, route its logs, list its devices."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.identity import library_version
from internvl_gguf.hardware.remote_device import UNKNOWN_REMOTE, RemoteDevice
from internvl_gguf.hardware.trial.build_hint import build_hint, loading_problem
from internvl_gguf.hardware.trial.first_import import ensure_importable
from internvl_gguf.llama.fork_guard import note_use, refuse_child
from internvl_gguf.llama.hard_exit import end_process
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.llama.openmp import short_spins
from internvl_gguf.utils.notices import LIBRARY_LOG

# A failing GGML_ASSERT otherwise starts a debugger on the dying process and can hang it.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

ensure_importable()  # the import below may end the process

try:
    with short_spins():
        from internvl_gguf.llama.bindings import llama_cpp, mtmd_cpp
except (ImportError, OSError, RuntimeError) as error:
    raise LibraryError(*loading_problem(str(error))) from error

__all__ = [
    "SUPPORTED_VERSION",
    "Device",
    "abi_problems",
    "build",
    "cpu_features",
    "devices",
    "forget_errors",
    "ggml_function",
    "gpus",
    "has_gpu",
    "initialise",
    "last_error",
    "llama_cpp",
    "log_sink",
    "mtmd_cpp",
]

SUPPORTED_VERSION = "0.3.36"

logger = logging.getLogger(LIBRARY_LOG)

_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.WARNING}
_CONTINUATION = 5

recent_errors: deque[str] = deque(maxlen=8)
"""The last lines llama.cpp logged as errors, oldest first: the reason behind a refusal."""
_ALLOCATION = re.compile(r"\balloc", re.IGNORECASE)


class _LogSink:
    """Turns llama.cpp's log pieces into whole lines of the `internvl_gguf.llama` logger.

    Attributes:
        is_aborting: whether a computation was just told to stop. llama.cpp calls that an error, which it is to nobody.
    """

    def __init__(self) -> None:
        self.is_aborting = False
        self._level = 2
        self._line = ""

    def __call__(self, level: int, text: bytes, _user_data: int | None) -> None:
        if level != _CONTINUATION:
            self._level = level
        self._line += text.decode("utf-8", errors="replace")
        *lines, self._line = self._line.split("\n")
        for line in filter(str.strip, lines):
            if self.is_aborting:
                logger.debug("%s", line.rstrip())
                continue
            if self._level == 4:
                recent_errors.append(line.strip())
            logger.log(_LEVELS.get(self._level, logging.DEBUG), "%s", line.rstrip())


# The library keeps the pointer for ever: the callback must live as long as the process.
log_sink = _LogSink()
_log_callback = llama_cpp.llama_log_callback(log_sink)


def last_error() -> str:
    """Return the reason of a refusal that llama.cpp logged, as " (...)", or ""; forget the logged errors.

    The newest error line about an allocation counts first, else the newest: "failed to load model" comes later.
    """
    lines = list(recent_errors)
    recent_errors.clear()
    line = next((line for line in reversed(lines) if _ALLOCATION.search(line)), lines[-1] if lines else "")
    return f" ({line})" if line else ""


def forget_errors() -> None:
    """Forget the logged errors, before a call whose errors are to be reported."""
    recent_errors.clear()


_ABORT_HINT = "Run it again. If it ends like that again: `internvl doctor` shows the devices, --vram none uses no GPU."


def _on_abort(message: bytes) -> None:
    """End the process with our own message where llama.cpp would abort: a failed assertion or a lost device."""
    place, _, reason = message.decode("utf-8", errors="replace").strip().partition(": ")
    logged = last_error()
    end_process(1, f"Error: llama.cpp gave up: {reason or place} [{Path(place).name}]{logged}.", f"  {_ABORT_HINT}")


# Kept for ever, like the log callback.
_abort_callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(_on_abort)


@dataclass(frozen=True)
class Device:
    """A compute device of the installed llama.cpp build.

    Attributes:
        name: short name, as in "CUDA0".
        description: the name that its maker gave it.
        kind: "cpu", "gpu", "igpu", "accel" or "meta".
        free_bytes: memory free now; this and `total_bytes` are 0 if the device does not report memory.
        total_bytes: all of its memory.
        handle: ggml's handle, for models that are to use some devices only.
        identifier: hardware identifier, such as the place on the PCI bus; "" if the device does not report one. A card
            has the same identifier in every backend that sees it.
        buffer: name of its memory in llama.cpp's log.
        remote: what is known of it if it belongs to another machine: it does not compute with weights in this one's
            memory. None for this one's.
    """

    name: str
    description: str
    kind: str
    free_bytes: int
    total_bytes: int
    handle: int = 0
    identifier: str = ""
    buffer: str = ""
    remote: RemoteDevice | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it belongs to another machine."""
        return self.remote is not None


_DEVICE_KINDS = ("cpu", "gpu", "igpu", "accel", "meta")
_REMOTE = "RPC"  # its devices have neither `offload_op` nor a host buffer (ggml/src/ggml-rpc/ggml-rpc.cpp)
_HANDLE = ctypes.c_void_p


class _Properties(ctypes.Structure):
    """`ggml_backend_dev_props`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("async", ctypes.c_bool),
        ("host_buffer", ctypes.c_bool),
        ("buffer_from_host_ptr", ctypes.c_bool),
        ("events", ctypes.c_bool),
        ("mmap_support", ctypes.c_bool),
    )


def ggml_function(name: str, restype: Any, *argtypes: Any) -> Any:
    """Return a ggml function that the bindings do not declare, with its ctypes result and argument types."""
    function = next(found for library in _ggml_libraries() if (found := getattr(library, name, None)) is not None)
    function.restype, function.argtypes = restype, list(argtypes)
    return function


@lru_cache(maxsize=1)
def _ggml_libraries() -> tuple[ctypes.CDLL, ...]:
    """Return the libraries to search for ggml's functions: the copy that libllama uses, with its device registry.

    A wheel carries libggml under several names. Loaded by another name than libllama's, it is a second library to
    the system, and a device registered in one is unknown to the other.
    """
    if sys.platform == "win32":  # which searches the named library only, and loads a file under one name only
        folder = Path(llama_cpp.__file__).parent / "lib"
        return tuple(ctypes.CDLL(str(folder / f"{name}.dll")) for name in ("ggml", "ggml-base"))
    return (llama_cpp._lib,)


def devices() -> list[Device]:
    """Return every device that the installed llama.cpp can use, with its memory in bytes."""
    initialise()
    count = ggml_function("ggml_backend_dev_count", ctypes.c_size_t)
    get = ggml_function("ggml_backend_dev_get", _HANDLE, ctypes.c_size_t)
    with deferred_interrupts():  # a network device may never answer
        found = [_device(get(index)) for index in range(count())]
    if gpus(found):
        note_use()  # drivers of GPUs do not work in forked children
    return found


def _device(handle: int) -> Device:
    describe = ggml_function("ggml_backend_dev_get_props", None, _HANDLE, ctypes.POINTER(_Properties))
    buffer_type = ggml_function("ggml_backend_dev_buffer_type", _HANDLE, _HANDLE)
    buffer_name = ggml_function("ggml_backend_buft_name", ctypes.c_char_p, _HANDLE)
    registry = ggml_function("ggml_backend_dev_backend_reg", _HANDLE, _HANDLE)
    backend_name = ggml_function("ggml_backend_reg_name", ctypes.c_char_p, _HANDLE)
    facts = _Properties()
    describe(handle, ctypes.byref(facts))
    return Device(
        name=_text(facts.name),
        description=_text(facts.description),
        kind=_DEVICE_KINDS[facts.type] if 0 <= facts.type < len(_DEVICE_KINDS) else f"type {facts.type}",
        free_bytes=facts.memory_free,
        total_bytes=facts.memory_total,
        handle=handle,
        identifier=_text(facts.device_id),
        buffer=_text(buffer_name(buffer_type(handle))),
        remote=UNKNOWN_REMOTE if _text(backend_name(registry(handle))) == _REMOTE else None,
    )


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", errors="replace")


def gpus(found: Sequence[Device]) -> list[Device]:
    """Return the GPUs among devices that a model may lie on: devices of RPC servers first, then this machine's.

    A card that several backends see counts once, by the first of them, and integrated GPUs only where this machine has
    no other (`llama_prepare_model_devices`); of these one, since they share their memory. Servers come first as they do
    there: the last device computes the logits, and they need not travel.
    """
    remote = [device for device in found if device.is_remote]
    discrete: list[Device] = []
    for device in found:
        is_known = device.identifier and any(other.identifier == device.identifier for other in discrete)
        if device.kind == "gpu" and not device.is_remote and not is_known:
            discrete.append(device)
    return [*remote, *(discrete or [device for device in found if device.kind == "igpu"][:1])]


def has_gpu() -> bool:
    """Return whether there is a GPU that the installed build can put a model on."""
    return bool(gpus(devices()))


def build() -> str:
    """Return the identity of the installed build: versions of llama-cpp-python and ggml, and ggml's commit."""
    version = ggml_function("ggml_version", ctypes.c_char_p)
    commit = ggml_function("ggml_commit", ctypes.c_char_p)
    return f"{library_version()}+ggml.{version().decode()}.{commit().decode()}"


def cpu_features() -> list[str]:
    """Return the instruction sets and options of the build, as llama.cpp prints them ("AVX2", "OPENMP", ...)."""
    initialise()
    parts = llama_cpp.llama_print_system_info().decode(errors="replace").split("|")
    pairs = (part.split(":")[-1].split("=") for part in parts if "=" in part)
    return [name.strip() for name, value in pairs if value.strip() not in ("0", "")]


def _unexpected_defaults() -> list[str]:
    """Return the fields of the library's default parameters that differ from those of the supported version.

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
    """Return why the installed llama.cpp is not the one this package supports; empty if it is.

    A wrong layout of a structure passed by value is silent memory corruption, so both the version of the Python
    package and the values of the library's own defaults, read through our structures, are checked.
    """
    problems = []
    if (version := library_version()) != SUPPORTED_VERSION:
        problems.append(f"llama-cpp-python is {version}, not {SUPPORTED_VERSION}")
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
            build_hint(),
        )
    for set_log in (llama_cpp.llama_log_set, mtmd_cpp.mtmd_log_set, mtmd_cpp.mtmd_helper_log_set):
        set_log(_log_callback, ctypes.c_void_p(0))
    ggml_function("ggml_set_abort_callback", _HANDLE, _HANDLE)(ctypes.cast(_abort_callback, _HANDLE))
    llama_cpp.llama_backend_init()
