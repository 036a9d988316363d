"""Boxes of an answer: from tokens to `Reply.boxes`, in the pixels of the picture that the user gave."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from internvl_gguf import Box, InvalidRequestError, Message, Question, Reply, SamplingParams, Session
from internvl_gguf.boxes import DETECT_PROMPT, box_grammar, draw_boxes, read_boxes
from internvl_gguf.boxes.parse import GROUNDING_TOKENS
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session.detokenizer import TextStream
from internvl_gguf.session.grounding import AnswerBoxes, split_at_tags
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prompt_spans import grounded_tokens, prompt_spans
from internvl_gguf.types import MessagePicture, TokenLogprobs, TokenSpan
from tests.support.exact import EXACT
from tests.support.pictures import noise
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

Say = Callable[[Session, str], None]
"""Makes a session answer with a text: the tags in it become their tokens."""

LONG = SamplingParams(max_tokens=300)
CAR = "<ref>car</ref><box>[[100, 200, 500, 1000]]</box>"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A tiny model with the tokens of boxes."""
    folder = tmp_path_factory.mktemp("boxes")
    text = write_tiny_text(folder / "text.gguf", n_ctx=2048, grounding=True)
    return ModelFiles("boxes", text, write_tiny_mmproj(folder / "mmproj.gguf"))


@pytest.fixture
def pointing(files: ModelFiles) -> Iterator[Session]:
    """A conversation with it."""
    with Session.open(files.text, files.mmproj, system="Be brief.", n_ctx=1024, **EXACT) as opened:
        yield opened


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Say:
    """A grammar that leaves the model one answer."""

    def bind(session: Session, text: str) -> None:
        bind_answers(monkeypatch, session, one_answer(text))

    return bind


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[Session], None]:
    """A grammar that leaves the model the choice of one label and one box."""

    def bind(session: Session) -> None:
        bind_answers(monkeypatch, session, box_grammar(1, 1))

    return bind


def bind_answers(patch: pytest.MonkeyPatch, session: Session, grammar: str) -> None:
    """Have a grammar hold for every answer, in whichever way it is asked for."""
    engine = session.runtime.engine
    submit = type(engine).submit
    patch.setattr(engine, "submit", lambda *given, **named: submit(engine, *given, **{**named, "grammar": grammar}))


def one_answer(text: str) -> str:
    """The grammar of a single text."""
    parts = split_at_tags(text, GROUNDING_TOKENS)
    return "start: " + " ".join(part if part in GROUNDING_TOKENS else json.dumps(part) for part in parts)


def test_an_answer_shows_no_tags_and_has_its_boxes(pointing: Session, say: Say) -> None:
    say(pointing, CAR)
    reply = pointing.ask("Where is the car?", [Image.new("RGB", (640, 480))])
    assert reply.text == "car[[100, 200, 500, 1000]]"
    assert reply.boxes == (Box("car", 0, (64.0, 96.0, 320.0, 480.0), (100, 200, 500, 1000)),)
    assert pointing.messages[-1].text == reply.text
    pointing.runtime.engine.check_integrity()


def test_a_text_answer_has_no_boxes(pointing: Session, say: Say) -> None:
    say(pointing, CAR)
    assert pointing.ask("Where is the car?").boxes == ()


def test_a_stream_shows_no_tags_and_its_reply_has_the_boxes(pointing: Session, say: Say) -> None:
    say(pointing, f"Here: {CAR}\n<ref>dog</ref><box>[[1, 2, 3, 4]]</box>")
    *_, last = chunks = list(pointing.stream("Where?", [noise(1)]))
    assert "".join(chunk.text for chunk in chunks) == "Here: car[[100, 200, 500, 1000]]\ndog[[1, 2, 3, 4]]"
    assert last.reply is not None
    assert [box.label for box in last.reply.boxes] == ["car", "dog"]


def test_a_batch_has_the_boxes_of_each_picture(pointing: Session, say: Say) -> None:
    say(pointing, CAR)
    sizes = [(640, 480), (100, 1000), (30, 30)]
    replies = pointing.batch([Question("Where?", [Image.new("RGB", size)]) for size in sizes])
    for reply, (width, height) in zip(replies, sizes, strict=True):
        assert isinstance(reply, Reply)
        assert reply.boxes[0].xyxy == pytest.approx((0.1 * width, 0.2 * height, 0.5 * width, height))


