"""llama.cpp's RPC server over this machine's CPU: `python -m tests.devices.rpc_server ENDPOINT MEBIBYTES`.

Args on the command line: host and port, and how much memory the process may still take once it has started; 0 for all.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import llama_cpp

from internvl_gguf.llama.library import ggml_function, initialise

_HANDLE = ctypes.c_void_p
_CPU = 0


def rpc_library() -> ctypes.CDLL:
    """The backend's own library, which the package has no use for."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    return ctypes.CDLL(str(next(folder.glob("libggml-rpc.so.0"), folder / "libggml-rpc.so")))


def main(endpoint: str, mebibytes: int) -> None:
    """Serve one client after another, for ever."""
    initialise()
    device = ggml_function("ggml_backend_dev_by_type", _HANDLE, ctypes.c_int)(_CPU)
    serve = rpc_library().ggml_backend_rpc_start_server
    serve.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, _HANDLE]
    serve.restype = None
    if mebibytes:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + mebibytes * 2**20,) * 2)
    devices = (_HANDLE * 1)(device)
    serve(endpoint.encode(), None, 1, 1, ctypes.addressof(devices))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
