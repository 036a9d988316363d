"""The version of the RPC protocol that the installed library speaks.

No function tells it. The native server prints it before it looks at the address that it is to listen at, so it is
started in a child process with an address that is none. What it said is kept for the file.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.identity import library_fingerprint, library_version
from internvl_gguf.hardware.rpc.library_file import rpc_library
from internvl_gguf.hardware.trial.build_hint import REQUIREMENT
from internvl_gguf.utils.child_process import child_process, python_module, stdout_of
from internvl_gguf.utils.process_end import describe_end
from internvl_gguf.utils.records import RPC_PROTOCOL

COMMAND: Final = python_module("internvl_gguf.llama.rpc_process")
_VERSION: Final = re.compile(rb"RPC server v(\d+)\.(\d+)\.(\d+)")
_SECONDS: Final = 60.0


@dataclass(frozen=True, order=True)
class ProtocolVersion:
    """A version of the protocol."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    def understands(self, server: ProtocolVersion) -> bool:
        """Return whether a client of this version accepts a server's (`negotiate_hello` in ggml-rpc.cpp)."""
        return server.major == self.major and server.minor <= self.minor


def installed_protocol() -> ProtocolVersion:
    """Return the version that the installed library speaks; asked once for each library.

    Raises:
        LibraryError: the installed llama.cpp has no RPC, or its library does not run here.
    """
    path = rpc_library()
    key = _key(path)
    known = RPC_PROTOCOL.get(key, lambda kept: ProtocolVersion(*map(int, kept)))
    if known is not None:
        return known
    found = _asked(path)
    RPC_PROTOCOL.put(key, astuple(found))
    return found


def _key(path: Path) -> str:
    with suppress(OSError):
        status = path.stat()
        return f"{path} {status.st_size} {status.st_mtime_ns} {library_version()} {library_fingerprint()}"
    return str(path)


def _asked(path: Path) -> ProtocolVersion:
    with child_process(COMMAND, json.dumps({"task": "protocol"}), timeout=_SECONDS) as child:
        output = stdout_of(child.process).read()
        status = child.wait()
        reason = child.last_error_line()
    match = _VERSION.search(output)
    if match is None:
        raise LibraryError(
            f"{path} does not work here: its process {describe_end(status, reason)}.",
            f"Use one of the same version as {REQUIREMENT}, built for this machine (docs/rpc.md).",
        )
    return ProtocolVersion(*map(int, match.groups()))
