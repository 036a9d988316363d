"""The library of RPC, and servers, for these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from internvl_gguf.hardware.rpc.library_file import VARIABLE, find_rpc_library
from tests.rpc.servers import RPCServer, rpc_server

BUILT = Path(__file__).parents[2] / "build/rpc/libggml-rpc.so"


@pytest.fixture(scope="session", autouse=True)
def library(cache_folder: Path) -> Iterator[None]:
    """The library that `make test-rpc` builds, unless the installed llama.cpp has one."""
    with pytest.MonkeyPatch.context() as patch:
        if find_rpc_library() is None:
            if not BUILT.exists():
                pytest.exit("This llama.cpp has no RPC: run `make test-rpc`.", returncode=2)
            patch.setenv(VARIABLE, str(BUILT))
        yield


@pytest.fixture
def server() -> Iterator[RPCServer]:
    """One server."""
    with rpc_server() as found:
        yield found


@pytest.fixture
def two_servers() -> Iterator[tuple[RPCServer, RPCServer]]:
    """Two servers."""
    with rpc_server() as one, rpc_server() as two:
        yield one, two
