"""A saved session comes back as it was, or is refused in two lines: any byte changed, another model, another build."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internvl_gguf.errors import SavedSessionError
from internvl_gguf.saved_session import ModelIdentity, SavedSession, read_saved, write_saved
from internvl_gguf.types import Message, PreparedPicture, Tile, TileSpan, TokenSpan

IDENTITY = ModelIdentity("text", "encoder", "build", "f16", False)


def tile(number: int) -> Tile:
    pixels = np.random.default_rng(number).integers(0, 256, 48, np.uint8).tobytes()
    return Tile(bytes([number]) * 16, pixels)


def saved(**changes: object) -> SavedSession:
    tiles = (tile(1), tile(2))
    picture = PreparedPicture("photo.jpg", (1, 1), True, (640, 480), tiles)
    spans = (TokenSpan((1, 2, 3)), *(TileSpan(each, 4) for each in tiles), TokenSpan((4, 5)))
    whole = SavedSession(
        "/models/text.gguf",
        "/models/mmproj.gguf",
        IDENTITY,
        2048,
        (12, 1, True),
        (
            Message("system", "Be brief."),
            Message("user", "What is 中?", (picture, picture), "combined"),
            Message("assistant", "It.", tokens=(7, 8)),
        ),
        spans,
        np.arange(300, dtype=np.uint8),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "talk.session"
    write_saved(path, saved())
    found = read_saved(path)
    assert replace(found, kv=None) == replace(saved(), kv=None)  # type: ignore[arg-type]
    assert np.array_equal(found.kv, saved().kv)
    pixels = [tile.pixels for tile in found.messages[1].pictures[0].tiles]
    assert pixels == [tile(1).pixels, tile(2).pixels]
    assert [path.name for path in path.parent.iterdir()] == ["talk.session"]


def test_a_tile_is_kept_once(tmp_path: Path) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    write_saved(once, saved())
    message = saved().messages[1]
    more = replace(message, pictures=message.pictures * 5)
    write_saved(twice, saved(messages=(*saved().messages, more)))
    assert twice.stat().st_size - once.stat().st_size < 10 * 120  # ten pictures, no tiles


def test_every_byte_counts(tmp_path: Path) -> None:
    """Stock llama.cpp took 39 of 60 damaged session files; here each byte is under a checksum."""
    path = tmp_path / "talk"
    write_saved(path, saved())
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        with pytest.raises(SavedSessionError) as caught:
            read_saved(path)
        assert "\n" not in caught.value.message


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 2000), more=st.binary(max_size=20))
def test_a_file_of_another_length(tmp_path: Path, cut: int, more: bytes) -> None:
    path = tmp_path / "talk"
    write_saved(path, saved())
    data = path.read_bytes()
    changed = data[: len(data) - cut % len(data)] + more
    if changed == data:
        return
    path.write_bytes(changed)
    with pytest.raises(SavedSessionError):
        read_saved(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_what_is_no_session(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "talk"
    for start in (b"", b"IVLSESS\n", b"IVLSESS\n" + struct.pack("<IQ", 1, 10)):
        path.write_bytes(start + data)
        with pytest.raises(SavedSessionError):
            read_saved(path)


def test_a_later_format_is_not_called_damaged(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "talk"
    start = b"IVLSESS\n" + struct.pack("<IQ", 2, 2) + b"{}"
    path.write_bytes(start + hashlib.blake2b(start, digest_size=32).digest())
    with pytest.raises(SavedSessionError, match="is of format 2"):
        read_saved(path)


def test_a_head_that_says_nonsense(tmp_path: Path) -> None:
    """Whole by its checksums, and still not what a session is."""
    import hashlib

    path = tmp_path / "talk"
    for text in (b"[]", b"{}", b"null", b'{"sections":[]}', b"not json", b'{"sections":[{"bytes":-5}]}'):
        start = b"IVLSESS\n" + struct.pack("<IQ", 1, len(text)) + text
        path.write_bytes(start + hashlib.blake2b(start, digest_size=32).digest())
        with pytest.raises(SavedSessionError):
            read_saved(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "talk"
    write_saved(path, saved())
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SavedSessionError, match="No space left"):
        write_saved(path, saved(n_ctx=4096))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["talk"]


def test_files_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(SavedSessionError, match="cannot be read"):
        read_saved(tmp_path / "none")
    with pytest.raises(SavedSessionError, match="cannot be read"):
        read_saved(tmp_path)


def test_what_differs_is_named() -> None:
    other = replace(IDENTITY, text="other", kv_type="q8_0")
    assert IDENTITY.differences(other) == ["text model", "KV type"]
    assert IDENTITY.differences(IDENTITY) == []
