"""What `internvl rpc-server` keeps and where it listens, without the native server (tests/rpc starts that)."""

from __future__ import annotations

import os
import queue
import socket
from pathlib import Path

import pytest

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.hardware.rpc.server_options import RPCServerOptions
from internvl_gguf.hardware.rpc.serving import client_lines, free_port, prune


def test_the_oldest_weights_go_first(tmp_path: Path) -> None:
    """llama.cpp bounds that folder by nothing: it was seen to grow to 500 GB."""
    for number in range(5):
        path = tmp_path / f"{number:016x}"
        path.write_bytes(bytes(1000))
        os.utime(path, (number, number))
    prune(tmp_path, 5000)
    assert len(list(tmp_path.iterdir())) == 5
    prune(tmp_path, 2500)
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["3", "4"]
    prune(tmp_path / "nothing", 0)


def test_clients_that_only_ask_are_not_told_of() -> None:
    """One command of a client printed "A client is here. It has gone." five times."""
    printed: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for _ in range(3):
        printed.put(b"Accepted client connection\n")
        printed.put(b"Client connection closed\n")
    printed.put(b"Accepted client connection\n")
    changes: list[None] = []
    lines = client_lines(iter(printed.get, b""), lambda: changes.append(None), 0.2)
    assert next(lines) == "A client is here."
    assert len(changes) == 7
    printed.put(b"Client connection closed\n")
    assert next(lines) == "It has gone."
    printed.put(b"")
    assert list(lines) == []


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidRequestError, match=f"Another program listens on 127.0.0.1:{port}"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", 0) > 0


def test_who_can_connect() -> None:
    assert RPCServerOptions().is_local
    assert str(RPCServerOptions(host="localhost").address(1)) == "127.0.0.1:1"
    open_to_all = RPCServerOptions(host="0.0.0.0", rpc_insecure_network=True, cache="20GiB")
    assert not open_to_all.is_local
    assert open_to_all.cache_bytes == 20 * 2**30
    with pytest.raises(InvalidRequestError, match="can be reached from other machines"):
        RPCServerOptions(host="0.0.0.0")
