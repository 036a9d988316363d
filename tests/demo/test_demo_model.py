"""The embedded model through the real runtime: small, and right about pictures it never saw.

The exact figures, of more questions, are measured by `python -m training.evaluate demo` and stand in
docs/demo-model.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

import pytest
from PIL import Image, ImageDraw, ImageFont

from internvl_gguf import Session
from internvl_gguf.demo.__main__ import EXAMPLE
from internvl_gguf.gguf.header import read_header
from internvl_gguf.models.resolve import resolve_model
from training.evaluate import answerer
from training.exam import items
from training.fonts import EMBEDDED, faces
from training.read_gguf import read, training_tokenizer
from training.scoring import score
from training.tools import random_offers, with_tools
from training.words import TEST_WORDS, TRAIN_WORDS


@pytest.fixture(scope="module")
def demo() -> Iterator[Session]:
    with Session.open("demo", n_threads=1) as session:
        yield session


def test_it_is_small_and_every_quant_applies_to_it() -> None:
    files = resolve_model("demo")
    assert files.text.stat().st_size + files.mmproj.stat().st_size <= 12_000_000
    matrices = [t for t in read_header(files.text).tensors.values() if len(t.trimmed_shape) == 2]
    assert matrices
    assert all(tensor.shape[0] % 256 == 0 for tensor in matrices)


def test_no_held_out_word_was_trained_on() -> None:
    assert len(TEST_WORDS) >= 40
    assert not set(TEST_WORDS) & set(TRAIN_WORDS)


@pytest.mark.parametrize("number", ["42", "15", "305", "98"])
def test_a_number_drawn_by_hand_is_read(demo: Session, number: str) -> None:
    """With default tiles and Pillow's own font: not a picture of the training script's making."""
    picture = Image.new("RGB", (480, 480), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((50, 60, 170, 180), fill=(220, 30, 30))
    draw.rectangle((310, 60, 430, 180), fill=(30, 60, 220))
    draw.text((150, 270), number, fill="black", font=ImageFont.load_default(size=150))
    demo.clear()
    assert demo.ask("What number is written?", images=[picture]).text == number
    demo.clear()
    assert demo.ask("What colour is the circle?", images=[picture]).text == "Red."


def test_the_example_picture_is_answered_right(demo: Session) -> None:
    for question, answer in (("What number is written?", "98"), ("How many shapes are there?", "Two.")):
        demo.clear()
        assert demo.ask(question, images=[EXAMPLE]).text == answer


@pytest.fixture
def pillow_font_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one face that every machine has, so that the same pictures are drawn everywhere."""
    embedded = tuple(face for face in faces() if face.path == EMBEDDED)
    for module in ("scenes", "receipts"):
        monkeypatch.setattr(f"training.{module}.faces", lambda: embedded)


def accuracy(session: Session, suite: str, max_tiles: int, count: int) -> float:
    """Part of the held-out questions of a suite that are answered right to the letter."""
    right = 0
    for item in items(suite, count, max_tiles):
        session.clear()
        right += session.ask(item.question, images=[item.picture], max_tiles=max_tiles).text == item.answer
    return right / count


@pytest.mark.parametrize(
    ("suite", "bar"),
    [("shapes", 0.9), ("colours", 0.9), ("places", 0.9), ("counts", 0.9), ("numbers", 0.8), ("words", 0.8)],
)
@pytest.mark.usefixtures("pillow_font_only")
def test_held_out_pictures_are_answered(demo: Session, suite: str, bar: float) -> None:
    assert accuracy(demo, suite, 1, 60) >= bar


@pytest.mark.usefixtures("pillow_font_only")
def test_small_print_is_read_where_tiles_make_it_readable(demo: Session) -> None:
    assert accuracy(demo, "small print", 12, 40) >= accuracy(demo, "small print", 1, 40) + 0.4


def part_right(session: Session, suite: str, max_tiles: int, count: int) -> float:
    """How much of the answers of a suite is right, as `training.scoring` counts it."""
    answer = answerer(session, resolve_model("demo").text.parent)
    right = sum(score(item, answer(item)) for item in items(suite, count, max_tiles))
    session.set_system(None)
    return right / count


@pytest.mark.parametrize(
    ("suite", "max_tiles", "bar"),
    [("second questions", 1, 0.85), ("one of three", 1, 0.7), ("which of three", 1, 0.8), ("later picture", 1, 0.7),
     ("order", 1, 0.7), ("change", 1, 0.75), ("movement", 1, 0.75), ("json", 1, 0.7), ("choices", 1, 0.85),
     ("tool call", 1, 0.65), ("tool result", 1, 0.8), ("no tool", 1, 0.8), ("receipts", 6, 0.3),
     ("boxes", 1, 0.75), ("boxes of writing", 1, 0.6)],
)  # fmt: skip
@pytest.mark.usefixtures("pillow_font_only")
def test_the_new_skills_are_there(demo: Session, suite: str, max_tiles: int, bar: float) -> None:
    """Bars lie below what docs/demo-model.md measured; they hold what the model has, not what it should have."""
    assert part_right(demo, suite, max_tiles, 30) >= bar


FORM = """Read the receipt.

Answer with JSON of this form:
{
  "shop": string,
  "items": [
    {
      "name": string,
      "price": number
    }
  ],
  "total": number
}"""


def test_text_is_cut_into_tokens_as_in_training(demo: Session) -> None:
    tokenizer = training_tokenizer(read(resolve_model("demo").text.parent).tokenizer)
    for text in (FORM, with_tools("Be brief.", random_offers(Random(3))), "Frame2: What is the price? <tool_call>\n"):
        assert list(demo.runtime.engine.model.tokenize(text)) == tokenizer.encode(text)


def test_the_example_receipt_is_read_right(demo: Session) -> None:
    demo.clear()
    assert json.loads(demo.ask(FORM, images=[EXAMPLE.with_name("receipt.png")], max_tokens=200).text) == {
        "shop": "CAFE",
        "items": [{"name": "MILK", "price": 5.0}, {"name": "BREAD", "price": 1.75}],
        "total": 6.75,
    }


def test_the_best_of_sixteen_is_right_where_one_answer_is_wrong(demo: Session) -> None:
    """The command in README: one answer names a diamond twice, most of sixteen do not."""
    asked, picture = "What is in the picture?", EXAMPLE.with_name("diamonds.png")
    right = "A yellow diamond in the middle, a yellow square on the right and a yellow diamond at the bottom right."
    demo.clear()
    assert demo.ask(asked, picture).text != right
    demo.clear()
    assert demo.ask(asked, picture, best_of=16, seed=5).text == right
