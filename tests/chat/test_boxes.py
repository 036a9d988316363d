"""Boxes in a chat: shown after the answer, listed and saved by /boxes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from internvl_gguf import Session
from internvl_gguf.chat import box_command, commands
from internvl_gguf.chat.background_thread import BackgroundThread
from internvl_gguf.chat.chat import Chat
from internvl_gguf.chat.chat_model import FoundModel, Models
from internvl_gguf.chat.local_model import LocalModel
from internvl_gguf.chat.settings import Settings
from internvl_gguf.chat.terminal.preview import BOXES_COLUMNS, BOXES_ROWS, Protocol, draw
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.history import History
from internvl_gguf.types import Box
from tests.chat.test_commands import Recorder
from tests.support.pointing_model import write_pointing_model


class BoxRecorder(Recorder):
    """Records the previews, too: sizes and numbers of boxes."""

    shows_pictures = True

    def __init__(self) -> None:
        super().__init__()
        self.previews: list[tuple[tuple[int, int], int]] = []

    def preview(self, picture: Image.Image, boxes: object = ()) -> None:
        assert isinstance(boxes, list | tuple)
        self.previews.append((picture.size, len(boxes)))


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    """A chat with a model that always answers with a box around a red car."""
    files = write_pointing_model(tmp_path)

    def open_session() -> Session:
        return Session.open(files.text, files.mmproj, n_ctx=1024, n_threads=1)

    found = FoundModel("pointing", lambda: LocalModel(open_session(), files, "pointing"))
    history = History.open(tmp_path / "data")
    thread = BackgroundThread()
    opened = Chat(
        Models(lambda name: found), found, found.open(), history, history.begin("pointing", None), Settings(), thread,
        BoxRecorder(),
    )  # fmt: skip
    yield opened
    opened.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.new("RGB", (400, 600), "white").save(path)
    return path


def screen(chat: Chat) -> BoxRecorder:
    assert isinstance(chat.screen, BoxRecorder)
    return chat.screen


def test_an_answer_with_boxes_shows_the_drawn_picture_and_names_them(chat: Chat, photo: Path) -> None:
    chat.add([photo])
    chat.ask("Where is the car?")
    assert screen(chat).previews[-1] == ((400, 600), 1)
    assert "1 box: red car. /boxes lists them, /boxes FILE.png draws them." in screen(chat).said


def test_boxes_are_listed_in_pixels(chat: Chat, photo: Path) -> None:
    chat.add([photo])
    chat.ask("Where is the car?")
    box_command.boxes(chat, "")
    (line,) = [line for line in screen(chat).said if "sure" in line]
    assert line.split("red car: ")[1].startswith("40, 120 to 200, 540, ")


def test_boxes_are_saved_as_a_picture_or_as_coco_and_over_no_file(chat: Chat, photo: Path, tmp_path: Path) -> None:
    chat.add([photo])
    chat.ask("Where is the car?")
    for name in ("drawn.png", "drawn.json"):
        box_command.boxes(chat, str(tmp_path / name))
        with pytest.raises(InvalidRequestError, match="exists already"):
            box_command.boxes(chat, str(tmp_path / name))
    assert Image.open(tmp_path / "drawn.png").size == (400, 600)
    coco = json.loads((tmp_path / "drawn.json").read_text())
    assert coco["annotations"][0]["bbox"] == [40.0, 120.0, 160.0, 420.0]
    with pytest.raises(InvalidRequestError, match="exists already"):
        box_command.boxes(chat, str(photo))


def test_a_picture_of_an_earlier_question_is_drawn_also_after_another_was_dropped(
    chat: Chat, photo: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 64), "blue").save(other)
    chat.add([other])
    chat.ask("What is it?")
    chat.add([photo])
    chat.ask("And that?")
    commands.drop(chat, "1")
    chat.ask("Where is the car now?")
    assert screen(chat).previews[-1] == ((400, 600), 1)
    commands.drop(chat, "1")
    box_command.boxes(chat, str(tmp_path / "drawn.png"))
    assert Image.open(tmp_path / "drawn.png").size == (400, 600)


def test_without_boxes_there_is_nothing_to_show(chat: Chat) -> None:
    box_command.boxes(chat, "")
    chat.ask("Where is the car?")
    box_command.boxes(chat, "out.png")
    assert screen(chat).said[0] == "No answer yet."
    assert screen(chat).said[-1] == "The last answer has no boxes."


BOX = Box("car", 0, (0.0, 0.0, 0.0, 0.0), (0, 0, 500, 500))


@pytest.mark.parametrize("protocol", list(Protocol))
def test_every_protocol_shows_frames(protocol: Protocol) -> None:
    picture, room = Image.new("RGB", (600, 400), "white"), (BOXES_COLUMNS, BOXES_ROWS)
    assert draw(picture, protocol, room, [BOX]) != draw(picture, protocol, room)


def test_half_blocks_have_frames_in_the_colour_of_the_label() -> None:
    shown = draw(Image.new("RGB", (600, 400), "white"), Protocol.BLOCKS, (BOXES_COLUMNS, BOXES_ROWS), [BOX])
    first = shown.splitlines()[0]
    assert first.count("38;2;230;159;0") == BOXES_COLUMNS // 2
