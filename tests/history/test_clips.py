"""Conversations about clips: the frames that the model saw are kept, small, and continue as they were."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from internvl_gguf import Picture, Session, Video
from internvl_gguf.history import History
from internvl_gguf.history.database import FILE
from tests.support.clips import clip, picture
from tests.support.kept import again, ask
from tests.support.pictures import noise

LARGE = (1280, 720)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 12 frames of 1280 x 720."""
    path = tmp_path_factory.mktemp("clips") / "film.mp4"
    path.write_bytes(clip(frames=[picture(number, LARGE) for number in range(12)], size=LARGE))
    return path


def test_a_clip_continues_with_the_tiles_that_the_model_saw(
    history: History, folder: Path, session: Session, film: Path
) -> None:
    conversation = history.begin("tiny", "Be brief.")
    ask(conversation, session, "What happens?", [Video(film, frames=3)])
    before = session.messages
    with again(folder) as other:
        found = other.find(conversation.id)
        assert found.entries == conversation.entries
        session.clear()
        found.continue_in(session)
        assert session.messages == before
        ask(found, session, "And then?")
    assert [each.label for each in before[1].pictures] == ["Frame1: ", "Frame2: ", "Frame3: "]
    assert {each.source_size for each in before[1].pictures} == {LARGE}


def test_it_is_the_question_that_a_session_asks_by_itself(history: History, session: Session, film: Path) -> None:
    told = ask(
        history.begin("tiny", "Be brief."),
        session,
        "What happens?",
        [Video(film, frames=2), noise(1)],
        frame_times=True,
    )
    kept = session.messages
    session.clear()
    reply = session.ask("What happens?", [Video(film, frames=2), noise(1)], frame_times=True, max_tokens=8)
    assert (reply.text, session.messages[1].pictures[0].label) == (told, "Frame1 (0.1 s): ")
    assert session.messages[1] == kept[1]


def test_frames_of_one_tile_are_kept_as_their_tiles(history: History, session: Session, film: Path) -> None:
    conversation = history.begin("tiny", "Be brief.")
    ask(conversation, session, "What happens?", [Video(film, frames=3)])
    tile = session.runtime.vision.image_size
    n_files, n_bytes = history.pictures.size()
    assert n_files == 3
    assert n_bytes < 3 * 3 * tile**2 * 1.1
    for kept in conversation.entries[0].pictures:
        data = history.pictures.get(kept.digest)
        assert data is not None
        assert Image.open(io.BytesIO(data)).size == (tile, tile)
        assert kept.cut is not None
        assert kept.cut.source_size == LARGE


def test_frames_of_several_tiles_are_kept_whole(history: History, session: Session, film: Path) -> None:
    conversation = history.begin("tiny", "Be brief.")
    ask(conversation, session, "What happens?", [Video(film, frames=1, max_tiles=6)])
    before = session.messages
    session.clear()
    conversation.continue_in(session)
    assert session.messages == before
    assert len(before[1].pictures[0].tiles) > 1


def test_a_question_that_was_taken_back_is_asked_again_as_it_was(
    history: History, session: Session, film: Path
) -> None:
    conversation = history.begin("tiny", "Be brief.")
    first = ask(conversation, session, "Look: <image> What happens?", [Video(film, frames=2)])
    before = session.messages
    question = conversation.undo(session)
    assert question is not None
    assert question.text == "Look: Frame1: <image>\nFrame2: <image> What happens?"
    assert ask(conversation, session, question.text, question.pictures) == first
    assert session.messages == before


def test_as_many_frames_as_fit_are_kept_and_said(
    history: History, session: Session, film: Path, notices: list[str]
) -> None:
    conversation = history.begin("tiny", "Be brief.")
    ask(conversation, session, "What happens?", [Video(film, frames="auto")])
    assert len(conversation.entries[0].pictures) == 12
    assert any("Of the 12 frames" in notice for notice in notices)


def test_json_there_and_back(history: History, session: Session, film: Path, tmp_path: Path) -> None:
    conversation = history.begin("tiny", "Be brief.")
    ask(conversation, session, "What happens?", [Video(film, frames=2)], frame_times=True)
    before = session.messages
    path = conversation.export(tmp_path / "talk.json")
    labels = [each["label"] for each in json.loads(path.read_text())["messages"][0]["pictures"]]
    assert labels == ["Frame1 (0.1 s): ", "Frame2 (0.3 s): "]
    with History.open(tmp_path / "elsewhere") as other:
        session.clear()
        other.load(path).continue_in(session)
        assert session.messages == before


def test_markdown_shows_frames_in_their_shape_with_their_labels(
    history: History, session: Session, film: Path, tmp_path: Path
) -> None:
    conversation = history.begin("tiny", "Be brief.")
    ask(conversation, session, "What happens?", [Video(film, frames=2)])
    text = conversation.export(tmp_path / "talk.md").read_text()
    assert "![Frame1: film.mp4 at 0.1 s](talk-pictures/film.mp4_at_0.1_s.png)" in text
    written = [Image.open(path).size for path in sorted((tmp_path / "talk-pictures").iterdir())]
    assert written == [(896, 504)] * 2


def test_boxes_are_drawn_on_a_frame_in_its_own_size(history: History, session: Session, film: Path) -> None:
    conversation = history.begin("tiny", "Be brief.")
    ask(conversation, session, "What happens?", [noise(1), Video(film, frames=2)], max_tiles=1)
    shown = session.messages[1].pictures
    found = conversation.picture_of(shown, 2)
    assert found is not None
    assert Image.open(io.BytesIO(found.source)).size == LARGE
    assert found.name == shown[2].name


def test_a_history_from_before_clips_gets_what_they_need(
    folder: Path, session: Session, film: Path, photo: Path
) -> None:
    with History.open(folder) as history:
        old = history.begin("tiny", "Be brief.")
        ask(old, session, "What is it?", [Picture(photo)])
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.execute("ALTER TABLE pictures DROP COLUMN label")
        connection.execute("ALTER TABLE messages DROP COLUMN thinking")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    session.clear()
    with again(folder) as history:
        found = history.find(old.id)
        assert found.entries == old.entries
        ask(found, session, "What happens?", [Video(film, frames=2)])
    with again(folder) as history:
        assert [each.label for each in history.find(old.id).entries[2].pictures] == ["Frame1: ", "Frame2: "]
