"""Clips in questions: the model card's prompt, frames as tiles like others, nothing encoded twice, words for errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from internvl_gguf import Picture, Session, Video
from internvl_gguf.errors import ContextOverflowError, InvalidRequestError, VideoError
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session.clips import clip_pictures
from internvl_gguf.session.prompt_template import render
from internvl_gguf.types import Message
from internvl_gguf.video import frame_indices, read_clip
from tests.support.clips import clip
from tests.support.exact import EXACT
from tests.support.pictures import noise


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 40 frames at 25 a second."""
    path = tmp_path_factory.mktemp("clips") / "film.mp4"
    path.write_bytes(clip())
    return path


def prompt_text(message: Message) -> str:
    """The text of a question's prompt, each picture as "<image>"."""
    pieces = render([message], answer=False)
    return "".join(getattr(piece, "text", "<image>" if hasattr(piece, "pictures") else "") for piece in pieces)


def asked(session: Session, prompt: str, images: object, **options: object) -> Message:
    """The message that a question of this prompt becomes."""
    session.ask(prompt, images, max_tokens=1, **options)  # type: ignore[arg-type]
    return session.messages[-2]


def test_the_prompt_is_the_cards(session: Session, film: Path) -> None:
    message = asked(session, "What happens?", Video(film, frames=3))
    assert prompt_text(message) == "user\nFrame1: <image>\nFrame2: <image>\nFrame3: <image>\nWhat happens?\n"


def test_eight_frames_of_one_tile_are_taken_and_they_are_those_of_the_recipe(session: Session, film: Path) -> None:
    message = asked(session, "What happens?", Video(film))
    frames = read_clip(Video(film)).frames
    assert [frame.index for frame in frames] == list(frame_indices(40, 25.0, 8))
    again = [session.picture(Picture(frame.image, max_tiles=1)) for frame in frames]
    assert [picture.tiles for picture in message.pictures] == [picture.tiles for picture in again]
    assert [len(picture.tiles) for picture in message.pictures] == [1] * 8


def test_a_frame_is_a_picture_like_others(session: Session, film: Path) -> None:
    """The same frames given one by one, laid out as frames, are the same prompt."""
    frames = [frame.image for frame in read_clip(Video(film, frames=2)).frames]
    clip_answer = session.ask("What happens?", Video(film, frames=2), max_tokens=4)
    session.clear()
    frames_answer = session.ask("What happens?", frames, layout="frames", max_tokens=4)
    assert clip_answer.text == frames_answer.text
    assert clip_answer.usage.prompt_tokens == frames_answer.usage.prompt_tokens
    assert frames_answer.usage.cached_tokens == frames_answer.usage.prompt_tokens - 1


def test_frames_of_one_tile_are_not_held_whole(film: Path) -> None:
    """64 frames of a clip in 4K would take 1.6 GB; boxes are in the size that they had."""
    read = clip_pictures(Video(film, frames=3), {}, tile_size=28)
    assert {picture.source.size for picture in read.pictures} == {(28, 28)}
    assert {picture.source_size for picture in read.pictures} == {read.info.size}
    whole = clip_pictures(Video(film, frames=3), {"max_tiles": 4}, tile_size=28)
    assert {(picture.source.size, picture.source_size) for picture in whole.pictures} == {(read.info.size, None)}


def test_frames_that_were_seen_before_are_not_encoded_again(session: Session, film: Path) -> None:
    first = session.ask("What happens?", Video(film, frames=2), max_tokens=1)
    session.clear()
    again = session.ask("And now?", Video(film, frames=2), max_tokens=1)
    session.clear()
    more = session.ask("And now?", Video(film, frames=6), max_tokens=1)  # its middles hold those of two
    shared = set(frame_indices(40, 25.0, 2)) & set(frame_indices(40, 25.0, 6))
    assert first.usage.tiles_encoded == 2
    assert again.usage.tiles_encoded == 0
    assert more.usage.tiles_encoded == 6 - len(shared)


def test_a_clip_stands_where_its_place_is(session: Session, film: Path) -> None:
    message = asked(session, "Before <image> and <image> after.", [noise(1), Video(film, frames=2)], max_tiles=1)
    assert prompt_text(message) == "user\nBefore <image> and Frame1: <image>\nFrame2: <image> after.\n"


def test_several_clips_and_pictures_are_told_apart(session: Session, film: Path) -> None:
    given = [Video(film, frames=2), noise(1), Video(film, frames=1, start=1), noise(2)]
    message = asked(session, "What differs?", given, max_tiles=1)
    assert prompt_text(message) == (
        "user\nVideo-1:\nFrame1: <image>\nFrame2: <image>\nImage-1: <image>\nVideo-2:\nFrame1: <image>\n"
        "Image-2: <image>\nWhat differs?\n"
    )


