"""Report what llama.cpp says a configuration takes: the child process of `internvl_gguf.memory.dry_run`.

    python -m internvl_gguf.llama.dry_run_process < request.json

The request names a text GGUF, whole or as a header with nothing behind it, and configurations. For each of them one
JSON object is printed, a line each. llama.cpp may abort on any configuration, so this runs in a child process.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from internvl_gguf.config import EngineConfig
from internvl_gguf.errors import InternVLError, ModelFileError
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.expert_overrides import expert_overrides
from internvl_gguf.llama.library import Device, devices, gpus, initialise, last_error, llama_cpp, recent_errors
from internvl_gguf.llama.native import NativeObject

_MIB = 1024 * 1024
_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_LAYER = re.compile(r"layer +(\d+) assigned to device (\S+?),")
_BUFFER = re.compile(r"(\S+) +(model|output|compute) buffer size = +([0-9.]+) MiB")
_NOT_OF_CONTEXTS = ("n_cpu_moe", "n_ctx", "gpus", "n_threads", "extra_buffers")
_CACHE = re.compile(r"llama_kv_cache: size = +([0-9.]+) MiB")


class _Model(NativeObject):
    """A text model; without `allocate` its weights are planned and not loaded."""

    def __init__(
        self,
        path: Path,
        n_gpu_layers: int,
        n_cpu_moe: int,
        shares: tuple[float, ...],
        extra_buffers: bool,
        *,
        used: list[Device],
        allocate: bool,
    ) -> None:
        super().__init__()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        overrides = expert_overrides(n_cpu_moe)
        params.tensor_buft_overrides = ctypes.addressof(overrides)
        params.use_extra_bufts = extra_buffers
        handles = (ctypes.c_void_p * (len(used) + 1))(*(gpu.handle for gpu in used), None)  # ends in a null pointer
        params.devices = ctypes.addressof(handles)
        if not allocate:
            params.no_alloc = True
            params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        # llama.cpp reads one number for each device it finds; zeros behind ours give the others nothing.
        split = (ctypes.c_float * llama_cpp.llama_max_devices())(*shares)
        if shares:
            params.tensor_split = split
        if not self._make(lambda: llama_cpp.llama_model_load_from_file(os.fsencode(path), params)):
            raise ModelFileError(f"llama.cpp cannot read the header{last_error()}.", "Check the file.")
        vocab = llama_cpp.llama_model_get_vocab(self.handle)
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(vocab)
        self.n_embd: int = llama_cpp.llama_model_n_embd_inp(self.handle)
        self.weight_bytes: int = llama_cpp.llama_model_size(self.handle)

    @staticmethod
    def _free(handle: int) -> None:
        llama_cpp.llama_model_free(handle)


def answers(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Report what each configuration takes.

    Args:
        request: `path`, `allocate` (whether to load the weights after all), and `configurations`, each with the fields
            of `EngineConfig` it is about and `gpus`.

    Yields:
        bytes of the text file's tensors, the device of each layer and of the output matrix, bytes of the KV cache, and
        bytes by device name of the compute and output buffers and of what was loaded; or `error` and `hint`. Buffers
        are as exact as llama.cpp logs them, to a hundredth of a MiB.
    """
    initialise()
    used = gpus(devices())
    path, allocate = Path(request["path"]), request["allocate"]
    llama_cpp.llama_log_set(_log_callback, ctypes.c_void_p(0))
    with ExitStack() as opened:
        loaded: tuple[Any, _Model] | None = None
        for configuration in request["configurations"]:
            layers = configuration["n_gpu_layers"], configuration["n_cpu_moe"]
            place = *layers, tuple(configuration["gpus"]), configuration["extra_buffers"]
            try:
                if loaded is None or loaded[0] != place:
                    opened.close()
                    _lines.taken()
                    loaded = place, opened.enter_context(closing(_Model(path, *place, used=used, allocate=allocate)))
                    of_model = _of_model(loaded[1], _lines.taken(), used)
                _make_context(loaded[1], configuration)
                yield of_model | _of_context(_lines.taken(), used)
            except InternVLError as error:
                yield {"error": error.message, "hint": error.hint}


def _of_model(model: _Model, text: str, used: list[Device]) -> dict[str, Any]:
    layers = sorted((int(number), name) for number, name in _LAYER.findall(text))
    return {
        "weights": model.weight_bytes,
        "layers": [_device(name, used) for _, name in layers],
        "model": _buffers("model", text, used),
    }


def _make_context(model: _Model, configuration: Mapping[str, Any]) -> None:
    values = {name: value for name, value in configuration.items() if name not in _NOT_OF_CONTEXTS}
    n_ctx, n_threads = configuration["n_ctx"], configuration["n_threads"]
    Context(model, EngineConfig(**values), n_ctx=n_ctx, n_threads=n_threads).close()  # type: ignore[arg-type]


def _of_context(text: str, used: list[Device]) -> dict[str, Any]:
    return {
        "kv_cache": round(sum(map(float, _CACHE.findall(text))) * _MIB),
        "output": _buffers("output", text, used),
        "compute": _buffers("compute", text, used),
    }


def _buffers(wanted: str, text: str, used: list[Device]) -> dict[str, int]:
    """Return the bytes of the buffers of one kind, by device."""
    sizes: dict[str, int] = {}
    for name, part, size in _BUFFER.findall(text):
        if part == wanted:
            device = _device(name, used)
            sizes[device] = sizes.get(device, 0) + round(float(size) * _MIB)
    return sizes


def _device(name: str, used: list[Device]) -> str:
    """Return our name of a device or buffer type; pinned memory and reordered weights count as the host's."""
    return next((f"GPU{number}" for number, gpu in enumerate(used) if name in (gpu.name, gpu.buffer)), "CPU")


class _Lines:
    """Log callback that keeps the lines about devices and buffers, and none of the thousands about single tensors.

    Each line costs a call into Python: the package's logger behind it would take most of the time of a dry run.
    """

    _MARKS = (b"assigned to device", b"buffer size", b"llama_kv_cache: size")

    def __init__(self) -> None:
        self.kept: list[str] = []

    def __call__(self, level: int, text: bytes, _user_data: int | None) -> None:
        if level == _ERROR:
            recent_errors.append(text.decode("utf-8", errors="replace").strip())
        elif any(mark in text for mark in self._MARKS):
            self.kept.append(text.decode("utf-8", errors="replace"))

    def taken(self) -> str:
        """Return the lines kept since the last call."""
        text = "".join(self.kept)
        self.kept.clear()
        return text


_lines = _Lines()
# The library keeps the pointer for ever: the callback must live as long as the process.
_log_callback = llama_cpp.llama_log_callback(_lines)


def main() -> None:
    """Answer the request on stdin."""
    for answer in answers(json.load(sys.stdin)):
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
