"""Clips in a chat: typed, dropped and added, their frames and what they cost, on this machine and with a server."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_gguf import Session, Video
from internvl_gguf.chat.background_thread import BackgroundThread
from internvl_gguf.chat.chat import Chat
from internvl_gguf.chat.chat_model import FoundModel, Models
from internvl_gguf.chat.local_model import LocalModel
from internvl_gguf.chat.loop import Loop
from internvl_gguf.chat.remote.served_models import ServedModels
from internvl_gguf.chat.settings import Settings
from internvl_gguf.history import History
from internvl_gguf.models.local_files import demo_files
from internvl_gguf.types import Message
from tests.chat.test_commands import EXAMPLE, Chooser, Recorder
from tests.support.chat_server import ChatServer
from tests.support.clips import clip, picture
from tests.support.served import served

LARGE = (1280, 720)
ADDED = "Added film.mp4: 8 frames of 1.6 s, at 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 1.4 s; 8 tiles, 288 tokens"


@pytest.fixture(scope="module")
def demo() -> Iterator[Session]:
    with Session.open("demo", n_threads=1, n_ctx=1024) as session:
        yield session


@pytest.fixture
def worker() -> Iterator[BackgroundThread]:
    worker = BackgroundThread()
    yield worker
    worker.close()


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History.open(tmp_path / "data") as history:
        yield history


@pytest.fixture
def film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clip of 40 frames at 25 a second, in the folder of the chat."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "film.mp4"
    path.write_bytes(clip())
    return path


@pytest.fixture
def chat(demo: Session, worker: BackgroundThread, history: History, film: Path) -> Iterator[Chat]:
    with demo.fork() as session:
        session.set_system(None)
        found = FoundModel("demo", lambda: LocalModel(demo.fork(), demo_files(), "demo"))
        current = LocalModel(session, demo_files(), "demo")
        models = Models(lambda name: found)
        yield Chat(models, found, current, history, history.begin("demo"), Settings(), worker, Recorder())


def remote(url: str, history: History, worker: BackgroundThread) -> Chat:
    """A chat with the first model of a server."""
    screen = Recorder()
    served = ServedModels.of(url, None, screen.say)
    found = served.first()
    models = Models(served.find, served.listed, served.known)
    return Chat(models, found, found.open(), history, history.begin(found.name), Settings(), worker, screen)


def take(chat: Chat, *lines: str) -> str:
    """Take lines; what the editor begins with after the last."""
    loop, left = Loop(chat, Chooser()), ""
    for line in lines:
        left = loop.take(line)
    return left


def said(chat: Chat) -> list[str]:
    assert isinstance(chat.screen, Recorder)
    return chat.screen.said


def questions(chat: Chat) -> list[Message]:
    return [message for message in chat.session.messages if message.role == "user"]


def test_a_clip_in_the_line_is_asked_about(chat: Chat, demo: Session, film: Path) -> None:
    assert take(chat, "film.mp4 What happens?") == ""
    assert said(chat)[0].startswith(ADDED)
    (question,) = questions(chat)
    assert [each.label for each in question.pictures] == [f"Frame{number}: " for number in range(1, 9)]
    with demo.fork() as session:
        reply = session.ask("What happens?", Video(film))
    assert isinstance(chat.screen, Recorder)
    assert chat.screen.answers == [reply.text]
    assert chat.last_reply is not None
    assert chat.last_reply.usage.prompt_tokens == reply.usage.prompt_tokens
    assert chat.pending == []


def test_a_clip_within_a_sentence_is_called_a_video(chat: Chat, film: Path) -> None:
    (film.with_name("other.mp4")).write_bytes(clip(frames=20))
    take(chat, "/tiles 1", "/frames 2", f"'{EXAMPLE}'", "What happens in film.mp4?")
    take(chat, "/frames 3", "Compare film.mp4 with other.mp4 please.")
    assert [question.text for question in questions(chat)] == [
        "What happens in the video?",
        "Compare video 2 with video 3 please.",
    ]
    assert not any("already" in line for line in said(chat)), "other frames of it are wanted"


def test_a_clip_that_is_there_already_is_not_added_again(chat: Chat) -> None:
    take(chat, "film.mp4 What happens?", "And where in film.mp4 is it?")
    assert "film.mp4 is in the conversation already (pictures 1 to 8); /image adds it again." in said(chat)
    assert questions(chat)[1].pictures == ()
    assert questions(chat)[1].text == "And where in the video is it?"


def test_the_number_of_frames_is_said_before_or_after(chat: Chat) -> None:
    take(chat, "/frames", "/frames 2", "film.mp4")
    assert said(chat)[:2] == ["Of the next clips 8 frames are shown.", "Of the next clips 2 frames are shown."]
    assert said(chat)[2].startswith("Added film.mp4: 2 frames of 1.6 s, at 0.4, 1.2 s; 2 tiles, 72 tokens; ")
    take(chat, "/frames 3")
    assert len(chat.pending) == 3
    assert said(chat)[-1].startswith("Added film.mp4: 3 frames of 1.6 s")
    take(chat, "/frames auto")
    assert 8 < len(chat.pending) <= 26
    assert said(chat)[-2].startswith(f"{len(chat.pending)} of the 40 frames of ")
    assert chat.left is not None
    assert chat.left > 0
    take(chat, "What happens?")
    assert len(questions(chat)[0].pictures) > 8


@pytest.mark.parametrize(
    "line", ["/frames 0", "/frames x", "/video", "/video film.mp4 --frames x", "/video absent.mp4"]
)
def test_what_cannot_be_used_is_said(chat: Chat, line: str) -> None:
    take(chat, line)
    assert len(said(chat)) == 2
    assert chat.pending == []


def test_a_clip_that_does_not_fit_is_told_what_helps(chat: Chat) -> None:
    take(chat, "/frames 40", "film.mp4 What happens?")
    assert any("more than are left" in line for line in said(chat))
    assert "What helps: /frames with a smaller number, a chat begun with --n-ctx " in said(chat)[-1]
    assert chat.pending == []


def test_video_takes_wishes_and_animations(chat: Chat, tmp_path: Path) -> None:
    frames = [picture(number) for number in range(6)]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:], duration=500)
    take(chat, "moves.gif", "/images remove 1", "/video moves.gif --frames 3", "/images remove 1-3")
    assert said(chat)[0].startswith("Added moves.gif: 4x3 tiles + thumbnail")
    assert said(chat)[1] == "moves.gif is animated: this is its first frame; /video adds more of them."
    assert said(chat)[3].startswith("Added moves.gif: 3 frames of 3.0 s, at 0.0, 1.0, 1.5 s;")
    take(chat, "/video film.mp4 --start 0:00.8 --end=1.6 --fps 5")
    assert [round(each.time, 2) for each in chat.pending] == [0.88, 1.08, 1.28, 1.44]
    take(chat, "/video film.mp4 --speed 2")
    assert said(chat)[-2:] == [
        "There is no option --speed.",
        "The options are --frames, --fps, --start, --end, --max-tiles.",
    ]


def test_times_stand_in_the_prompt_where_they_are_wanted(chat: Chat) -> None:
    take(chat, "/set frame_times on", "/frames 2", "film.mp4 When?")
    assert [each.label for each in questions(chat)[0].pictures] == ["Frame1 (0.4 s): ", "Frame2 (1.2 s): "]


def test_the_context_is_told_frame_by_frame_and_frames_can_be_dropped(chat: Chat) -> None:
    take(chat, "/frames 2", "film.mp4 What happens?", "/tokens", "/images", "/images remove 1")
    assert "  2     of which picture film.mp4 at 0.4 s: 36 tokens" in said(chat)
    assert "  2  film.mp4 at 1.2 s: 1 tile, 36 tokens" in said(chat)
    assert [each.label for each in questions(chat)[0].pictures] == ["Frame2: "]


def test_a_clip_is_kept_and_gone_on_with(chat: Chat, history: History) -> None:
    take(chat, "/frames 2", "film.mp4 What happens?")
    before = questions(chat)
    name = chat.conversation.id
    take(chat, "/clear", f"/load {name}")
    assert questions(chat) == before
    assert "Its pictures: film.mp4 at 0.4 s, film.mp4 at 1.2 s." in said(chat)
    take(chat, "/undo", "What happens?")
    assert questions(chat) == before


def test_frames_of_a_large_clip_are_the_tiles_that_a_session_cuts(chat: Chat, demo: Session, film: Path) -> None:
    film.write_bytes(clip(frames=[picture(number, LARGE) for number in range(6)], size=LARGE))
    take(chat, "/frames 2", "film.mp4 What happens?")
    with demo.fork() as session:
        session.ask("What happens?", Video(film, frames=2), max_tokens=1)
        expected = session.messages[-2].pictures
    shown = questions(chat)[0].pictures
    assert [each.tiles for each in shown] == [each.tiles for each in expected]
    assert [each.source_size for each in shown] == [LARGE, LARGE]


def test_our_server_gives_the_answer_of_this_machine(
    chat: Chat, history: History, worker: BackgroundThread, film: Path
) -> None:
    film.write_bytes(clip(frames=[picture(number, LARGE) for number in range(6)], size=LARGE))
    with served(["demo"]) as server:
        there = remote(server.url, history, worker)
        for each in (chat, there):
            take(each, "/frames 2", "film.mp4 What happens?", "And then?")
    assert isinstance(chat.screen, Recorder)
    assert isinstance(there.screen, Recorder)
    assert there.screen.answers == chat.screen.answers
    assert there.last_reply is not None
    assert chat.last_reply is not None
    assert there.last_reply.usage.prompt_tokens == chat.last_reply.usage.prompt_tokens
    assert [each.label for each in questions(there)[0].pictures] == ["Frame1: ", "Frame2: "]


def test_any_server_gets_frames_as_pictures_with_their_labels_between(
    history: History, worker: BackgroundThread, film: Path
) -> None:
    film.write_bytes(clip(frames=[picture(number, LARGE) for number in range(6)], size=LARGE))
    with ChatServer("one") as server:
        chat = remote(server.url, history, worker)
        take(chat, "/set frame_times on", "/frames 2", f"'{EXAMPLE}'", "film.mp4 What happens?")
        body: Any = server.questions[0].body
    parts = body["messages"][0]["content"]
    shown = [part.get("text", "-") for part in parts]
    assert shown == ["Image-1: ", "-", "\nFrame1 (0.0 s): ", "-", "\nFrame2 (0.1 s): ", "-", "\nWhat happens?"]
    assert "frame_times" not in body
    urls = [part["image_url"] for part in parts if part["type"] == "image_url"]
    assert all(set(each) == {"url"} for each in urls)
    data = base64.b64decode(urls[1]["url"].partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (896, 504), "in its shape, and no larger than it has to be"
    assert questions(chat)[0].pictures[1].source_size == LARGE
