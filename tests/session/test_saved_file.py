"""A saved session comes back as it was, or is refused in two lines: any byte changed, another model, another build."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internvl_gguf import SamplingParams, Session
from internvl_gguf.errors import InvalidRequestError, ModelFileError, SavedSessionError
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session.saved_file import ModelIdentity, SavedSession, read_saved, write_saved
from internvl_gguf.types import Message, MessagePicture, Tile, TileSpan, TokenSpan
from tests.support.pictures import noise
from tests.support.sessions import engine_of
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

SHORT = SamplingParams(max_tokens=16)
IDENTITY = ModelIdentity("text", "encoder", "build", "f16", False)


def tile(number: int) -> Tile:
    pixels = np.random.default_rng(number).integers(0, 256, 48, np.uint8).tobytes()
    return Tile(bytes([number]) * 16, pixels)


def saved(**changes: object) -> SavedSession:
    tiles = (tile(1), tile(2))
    picture = MessagePicture("photo.jpg", (1, 1), True, (640, 480), tiles)
    spans: tuple[TokenSpan | TileSpan, ...] = (
        TokenSpan((1, 2, 3)),
        *(TileSpan(each, 4) for each in tiles),
        TokenSpan((4, 5)),
    )
    whole = SavedSession(
        "/models/text.gguf",
        "/models/mmproj.gguf",
        IDENTITY,
        "llama.cpp",
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
    start = b"IVLSESS\n" + struct.pack("<IQ", 4, 2) + b"{}"
    path.write_bytes(start + hashlib.blake2b(start, digest_size=32).digest())
    with pytest.raises(SavedSessionError, match="is of format 4"):
        read_saved(path)


def test_a_head_that_says_nonsense(tmp_path: Path) -> None:
    """All checksums are right, but the head does not describe a session."""
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


# --- Sessions --------------------------------------------------------------------------------------------------------


def opened(model: ModelFiles, **options: object) -> Session:
    settings = {"system": "Be brief.", "n_threads": 1, "n_ctx": 1024, **options}
    return Session.open(model.text, model.mmproj, **settings)  # type: ignore[arg-type]


@pytest.fixture
def talk(tiny: ModelFiles, tmp_path: Path) -> tuple[Path, Session]:
    """A conversation about a picture of several tiles, saved and still open."""
    path = tmp_path / "talk.session"
    session = opened(tiny)
    session.ask("What is it?", images=[noise(1, 96, 64)], sampling=SHORT)
    session.ask("And now?", sampling=SHORT)
    session.save(path)
    return path, session


def test_a_restored_conversation_decodes_no_old_token(talk: tuple[Path, Session]) -> None:
    """In the same words as the one that went on: same answer, same tokens known, no tile seen again."""
    path, session = talk
    with session, Session.restore(path, n_threads=1) as restored:
        assert restored.messages == session.messages
        restored.runtime.engine.check_integrity()
        live, again = session.ask("Once more?"), restored.ask("Once more?")
    assert again.text == live.text
    assert again.usage == live.usage
    assert again.usage.tiles_encoded == 0
    assert again.usage.tiles > 4
    # What is new: the end of the last answer, the question, and the opening of the next answer.
    assert again.usage.prompt_tokens - again.usage.cached_tokens < 40


def test_logits_after_restoring_are_bit_for_bit_those_before(talk: tuple[Path, Session]) -> None:
    path, session = talk
    with session, Session.restore(path, n_threads=1) as restored:
        before = session.next_token_logprobs("Which?")
        after = restored.next_token_logprobs("Which?")
    assert np.array_equal(before, after)


@pytest.mark.parametrize("kv", [{"kv_type": "f32"}, {"kv_type": "bf16"}, {"flash_attn": True}])
def test_every_kind_of_cache(tiny: ModelFiles, tmp_path: Path, kv: dict[str, object]) -> None:
    """Answers are kept short: how long a random model talks is a matter of rounding, and so of the CPU."""
    path = tmp_path / "talk"
    with opened(tiny, **kv) as session:
        session.ask("What is it?", images=[noise(1)], sampling=SHORT)
        session.save(path)
        live = session.ask("And now?", sampling=SHORT)
    with Session.restore(path, n_threads=1) as restored:
        assert restored.ask("And now?", sampling=SHORT).usage == live.usage


def test_only_this_conversation_is_saved(tiny: ModelFiles, tmp_path: Path) -> None:
    """The file has nothing that a fork said later, whether a sequence is free or not."""
    for n_parallel in (1, 3):
        path = tmp_path / f"talk{n_parallel}"
        with opened(tiny, n_parallel=n_parallel) as session:
            session.ask("Common ground.")
            with session.fork() as fork:
                fork.ask("A secret of the fork.", images=[noise(2)])
            session.save(path)
            session.runtime.engine.check_integrity()
            ours = list(session.runtime.engine.model.tokenize("Common ground."))
            secret = list(session.runtime.engine.model.tokenize("secret of the fork"))
        ids = [token for span in read_saved(path).spans if isinstance(span, TokenSpan) for token in span.ids]
        assert any(ids[at : at + len(ours)] == ours for at in range(len(ids)))
        assert not any(ids[at : at + len(secret)] == secret for at in range(len(ids)))
        assert not any(isinstance(span, TileSpan) for span in read_saved(path).spans)


def test_another_model_is_refused_and_named(talk: tuple[Path, Session], tmp_path: Path) -> None:
    path, session = talk
    session.close()
    other = write_tiny_text(tmp_path / "other.gguf", seed=5, n_ctx=2048)
    mmproj = session_files(path)[1]
    with pytest.raises(SavedSessionError, match="another text model"):
        Session.restore(path, other, mmproj, n_threads=1)
    with Session.restore(path, other, mmproj, n_threads=1, recompute=True) as restored:
        reply = restored.ask("And now?")
        assert reply.usage.cached_tokens == 0
        assert reply.usage.tiles > 4
        answers = [message for message in restored.messages[:-2] if message.role == "assistant"]
        assert all(answer.tokens for answer in answers)  # of one vocabulary: they spell the answers here, too


def session_files(path: Path) -> tuple[str, str]:
    found = read_saved(path)
    return found.text_path, found.mmproj_path


def test_another_encoder_is_refused_and_named(talk: tuple[Path, Session], tmp_path: Path) -> None:
    path, session = talk
    session.close()
    text = session_files(path)[0]
    other = write_tiny_mmproj(tmp_path / "other-mmproj.gguf", seed=9)
    with pytest.raises(SavedSessionError, match="another vision encoder"):
        Session.restore(path, text, other, n_threads=1)
    with Session.restore(path, text, other, n_threads=1, recompute=True) as restored:
        assert restored.ask("And now?").usage.tiles_encoded > 4


def test_another_cache_type_or_a_context_too_small(talk: tuple[Path, Session]) -> None:
    path, session = talk
    session.close()
    with pytest.raises(SavedSessionError, match="another KV type"):
        Session.restore(path, n_threads=1, kv_type="f32")
    with pytest.raises(SavedSessionError, match=r"holds \d+ tokens; this context has room for"):
        Session.restore(path, n_threads=1, n_ctx=64)
    with Session.restore(path, n_threads=1, kv_type="f32", recompute=True) as restored:
        assert restored.ask("And now?").text


def test_another_kv_type_decides_about_flash_attention_anew(tmp_path: Path) -> None:
    """The file's flash attention stood against the KV type that was asked for, as if the user had asked for both."""
    path = tmp_path / "talk.session"
    with Session.open("demo", n_threads=1, n_ctx=512) as session:
        session.ask("What is it?", sampling=SamplingParams(max_tokens=2))
        session.save(path)
    with pytest.raises(SavedSessionError, match="another KV type"):
        Session.restore(path, n_threads=1, kv_type="q8_0")
    with Session.restore(path, n_threads=1, kv_type="q8_0", recompute=True) as restored:
        assert restored.runtime.identity.flash_attn