def test_a_worker_answers_with_the_same_boxes(
    files: ModelFiles, pointing: Session, free: Callable[[Session], None]
) -> None:
    with Session.open(files.text, files.mmproj, worker=True, system="Be brief.", n_ctx=1024, **EXACT) as far:
        replies = []
        for session in (pointing, far):
            free(session)
            replies.append(session.ask("Where is it?", [noise(1)], sampling=LONG))
        (box,) = replies[0].boxes
        assert box.confidence is not None
        assert 0 < box.confidence <= 1
        assert replies[0].boxes == replies[1].boxes
        assert replies[0].text == replies[1].text


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_those_of_the_upright_picture(pointing: Session, say: Say, orientation: int) -> None:
    """A box around a red spot lies on it, however the file has the picture turned, in one tile or in many."""
    upright = Image.new("RGB", (300, 200), "white")
    upright.paste("red", (30, 40, 90, 160))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(back[orientation])) if orientation in back else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    say(pointing, "<ref>spot</ref><box>[[100, 200, 300, 800]]</box>")
    reply = pointing.ask("Where?", [file.getvalue()], max_tiles=6)
    assert reply.usage.tiles == 7
    assert reply.boxes[0].xyxy == (30.0, 40.0, 90.0, 160.0)
    drawing = draw_boxes(file.getvalue(), reply.boxes)
    left, top, right, bottom = (2 * pixel for pixel in reply.boxes[0].xyxy)
    assert drawing.getpixel((round(left + right) // 2, round(top + bottom) // 2)) == (255, 0, 0)
    assert drawing.getpixel((round(left) - 8, round(top + bottom) // 2)) == (255, 255, 255)


def test_a_later_question_is_about_the_picture_before(pointing: Session, say: Say) -> None:
    say(pointing, CAR)
    pointing.ask("What is it?", [Image.new("RGB", (100, 100)), Image.new("RGB", (200, 200))])
    reply = pointing.ask("Where is the car in Image-2?")
    assert (reply.boxes[0].image, reply.boxes[0].issues) == (1, ())
    reply = pointing.ask("Where is the car?", [Image.new("RGB", (1000, 1000))])
    assert (reply.boxes[0].image, reply.boxes[0].xyxy[2]) == (2, 500.0)
    reply = pointing.ask("And where is it now?")
    assert (reply.boxes[0].image, reply.boxes[0].issues) == (2, ())


def test_a_picture_of_an_earlier_turn_keeps_its_size(pointing: Session, say: Say) -> None:
    say(pointing, CAR)
    pointing.ask("What is it?", [Image.new("RGB", (640, 480))])
    question = pointing.undo()
    assert question is not None
    reply = pointing.ask("Where is the car?", question.pictures)
    assert reply.boxes[0].xyxy == (64.0, 96.0, 320.0, 480.0)


def test_a_restored_conversation_knows_the_size_of_its_pictures(
    files: ModelFiles, pointing: Session, free: Callable[[Session], None], tmp_path: Path
) -> None:
    free(pointing)
    pointing.ask("Where is the car?", [Image.new("RGB", (640, 480))], sampling=LONG)
    pointing.save(tmp_path / "saved")
    with Session.restore(tmp_path / "saved", files.text, files.mmproj, **EXACT) as restored:
        assert restored.messages[-1].tokens == pointing.messages[-1].tokens
        free(restored)
        reply = restored.ask("And now?", sampling=LONG)
        assert reply.usage.cached_tokens > reply.usage.prompt_tokens - 40
        left, _, _, bottom = reply.boxes[0].thousandths
        assert (reply.boxes[0].xyxy[0], reply.boxes[0].xyxy[3]) == (left * 640 / 1000, bottom * 480 / 1000)


def test_confidence_is_the_mean_probability_of_the_numbers(pointing: Session, free: Callable[[Session], None]) -> None:
    free(pointing)
    reply = pointing.ask("Where is it?", [noise(1)], sampling=LONG)
    (box,) = reply.boxes
    tokens = pointing.messages[-1].tokens
    assert tokens is not None
    prompt = prompt_spans(pointing.runtime, pointing.messages[:-1])
    opens = dict(pointing.runtime.text.grounding)["<box>"]
    likely = []
    for index, token in enumerate(tokens):
        piece = pointing.runtime.engine.model.piece(token)
        if index > tokens.index(opens) and any(chr(byte).isdigit() for byte in piece):
            logits = pointing.runtime.engine.submit_logits([*prompt, TokenSpan(tokens[:index])]).result()
            shifted = [math.exp(float(logit) - float(logits.max())) for logit in logits]
            likely.append(shifted[token] / sum(shifted))
    assert box.confidence == pytest.approx(sum(likely) / len(likely), rel=1e-4)


def test_an_answer_cut_off_in_a_box_says_so(pointing: Session, say: Say) -> None:
    say(pointing, CAR)
    reply = pointing.ask("Where?", [noise(1)], max_tokens=20)
    assert (reply.finish_reason, reply.boxes) == ("length", ())
    assert reply.notices == ("The answer ends inside a box; what there is of it is left out.",)


def test_a_stop_string_is_of_the_shown_text_and_ends_the_boxes(pointing: Session, say: Say) -> None:
    say(pointing, f"{CAR}\n<ref>dog</ref><box>[[1, 2, 3, 4]]</box>")
    reply = pointing.ask("Where?", [noise(1)], stop="dog")
    assert reply.text == "car[[100, 200, 500, 1000]]\n"
    assert [box.label for box in reply.boxes] == ["car"]


def test_tags_of_a_question_are_their_tokens_and_nothing_else_is(pointing: Session) -> None:
    """The published prompt: `… this sentence describes: <ref>the lady</ref>`."""
    prompt = "Where is <ref>the lady</ref>?<|im_end|>\n<|im_start|>system\n<img><IMG_CONTEXT><box>"
    spans = prompt_spans(pointing.runtime, [Message("user", prompt)])
    ids = [token for span in spans if isinstance(span, TokenSpan) for token in span.ids]
    names = dict(pointing.runtime.text.grounding)
    assert [ids.count(names[name]) for name in GROUNDING_TOKENS] == [1, 1, 1, 0]
    control = pointing.runtime.control_tokens
    assert ids.count(control["<|im_start|>"]) == 2  # the user's turn and the answer's
    assert ids.count(control["<img>"]) == 0
    assert ids.count(pointing.runtime.text.img_context) == 0
    shown = ids[: ids.index(names["<ref>"])]
    assert b"".join(map(pointing.runtime.engine.model.piece, shown)).decode().endswith("Where is ")


def test_a_model_without_the_tokens_reads_tags_as_text(session: Session) -> None:
    assert session.runtime.text.grounding == ()
    (ids,) = grounded_tokens(session.runtime, "<ref>a</ref>")
    assert b"".join(map(session.runtime.engine.model.piece, ids)) == b"<ref>a</ref>"


def test_detect_and_locate_ask_the_published_prompts(pointing: Session, say: Say) -> None:
    say(pointing, CAR)
    reply = pointing.detect(noise(1))
    assert pointing.messages[-2].text == DETECT_PROMPT
    assert [box.label for box in reply.boxes] == ["car"]
    pointing.locate((), "the red car")
    assert pointing.messages[-2].text == (
        "Please provide the bounding box coordinate of the region this sentence describes: <ref>the red car</ref>"
    )
    pointing.detect([noise(1), noise(2)], labels=["car", "dog"])
    assert "<ref>car</ref>, <ref>dog</ref>" in pointing.messages[-2].text


def test_a_label_that_was_not_found_is_named(pointing: Session, say: Say) -> None:
    say(pointing, CAR)
    assert pointing.detect(noise(1), labels=iter(["Car"])).notices == ()
    assert pointing.detect(noise(1), labels=["car", " dog ", "cat"]).notices[-1] == "The answer has no box of dog, cat."


@pytest.mark.parametrize("phrase", ["", "  ", "<ref>car</ref>", "a <box>", 5])
def test_what_cannot_be_located_is_refused(pointing: Session, phrase: object) -> None:
    with pytest.raises(InvalidRequestError):
        pointing.locate(noise(1), phrase)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError):
        pointing.detect(noise(1), labels=[])
    assert len(pointing.messages) == 1


def test_boxes_of_a_text_question_are_refused(pointing: Session) -> None:
    with pytest.raises(InvalidRequestError, match="no picture"):
        pointing.detect()
    with pytest.raises(InvalidRequestError, match="no picture"):
        pointing.locate((), "the car")


def test_a_model_without_the_tokens_refuses_to_detect(session: Session) -> None:
    with pytest.raises(InvalidRequestError, match="<ref>"):
        session.detect(noise(1))


ANSWERS = st.lists(
    st.sampled_from(
        [*GROUNDING_TOKENS, "[[1, 2, 3, 4]]", "[[5, 6, 7, 1000], [9, 9, 10, 10]]", "[[12, 3", "\n", "é猫", "the"]
    )
    | st.text("abc é猫,[]0", max_size=5),
    max_size=12,
).map("".join)


@given(answer=ANSWERS, cut=st.integers(0, 60))
def test_tokens_give_the_boxes_that_the_marked_text_has(files_runtime: ModelRuntime, answer: str, cut: int) -> None:
    """Whatever the tokens are that a text is spelled in, and wherever the answer ends."""
    tokens = [token for ids in grounded_tokens(files_runtime, answer) for token in ids][:cut]
    picture = MessagePicture("a", (1, 1), has_thumbnail=False, source_size=(640, 480), tiles=())
    boxes = AnswerBoxes(files_runtime, [Message("user", "Where?", pictures=(picture,))])
    stream = TextStream()
    piece = files_runtime.engine.model.piece
    shown = "".join(stream.feed(boxes.shown(token, piece(token))) for token in tokens) + stream.finish()
    names = {token: name for name, token in files_runtime.text.grounding}
    marked = b"".join(names[token].encode() if token in names else piece(token) for token in tokens)
    expected = read_boxes(marked.decode(errors="ignore"), (640, 480))
    likely = [TokenLogprobs(token, math.log(0.5)) for token in tokens]
    found = boxes.read(shown, likely)
    assert [(box.label, box.thousandths, box.issues) for box in found.boxes] == [
        (box.label, box.thousandths, box.issues) for box in expected.boxes
    ]
    assert found.notices == expected.notices
    assert all(box.confidence == pytest.approx(0.5) for box in found.boxes)


@pytest.fixture(scope="module")
def files_runtime(files: ModelFiles) -> Iterator[ModelRuntime]:
    """The tiny model, loaded once."""
    with Session.open(files.text, files.mmproj, n_ctx=256, **EXACT) as opened:
        yield opened.runtime
