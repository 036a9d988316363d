"""RPC servers for a test, and their registration in a process that uses the package."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def environment(servers: Sequence[str] = (), *, vulkan: str = "", program: str = "-c") -> dict[str, str]:
    """The environment of a process that has these devices.

    Args:
        servers: endpoints of RPC servers. A server has one client at a time: the next one waits.
        vulkan: numbers of Vulkan devices, with commas; "" for none.
        program: the word of a command line by which the process is known that gets the servers: no child of it does.
    """
    found = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    found["PYTHONPATH"] = os.pathsep.join(map(str, (_ROOT / "tests/devices/site", _ROOT)))
    if servers:
        found |= {"TEST_RPC_SERVERS": ",".join(servers), "TEST_RPC_PROGRAM": program}
    if vulkan:
        found["GGML_VK_VISIBLE_DEVICES"] = vulkan
    return found


@dataclass(frozen=True)
class RPCServer:
    """A server that runs.

    Attributes:
        endpoint: its host and port.
        process: it.
    """

    endpoint: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Let it answer no more, without a word to its clients."""
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def rpc_server(mebibytes: int = 0) -> Iterator[RPCServer]:
    """A server over this machine's CPU that accepts connections.

    Args:
        mebibytes: memory that it may take beside what it needs to start; 0 for all.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "tests.devices.rpc_server", endpoint, str(mebibytes)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
    try:
        _await(endpoint, process)
        yield RPCServer(endpoint, process)
    finally:
        process.kill()
        process.wait()


def _await(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody listens; the server tells nobody."""
    host, port = endpoint.split(":")
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=10):
            return
        if process.poll() is not None:
            raise RuntimeError(f"the RPC server ended with status {process.returncode}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)


def register(endpoints: Sequence[str]) -> None:
    """Make the devices of servers known to llama.cpp in this process, as `--rpc` of its own programs does."""
    from internvl_gguf.llama.library import ggml_function, initialise
    from tests.devices.rpc_server import rpc_library

    initialise()
    add = rpc_library().ggml_backend_rpc_add_server
    add.argtypes, add.restype = [ctypes.c_char_p], ctypes.c_void_p
    for endpoint in endpoints:
        registry = add(endpoint.encode())
        if not registry:
            raise RuntimeError(f"no RPC server at {endpoint}")
        ggml_function("ggml_backend_register", None, ctypes.c_void_p)(registry)