@pytest.mark.parametrize("option", [{"max_tiles": 3}, {"system": "Be brief."}, {"n_context": 512}])
def test_what_is_in_the_file_is_no_option(talk: tuple[Path, Session], option: dict[str, Any]) -> None:
    """Options that the file determines ended in a TypeError about an argument of another function."""
    path, session = talk
    session.close()
    with pytest.raises(InvalidRequestError, match=next(iter(option))):
        Session.restore(path, n_threads=1, **option)


def test_files_that_moved(talk: tuple[Path, Session], tmp_path: Path) -> None:
    path, session = talk
    session.close()
    moved = replace(read_saved(path), text_path=str(tmp_path / "gone.gguf"))
    write_saved(path, moved)
    with pytest.raises(SavedSessionError, match="not there any more"):
        Session.restore(path)
    with pytest.raises(ModelFileError):
        Session.restore(path, tmp_path / "none.gguf")


def test_a_conversation_without_a_word_and_one_whose_cache_is_gone(tiny: ModelFiles, tmp_path: Path) -> None:
    empty, forgotten = tmp_path / "empty", tmp_path / "forgotten"
    with opened(tiny) as session:
        session.save(empty)
        session.ask("What is it?", images=[noise(1)])
        engine_of(session).forget()
        session.save(forgotten)
    with Session.restore(empty, n_threads=1) as restored:
        assert restored.messages[0].text == "Be brief."
        assert restored.ask("Hi").text is not None
    with Session.restore(forgotten, n_threads=1) as restored:
        assert read_saved(forgotten).spans == ()
        assert restored.ask("And now?").usage.cached_tokens == 0


def test_saving_while_an_answer_is_under_way(tiny: ModelFiles, tmp_path: Path) -> None:
    from internvl_gguf.errors import SessionStateError

    with opened(tiny) as session:
        stream = session.stream("What is it?")
        next(stream)
        with pytest.raises(SessionStateError):
            session.save(tmp_path / "talk")


def test_a_conversation_goes_on_on_another_device(talk: tuple[Path, Session], monkeypatch: pytest.MonkeyPatch) -> None:
    """It was "saved with another vision encoder", though the file was the same: the device was taken for a part of it.

    The KV is the same whatever computed it; the embeddings of the new device are kept under its own keys.
    """
    from internvl_gguf.session import open_encoder

    path, session = talk
    live = session.ask("Once more?")
    session.close()
    monkeypatch.setattr(open_encoder, "encoder_arithmetic", lambda device, **asked: "another device")
    with Session.restore(path, n_threads=1) as restored:
        again = restored.ask("Once more?")
        assert again.usage == live.usage
        assert again.usage.tiles_encoded == 0
        keys = {tile.key for message in restored.messages for picture in message.pictures for tile in picture.tiles}
        assert not keys & {
            tile.key for message in read_saved(path).messages for p in message.pictures for tile in p.tiles
        }
        same = restored.ask("And this?", images=[noise(1, 96, 64)], sampling=SHORT)
        assert same.usage.tiles_encoded > 4  # nothing of the other device is taken for its own
        restored.clear()
        restored.ask("What is it?", images=[noise(1, 96, 64)], sampling=SHORT)
        restored.runtime.engine.check_integrity()
