"""Conversations outlast the process: they are saved as they go, and continue as they were."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_gguf import InvalidRequestError, Picture, PictureError, Session
from internvl_gguf.history import History
from internvl_gguf.history.database import FILE
from internvl_gguf.history.saved_states import MOST_STATES
from internvl_gguf.models.resolve import ModelFiles
from tests.support.exact import EXACT
from tests.support.kept import LONG, SHORT, again, ask, texts
from tests.support.pictures import noise
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

# --- Written as it goes -----------------------------------------------------------------------------------------------


def test_a_conversation_is_found_again_as_it_was(history: History, folder: Path, session: Session, photo: Path) -> None:
    conversation = history.begin("tiny:F32", "Be brief.")
    ask(conversation, session, "What is it?", [Picture(photo, max_tiles=6)])
    ask(conversation, session, "And\nnow? 中文 \U0001f600", layout="combined")
    with again(folder) as other:
        found = other.find(conversation.id)
        assert found.entries == conversation.entries
        assert found.heading == conversation.heading
        assert found.title == "What is it?"
    question, answer = found.entries[:2]
    (kept,) = question.pictures
    assert (kept.name, kept.path, kept.limits) == (str(photo), str(photo), (6, None, None))
    assert kept.cut is not None
    assert (kept.cut.grid, kept.cut.source_size, kept.cut.tiles) == ((3, 2), (64, 48), 7)
    assert answer.tokens == session.messages[2].tokens
    assert answer.model == "tiny:F32"
    assert answer.statistics["usage"]["tiles"] == 7
    assert answer.statistics["finish_reason"] in ("length", "stop")
    assert question.created <= answer.created


def test_nothing_is_written_before_the_first_question(history: History) -> None:
    history.begin("tiny")
    assert history.search() == []
    assert history.latest() is None


def test_the_question_is_there_while_it_is_answered(history: History, folder: Path, session: Session) -> None:
    conversation = history.begin("tiny")
    stream = conversation.stream(session, "Tell me.", sampling=LONG)
    next(stream)
    with again(folder) as other:
        found = other.find(conversation.id)
        assert texts(found) == ["Tell me."]
        assert found.unanswered is not None
        assert found.unanswered.text == "Tell me."
    list(stream)
    with again(folder) as other:
        assert other.find(conversation.id).unanswered is None


def test_an_answer_that_is_stopped_stays_as_far_as_it_came(history: History, session: Session) -> None:
    conversation = history.begin("tiny")
    stream = conversation.stream(session, "Tell me.", sampling=LONG)
    received = next(stream).text + next(stream).text
    stream.close()
    assert texts(conversation) == ["Tell me.", received]
    assert conversation.entries[1].tokens is None
    assert conversation.entries[1].statistics == {"finish_reason": "aborted"}
    assert [message.text for message in session.messages[1:]] == ["Tell me.", received]


def test_an_answer_is_kept_before_its_last_chunk_is_seen(history: History, folder: Path, session: Session) -> None:
    conversation = history.begin("tiny")
    for chunk in conversation.stream(session, "Tell me.", sampling=SHORT):
        if chunk.reply:
            with again(folder) as other:
                assert len(other.find(conversation.id).entries) == 2


def test_a_question_that_fails_leaves_nothing(history: History, session: Session, tmp_path: Path) -> None:
    conversation = history.begin("tiny")
    for prompt, images, error in [
        ("What?", [tmp_path / "missing.png"], PictureError),
        ("What?", "missing.png", PictureError),
        ("What?", [b"no picture"], PictureError),
        ("", [], InvalidRequestError),
        ("\ud800", [], InvalidRequestError),
    ]:
        with pytest.raises(error):
            conversation.stream(session, prompt, images)
    assert conversation.entries == ()
    assert history.search() == []
    ask(conversation, session, "Fine?")
    assert len(conversation.entries) == 2


def test_an_error_while_answering_takes_the_question_out(history: History, session: Session) -> None:
    conversation = history.begin("tiny")
    ask(conversation, session, "One?")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    session.on_tiles(stop)
    with pytest.raises(KeyboardInterrupt):
        list(conversation.stream(session, "Two?", [noise(1)]))
    assert [message.text for message in session.messages[1:]] == texts(conversation)
    assert len(conversation.entries) == 2


def test_the_picture_file_is_read_once_and_kept_once(history: History, folder: Path, session: Session) -> None:
    """The history keeps the bytes that the model saw, even if the file is gone a moment later."""
    photo = folder / "screenshot.png"
    noise(1).save(photo)
    data = photo.read_bytes()
    conversation = history.begin("tiny")
    stream = conversation.stream(session, "What?", [photo, photo], sampling=SHORT)
    photo.unlink()
    list(stream)
    (file,) = (folder / "pictures").iterdir()
    assert file.read_bytes() == data
    if os.name == "posix":
        assert [path.stat().st_mode & 0o077 for path in (folder, file.parent, folder / FILE)] == [0, 0, 0]


@pytest.mark.parametrize("kind", ["bytes", "Pillow", "array", "data URI"])
def test_pictures_of_every_kind_come_back_alike(history: History, folder: Path, session: Session, kind: str) -> None:
    picture = noise(1)
    sources = {
        "bytes": _png(picture),
        "Pillow": picture,
        "array": np.asarray(picture),
        "data URI": f"data:image/png;base64,{base64.b64encode(_png(picture)).decode()}",
    }
    conversation = history.begin("tiny", "Be brief.")
    ask(conversation, session, "?", [sources[kind]])
    before = session.messages
    with again(folder) as other:
        other.find(conversation.id).continue_in(session)
    assert session.messages == before


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


# --- Taking back, and other changes -----------------------------------------------------------------------------------


def test_undo_here_and_in_the_session(history: History, folder: Path, session: Session, photo: Path) -> None:
    conversation = history.begin("tiny", "Be brief.")
    first = ask(conversation, session, "One?", [Picture(photo, max_tiles=4)], layout="combined")
    ask(conversation, session, "Two?")
    assert conversation.undo(session).text == "Two?"
    assert [message.text for message in session.messages] == ["Be brief.", "One?", first]
    with again(folder) as other:
        assert texts(other.find(conversation.id)) == ["One?", first]
    asked = conversation.undo(session)
    assert (asked.text, asked.layout) == ("One?", "combined")
    assert asked.pictures == (Picture(photo.read_bytes(), 4, name=str(photo)),)
    assert conversation.undo(session) is None
    assert history.search() == []  # an empty conversation is none
    replied = ask(conversation, session, asked.text, asked.pictures, layout=asked.layout)
    assert replied == first
    assert history.search()[0].id == conversation.id


def test_a_question_asked_again_computes_nothing_again(history: History, session: Session, photo: Path) -> None:
    conversation = history.begin("tiny")
    ask(conversation, session, "What?", [photo])
    asked = conversation.undo(session)
    *_, last = conversation.stream(session, asked.text, asked.pictures, sampling=SHORT)
    assert last.reply.usage.tiles_encoded == 0
    assert last.reply.usage.cached_tokens == last.reply.usage.prompt_tokens - 1


def test_undo_where_the_session_has_left_a_turn_out(history: History, session: Session) -> None:
    """/drop takes turns out of what the model reads. Undoing one of them took the one before it from the session."""
    conversation = history.begin("tiny")
    for question in ("One?", "Two?"):
        ask(conversation, session, question)
    session.continue_with(session.messages[:3])
    assert conversation.undo(session).text == "Two?"
    assert [message.text for message in session.messages[1:]] == texts(conversation)
    assert conversation.undo(session).text == "One?"
    assert len(session.messages) == 1


def test_model_and_system_message_change(history: History, folder: Path, session: Session) -> None:
    conversation = history.begin("tiny:Q4", "Be brief.")
    ask(conversation, session, "One?")
    conversation.set_model("tiny:Q8")
    conversation.set_system(session, "")
    ask(conversation, session, "Two?")
    with again(folder) as other:
        found = other.find(conversation.id)
        assert (found.model, found.system) == ("tiny:Q8", "")
        assert [entry.model for entry in found.entries] == [None, "tiny:Q4", None, "tiny:Q8"]
        found.continue_in(session)
        assert session.messages[0].role == "user"


# --- Resuming ---------------------------------------------------------------------------------------------------------


def test_a_resumed_conversation_equals_the_one_that_went_on(
    history: History, folder: Path, session: Session, tiny: ModelFiles, photo: Path
) -> None:
    conversation = history.begin("tiny", "Be brief.")
    ask(conversation, session, "What is it?", [photo, Picture(noise(2, 96, 64), max_tiles=3)])
    ask(conversation, session, "Sure?")
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=1024, **EXACT) as fresh, again(folder) as other:
        other.find(conversation.id).continue_in(fresh)
        assert fresh.messages == session.messages
        left, right = (each.next_token_logprobs("And now?") for each in (session, fresh))
        assert np.abs(left - right).max() < 1e-5


def test_a_resumed_chat_answers_at_once(
    history: History, folder: Path, session: Session, tiny: ModelFiles, photo: Path
) -> None:
    conversation = history.begin("tiny", "Be brief.")
    ask(conversation, session, "What is it?", [photo])
    assert conversation.keep_state(session)
    with Session.open(tiny.text, tiny.mmproj, n_ctx=1024, **EXACT) as fresh, again(folder) as other:
        resumed = other.latest()
        resumed.continue_in(fresh)
        *_, last = resumed.stream(fresh, "And now?", sampling=SHORT)
        assert last.reply.usage.tiles_encoded == 0
        assert last.reply.usage.prompt_tokens - last.reply.usage.cached_tokens < 40
        *_, live = conversation.stream(session, "And now?", sampling=SHORT)
        assert last.reply.text == live.reply.text


def test_pictures_are_cut_as_they_were_however_full_the_context_was(history: History, tiny: ModelFiles) -> None:
    """They were cut smaller so that they fit; resumed in an empty context they would be cut whole."""
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=128, **EXACT) as small:
        ask(conversation := history.begin("tiny", ""), small, "What?", [noise(1), noise(2, 60, 20)])
        before = small.messages
    with Session.open(tiny.text, tiny.mmproj, n_ctx=1024, **EXACT) as large:
        conversation.continue_in(large)
        assert large.messages == before


def test_another_model_with_other_tiles_goes_on(
    history: History, session: Session, tiny: ModelFiles, tmp_path: Path, photo: Path
) -> None:
    conversation = history.begin("tiny", "Be brief.")
    ask(conversation, session, "What is it?", [photo])
    conversation.keep_state(session)
    mmproj = write_tiny_mmproj(tmp_path / "larger-tiles.gguf", image_size=64)
    text = write_tiny_text(tmp_path / "other.gguf", seed=7, n_ctx=2048)
    with Session.open(text, mmproj, n_ctx=1024, **EXACT) as other:
        conversation.continue_in(other)
        (picture,) = other.messages[1].pictures
        (before,) = session.messages[1].pictures
        assert (picture.grid, picture.has_thumbnail) == (before.grid, before.has_thumbnail)
        assert {len(tile.pixels) for tile in picture.tiles} == {3 * 64 * 64}
        *_, last = conversation.stream(other, "And now?", sampling=SHORT)
        assert last.reply.usage.tiles_encoded == 13


@pytest.mark.parametrize(
    ("prompt", "layout", "gone", "left"),
    [
        ("Both?", "separate", [0], "Both?"),
        ("Is <image> like <image>?", "separate", [0], "Is  like <image>?"),
        ("Is <image> like <image>?", "separate", [0, 1], "Is  like ?"),
        ("Both <image>?", "combined", [1], "Both <image>?"),
        ("Both <image>?", "combined", [0, 1], "Both <image>?"),
    ],
)
def test_a_picture_that_is_gone_is_left_out(
    history: History, folder: Path, session: Session, notices: list[str], prompt: str, layout: str, gone: list[int],
    left: str,
) -> None:  # fmt: skip
    conversation = history.begin("tiny")
    pictures = [Picture(noise(1), name="one.png"), Picture(noise(2), name="two.png")]
    ask(conversation, session, prompt, pictures, layout=layout)
    for place in gone:
        file = folder / "pictures" / conversation.entries[0].pictures[place].digest
        file.write_bytes(b"damaged") if place else file.unlink()
    conversation.continue_in(session)
    assert session.messages[1].text == left
    assert len(session.messages[1].pictures) == 2 - len(gone)
    assert len(notices) == len(gone)
    assert all("is not in the history any more" in line for line in notices)
    assert ask(conversation, session, "And now?") is not None


def test_an_unanswered_question_is_offered_and_goes_with_the_next(
    history: History, folder: Path, session: Session, photo: Path
) -> None:
    conversation = history.begin("tiny")
    ask(conversation, session, "One?")
    stream = conversation.stream(session, "Killed?", [photo], sampling=SHORT)
    with again(folder) as other:
        found = other.find(conversation.id)
        found.continue_in(session)
        assert [message.text for message in session.messages[1:]] == texts(found)[:2]
        assert found.unanswered.pictures == (Picture(photo.read_bytes(), name=str(photo)),)
        assert not found.keep_state(session)
        ask(found, session, "Instead?")
        assert texts(found)[2:3] == ["Instead?"]
        assert found.undo(session).text == "Instead?"
    stream.close()


def test_taking_an_unanswered_question_back_leaves_the_session(
    history: History, folder: Path, session: Session
) -> None:
    conversation = history.begin("tiny")
    ask(conversation, session, "One?")
    stream = conversation.stream(session, "Killed?", sampling=SHORT)
    with again(folder) as other:
        found = other.find(conversation.id)
        found.continue_in(session)
        assert found.undo(session).text == "Killed?"
        assert len(session.messages) == 3
        assert len(found.entries) == 2
    stream.close()


# --- Saved states -----------------------------------------------------------------------------------------------------


def test_states_are_bounded_by_bytes(folder: Path, session: Session) -> None:
    with History.open(folder) as history:
        ask(conversation := history.begin("tiny"), session, "One?")
        assert conversation.keep_state(session)
        (size,) = (path.stat().st_size for path in (folder / "states").iterdir())
    with History.open(folder, state_bytes=2 * size + size // 2) as history:
        kept = []
        for _ in range(4):
            session.clear()
            ask(conversation := history.begin("tiny"), session, "One?")
            assert conversation.keep_state(session)
            kept.append(conversation.id)
        assert {path.stem for path in (folder / "states").iterdir()} == set(kept[-2:])
        assert history.states.size()[0] == 2
        history.forget([kept[-1]])
        assert {path.stem for path in (folder / "states").iterdir()} == {kept[-2]}


def test_states_are_bounded_in_number(history: History, folder: Path, session: Session) -> None:
    (folder / "states").mkdir()
    for number in range(MOST_STATES + 3):
        path = folder / "states" / f"old{number:03}.session"
        path.touch()
        os.utime(path, (number, number))
    ask(conversation := history.begin("tiny"), session, "One?")
    assert conversation.keep_state(session)
    left = {path.stem for path in (folder / "states").iterdir()}
    assert len(left) == MOST_STATES
    assert {conversation.id, f"old{MOST_STATES + 2:03}"} <= left
    assert "old000" not in left


def test_no_state_where_it_has_no_room_or_is_not_wanted(folder: Path, session: Session) -> None:
    for state_bytes in (0, 1000):
        with History.open(folder, state_bytes=state_bytes) as history:
            ask(conversation := history.begin("tiny"), session, "One?")
            assert not conversation.keep_state(session)
    assert not (folder / "states").exists()
