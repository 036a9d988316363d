"""Devices of ggml RPC servers: load the backend, connect, and put the devices into the registry that libllama uses.

The native client ends the process where a server does not answer, and waits for ever for a busy one: the servers are
asked by `hardware.rpc.handshake` before, and this runs in a process that may be lost.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from internvl_gguf.errors import LibraryError, RPCServerError
from internvl_gguf.hardware.rpc.handshake import ServerReport, ask_servers
from internvl_gguf.hardware.rpc.library_file import rpc_library
from internvl_gguf.hardware.rpc.protocol import installed_protocol
from internvl_gguf.hardware.trial.build_hint import REQUIREMENT
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.llama.library import ggml_function, initialise

_HANDLE = ctypes.c_void_p
_registered: set[str] = set()
"""Endpoints whose devices are in the registry, in which they stay: a second registration would be a second device."""


def connect_servers(servers: Sequence[str]) -> list[ServerReport]:
    """Ask servers what they are, and make their devices known to llama.cpp in this process, for as long as it lives.

    Args:
        servers: their addresses; none connects to none.

    Raises:
        LibraryError: the installed llama.cpp has no RPC.
        RPCServerError: a server cannot be reached, gives no answer in time, or speaks another version.
    """
    if not servers:
        return []
    reports = ask_servers(servers, installed_protocol())
    _add_servers([report.endpoint for report in reports])
    return reports


def _add_servers(endpoints: Sequence[str]) -> None:
    initialise()
    add = rpc_function("ggml_backend_rpc_add_server", _HANDLE, ctypes.c_char_p)
    register = ggml_function("ggml_backend_register", None, _HANDLE)
    with deferred_interrupts():  # an interrupted `recv` counts as a lost server
        for endpoint in endpoints:
            if endpoint in _registered:
                continue
            registry = add(endpoint.encode())
            if not registry:
                raise RPCServerError(f"The RPC server {endpoint} has no device.", "Start it with one.")
            register(registry)
            _registered.add(endpoint)


def rpc_function(name: str, restype: Any, *argtypes: Any) -> Any:
    """Return a function of ggml's RPC backend, with its ctypes result and argument types.

    Raises:
        LibraryError: there is no such library, or the system cannot load it.
    """
    function = getattr(_library(), name)
    function.restype, function.argtypes = restype, list(argtypes)
    return function


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    """Return the library. It finds libggml-base loaded already, by the name that libllama knows it by."""
    path = rpc_library()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise LibraryError(
            f"{path} cannot be loaded: {str(error).rstrip('.')}.",
            f"Use one of the same version as {REQUIREMENT}, built for this machine (docs/rpc.md).",
        ) from error
