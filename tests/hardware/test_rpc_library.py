"""The library of ggml's RPC backend: missing, named, or none that works."""

from __future__ import annotations

from pathlib import Path

import pytest

from internvl_gguf import Session
from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.rpc.library_file import VARIABLE, find_rpc_library, rpc_library
from internvl_gguf.hardware.rpc.protocol import ProtocolVersion, installed_protocol
from internvl_gguf.hardware.trial.build_hint import REQUIREMENT
from internvl_gguf.utils.records import RPC_PROTOCOL
from tests.support.stand_in_rpc import stand_in


@pytest.fixture
def without_rpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual build, whatever the one at hand is."""
    monkeypatch.setattr("internvl_gguf.hardware.rpc.library_file.library_folders", lambda: (tmp_path,))


@pytest.mark.usefixtures("without_rpc")
def test_a_build_without_rpc_says_how_to_make_one_with_it() -> None:
    assert find_rpc_library() is None
    with pytest.raises(LibraryError) as caught:
        rpc_library()
    assert caught.value.message == "The installed llama.cpp was built without RPC."
    _, _, command = caught.value.hint.partition(": ")  # at the end, so that it can be copied
    assert "CMAKE_ARGS=-DGGML_RPC=on" in command
    assert command.endswith(REQUIREMENT)
    assert VARIABLE in caught.value.hint
    assert "\n" not in caught.value.hint


@pytest.mark.skipif(find_rpc_library() is not None, reason="this llama.cpp has RPC")
def test_a_session_says_so_and_asks_no_server() -> None:
    """In a worker, though none was asked for: what ends that process is no end of this one."""
    with stand_in() as server, pytest.raises(LibraryError, match="built without RPC"):
        Session.open("demo", rpc=server.endpoint, n_threads=1)
    assert server.endings == []


def test_a_library_beside_the_others_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("internvl_gguf.hardware.rpc.library_file.library_folders", lambda: (tmp_path,))
    monkeypatch.setattr("sys.platform", "linux")
    (tmp_path / "libggml-rpc.so").touch()
    assert find_rpc_library() == tmp_path / "libggml-rpc.so"
    (tmp_path / "libggml-rpc.so.0").touch()
    assert find_rpc_library() == tmp_path / "libggml-rpc.so.0"  # the name that libggml loads it by


def test_a_named_library_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "libggml-rpc.so"))
    with pytest.raises(LibraryError, match=f"{VARIABLE} names .*libggml-rpc.so, which is no file"):
        find_rpc_library()


def test_a_file_that_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "libggml-rpc.so"
    path.write_bytes(b"no library")
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(LibraryError) as caught:
        installed_protocol()
    assert caught.value.message.startswith(f"{path} does not work here: its process ended with status 1 (")
    assert "\n" not in caught.value.message


def test_what_a_library_speaks_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "libggml-rpc.so"
    path.write_bytes(b"one")
    monkeypatch.setenv(VARIABLE, str(path))
    asked: list[Path] = []

    def answer(library: Path) -> ProtocolVersion:
        asked.append(library)
        return ProtocolVersion(7, 0, len(asked))

    monkeypatch.setattr("internvl_gguf.hardware.rpc.protocol._asked", answer)
    assert installed_protocol() == installed_protocol() == ProtocolVersion(7, 0, 1)
    path.write_bytes(b"another")
    assert installed_protocol() == ProtocolVersion(7, 0, 2)
    assert RPC_PROTOCOL.path.exists()
    assert asked == [path, path]
