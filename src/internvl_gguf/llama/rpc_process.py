"""Run llama.cpp's RPC server: the child process of `hardware.rpc`.

    python -m internvl_gguf.llama.rpc_process < request.json

The request is one line of JSON. {"task": "protocol"} has the server print its version and end; {"task": "serve", ...}
serves one client after another until stdin is closed.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from internvl_gguf.errors import InternVLError, InvalidRequestError
from internvl_gguf.llama.hard_exit import end_process
from internvl_gguf.llama.library import Device, devices
from internvl_gguf.llama.rpc import rpc_function

_HANDLE = ctypes.c_void_p
_NO_ENDPOINT = "none"  # the server prints its version, and refuses an address without a port


def main() -> None:
    """Answer the request on stdin."""
    request = json.loads(sys.stdin.readline())
    try:
        if request["task"] == "protocol":
            _start(_NO_ENDPOINT, _offered(()), n_threads=1, cache=None)
        else:
            _serve(request)
    except InternVLError as error:
        end_process(1, f"Error: {error.message}", f"  {error.hint}")


def _serve(request: Mapping[str, Any]) -> None:
    """Serve until stdin is closed.

    Args:
        request: `endpoint`, `devices` (names; none for the usual ones), `threads`, and `cache` (a folder, or None).
    """
    offered = _offered(request["devices"])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _start(request["endpoint"], offered, n_threads=request["threads"], cache=request["cache"])


def _start(endpoint: str, offered: Sequence[Device], *, n_threads: int, cache: str | None) -> None:
    size = ctypes.c_size_t
    serve = rpc_function(
        "ggml_backend_rpc_start_server", None, ctypes.c_char_p, ctypes.c_char_p, size, size, ctypes.c_void_p
    )
    handles = (_HANDLE * len(offered))(*(device.handle for device in offered))
    folder = None if cache is None else os.fsencode(cache)
    serve(endpoint.encode(), folder, n_threads, len(offered), ctypes.addressof(handles))


def _offered(names: Sequence[str]) -> list[Device]:
    """Return the devices of these names; else every GPU, or the CPU where there is none, as llama.cpp's own server."""
    found = devices()
    if names:
        unknown = [name for name in names if name not in (device.name for device in found)]
        if unknown:
            raise InvalidRequestError(
                f"There is no device {unknown[0]}.", f"Use {', '.join(device.name for device in found)}."
            )
        return [device for name in names for device in found if device.name == name]
    gpus = [device for device in found if device.kind not in ("cpu", "accel", "meta")]
    return gpus or [device for device in found if device.kind == "cpu"][:1]


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