def test_times_are_written_where_they_are_wanted(session: Session, film: Path) -> None:
    message = asked(session, "When?", Video(film, frames=2), frame_times=True)
    assert prompt_text(message) == "user\nFrame1 (0.4 s): <image>\nFrame2 (1.2 s): <image>\nWhen?\n"
    assert [picture.name for picture in message.pictures] == [f"{film} at 0.4 s", f"{film} at 1.2 s"]


def test_a_reply_says_which_frames_were_shown(session: Session, film: Path) -> None:
    """A script finds the frame of a box, and its time, without decoding the clip again."""
    session.ask("What is it?", noise(1), max_tiles=1, max_tokens=1)
    reply = session.ask("What happens?", [noise(2), Video(film, frames=2)], max_tiles=1, max_tokens=1)
    frames = [{"image": 2, "index": 9, "time": 0.36}, {"image": 3, "index": 29, "time": 1.16}]
    assert reply.to_dict()["clips"] == [{"name": str(film), "frames": frames}]
    assert session.ask("And then?", max_tokens=1).clips == ()


def test_as_many_frames_as_fit_are_taken_and_said(tiny: ModelFiles, film: Path) -> None:
    notices: list[str] = []
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=400, on_notice=notices.append, **EXACT) as session:
        message = asked(session, "What happens?", Video(film, frames="auto"))
        assert 4 < len(message.pictures) < 32
        assert notices == [f"{len(message.pictures)} of the 40 frames of {film} are shown."]
        assert session.ask("And then?", max_tokens=1).text is not None


def test_a_frame_may_have_more_tiles(session: Session, film: Path) -> None:
    by_question = asked(session, "What happens?", Video(film, frames=1), max_tiles=6)
    session.clear()
    by_clip = asked(session, "What happens?", Video(film, frames=1, max_tiles=6))
    assert len(by_question.pictures[0].tiles) == len(by_clip.pictures[0].tiles) > 1


def test_fewest_tiles_of_pictures_give_way_to_the_one_of_a_frame(session: Session, film: Path) -> None:
    message = asked(session, "What differs?", [noise(1), Video(film, frames=1)], min_tiles=2)
    assert [len(picture.tiles) > 1 for picture in message.pictures] == [True, False]


def test_a_clip_that_does_not_fit_is_refused_with_what_would(session: Session, film: Path) -> None:
    with pytest.raises(ContextOverflowError, match="the context has 1,024") as refused:
        session.ask("What happens?", Video(film, frames=200))
    assert len(session.messages) == 1
    offered = re.search(r"([0-9]+) of the 200 frames \(frames\)", refused.value.hint)
    assert offered
    assert session.ask("What happens?", Video(film, frames=int(offered[1])), max_tokens=1).finish_reason == "length"


def test_frames_of_several_tiles_are_cut_into_fewer_where_they_do_not_fit(session: Session, film: Path) -> None:
    reply = session.ask("What happens?", Video(film, frames=32, max_tiles=6), max_tokens=1)
    assert "The 32 frames are cut into" in reply.notices[0]


def test_a_batch_and_a_saved_conversation_hold_clips(session: Session, film: Path, tmp_path: Path) -> None:
    from internvl_gguf import Question

    [reply] = session.batch([Question("What happens?", Video(film, frames=2), max_tokens=2)])
    assert not isinstance(reply, Exception)
    single = session.ask("What happens?", Video(film, frames=2), max_tokens=2)
    assert reply.text == single.text
    session.save(tmp_path / "saved")
    with Session.restore(tmp_path / "saved", **EXACT) as restored:
        assert restored.messages == session.messages
        assert restored.ask("And then?", max_tokens=1).usage.tiles_encoded == 0


def test_an_animation_given_as_a_picture_stays_a_still(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "moves.gif"
    frames = [Image.new("RGB", (64, 48), (40 * number, 0, 0)) for number in range(4)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    assert len(asked(session, "What is it?", path).pictures) == 1
    session.clear()
    assert len(asked(session, "What is it?", Video(path, frames=4)).pictures) == 4


@pytest.mark.parametrize(
    ("given", "options", "problem", "hint"),
    [
        ("absent.mp4", {}, "there is no such file", "Check the path"),
        ("film.mp4", {"layout": "combined"}, "cannot be asked about in the layout combined", "Leave layout out"),
    ],
)
def test_what_cannot_be_asked_is_said_in_two_lines(
    session: Session, film: Path, given: str, options: dict[str, object], problem: str, hint: str
) -> None:
    with pytest.raises((VideoError, InvalidRequestError), match=problem) as refused:
        session.ask("What happens?", Video(film.with_name(given)), **options)  # type: ignore[arg-type]
    assert hint in (refused.value.hint or "")
    assert len(session.messages) == 1
