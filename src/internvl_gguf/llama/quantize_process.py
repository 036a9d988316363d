"""Run llama.cpp's quantiser: the child process of `internvl_gguf.quantizing.quantizer_process`.

    python -m internvl_gguf.llama.quantize_process

Each line on stdin is one JSON request; JSON lines on stdout answer it, the last with "done" or "error". This is a child
process because the native call takes long, cannot be stopped, and ends the process if an assertion fails. If stdin ends
during a request, the parent is gone: the unfinished file is removed and this process exits.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np

from internvl_gguf.errors import InternVLError, LibraryError
from internvl_gguf.llama.library import SUPPORTED_VERSION, initialise, last_error, llama_cpp, logger

_TENSOR: Final = re.compile(r"\[ *(?P<index>\d+)/ *(?P<count>\d+)\] (?P<name>\S+) .*?(?:\((?P<type>\w+)\))?$")
_FALLBACK: Final = re.compile(r"warning: (\S+) .*required for type +(\w+)\).*falling back to +(\w+)")
_NEEDS_MATRIX: Final = "will require an imatrix"
_REASON: Final = re.compile(r"failed to quantize: (?P<reason>.*)")

_DEFAULTS: Final = {
    "nthread": 0,
    "ftype": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "output_tensor_type": llama_cpp.GGML_TYPE_COUNT,
    "token_embedding_type": llama_cpp.GGML_TYPE_COUNT,
    "allow_requantize": False,
    "quantize_output_tensor": True,
    "only_copy": False,
    "pure": False,
    "keep_split": False,
    "dry_run": False,
    "max_buf_size": 8 * 1024**3,
}
"""The library's default parameters: read through our structure, they show whether its layout is right."""


def file_types() -> dict[str, int]:
    """Return llama.cpp's number of each file type by its label, such as Q4_K_M."""
    prefix = re.compile(r"LLAMA_FTYPE_(?:MOSTLY|ALL)_(\w+)")
    found = ((prefix.fullmatch(name), name) for name in dir(llama_cpp))
    return {match[1]: getattr(llama_cpp, name) for match, name in found if match}


def quantize(request: Mapping[str, Any]) -> None:
    """Quantise a file; with `output` null only report what the result would be.

    Args:
        request: `source` and `output`, paths; `type`, a label; `threads`, 0 for all; `pure`; `requantize`; `matrix`,
            the path of an .npz with the mean squares of each tensor's inputs, or null; `metadata`, keys to set.

    Raises:
        LibraryError: llama.cpp refused.
    """
    params = _default_params()
    params.ftype = file_types()[request["type"]]
    params.nthread = request["threads"]
    params.pure = request["pure"]
    params.allow_requantize = request["requantize"]
    params.dry_run = request["output"] is None
    means = _means(request["matrix"])
    matrix = (llama_cpp.llama_model_imatrix_data * (len(means) + 1))()  # ends in an entry without a name
    for entry, (name, values) in zip(matrix, means.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    if means:
        params.imatrix = matrix
    overrides = _overrides(request["metadata"])
    params.kv_overrides = overrides
    output = os.fsencode(request["output"] or "")
    if llama_cpp.llama_model_quantize(os.fsencode(request["source"]), output, ctypes.byref(params)) != 0:
        found = _REASON.search(last_error())
        raise LibraryError(found["reason"].rstrip(")") if found else "it does not say why", "")


def _default_params() -> Any:
    params = llama_cpp.llama_model_quantize_default_params()
    for name, value in _DEFAULTS.items():
        if getattr(params, name) != value:
            raise LibraryError(
                f"llama_model_quantize_params.{name} is {getattr(params, name)!r}, not {value!r}",
                f"Install the matching build: pip install llama-cpp-python=={SUPPORTED_VERSION}",
            )
    return params


def _means(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return {name: np.ascontiguousarray(stored[name], np.float32) for name in stored.files}


def _overrides(metadata: Mapping[str, int | str]) -> Any:
    """Return the metadata overrides as the library's array, which ends in an entry without a key."""
    overrides = (llama_cpp.llama_model_kv_override * (len(metadata) + 1))()
    for override, (key, value) in zip(overrides, metadata.items(), strict=False):
        override.key = key.encode()
        if isinstance(value, int):
            override.tag, override.value.val_i64 = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, value
        else:
            cut = value.encode()[:127].decode(errors="ignore").encode()
            override.tag, override.value.val_str = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR, cut
    return overrides


class _AnswerHandler(logging.Handler):
    """Log handler that turns log lines into answers: tensors done, their types in a dry run, fallback types."""

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if found := _TENSOR.match(line):
            _answer({"tensor": found["name"], "index": int(found["index"]), "count": int(found["count"]),
                     "type": found["type"]})  # fmt: skip
        elif found := _FALLBACK.match(line):
            _answer({"fallback": found.groups()})
        elif _NEEDS_MATRIX in line:
            _answer({"needs_matrix": True})


class _Requests:
    """Requests from stdin, read by a thread, which notices the end of stdin while the library works."""

    def __init__(self) -> None:
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self.unfinished: Path | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> dict[str, Any] | None:
        """Return the next request; None when there are no more."""
        line = self._lines.get()
        return None if line is None else json.loads(line)

    def _read(self) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        if self.unfinished:
            self.unfinished.unlink(missing_ok=True)
            os._exit(1)
        self._lines.put(None)


def _answer(value: Mapping[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    """Answer the requests on stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    requests = _Requests()
    logger.setLevel(logging.DEBUG)
    logger.addHandler(_AnswerHandler())
    while request := requests.next():
        try:
            initialise()
            requests.unfinished = Path(request["output"]) if request["output"] else None
            quantize(request)
            answer: dict[str, Any] = {"done": True}
        except InternVLError as error:
            answer = {"error": error.message, "hint": error.hint}
        requests.unfinished = None
        _answer(answer)


if __name__ == "__main__":
    main()
