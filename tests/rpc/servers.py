"""RPC servers for a test: the package's own child process, over this machine's CPU."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from internvl_gguf.errors import RPCServerError
from internvl_gguf.hardware.rpc.handshake import ask_server
from internvl_gguf.hardware.rpc.protocol import COMMAND
from internvl_gguf.hardware.rpc.serving import free_port
from internvl_gguf.utils.rpc_addresses import RPCAddress

# Python ignores SIGPIPE, and llama.cpp's own rpc-server does not: it is as mortal here.
_AS_UPSTREAM = "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL); from {0} import main; main()"


@dataclass
class RPCServer:
    """A server that runs.

    Attributes:
        endpoint: where.
        process: it.
    """

    endpoint: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Let it answer no more, without a word to its clients."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def rpc_server(port: int = 0) -> Iterator[RPCServer]:
    """A server that answers."""
    address = RPCAddress("127.0.0.1", free_port("127.0.0.1", port))
    script = _AS_UPSTREAM.format(COMMAND[-1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
    )
    assert process.stdin is not None
    request = {"task": "serve", "endpoint": str(address), "devices": [], "threads": 1, "cache": None}
    try:
        process.stdin.write(f"{json.dumps(request)}\n".encode())
        process.stdin.flush()
        while True:
            with contextlib.suppress(RPCServerError):
                ask_server(address, None)
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                raise RuntimeError(f"the RPC server ended with status {process.wait(0.05)}")
        yield RPCServer(str(address), process)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
