"""Held-out pictures with questions: the suites that the accuracy in docs/demo-model.md is measured on.

Seeds lie apart from the training's, words are those kept from training, and nothing here needs PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from training.albums import album, ask_about_one, ask_later, ask_which
from training.boxes import ask_box, ask_detection
from training.choices import with_choices
from training.forms import ask_form
from training.frames import appearing, changing, moving, slides
from training.phrases import SYSTEM_OFFICIAL
from training.questions import (
    ask_colour,
    ask_count,
    ask_description,
    ask_place,
    ask_presence,
    ask_reading,
    ask_shape,
    random_question,
    without_picture,
)  # fmt: skip
from training.receipts import ask_receipt, ask_receipt_form, random_receipt
from training.scenes import Scene, new_scene, random_canvas, shapes_scene, text_scene
from training.tools import ask_tools, random_offers, with_tools
from training.words import TEST_WORDS, random_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL.Image import Image

    from training.questions import Question

SEED = 20_000_000
SMALL_PRINT_CANVASES = ((640, 480), (800, 600), (1024, 768), (1280, 960), (900, 900), (600, 800))
SHAPE_KINDS = ("shapes", "colours", "counts", "places", "presence", "descriptions")
READING_KINDS = ("numbers", "words")


NEW_KINDS = (
    "second questions", "which of three", "one of three", "later picture", "movement", "order", "change", "slides",
    "boxes", "boxes of writing", "boxes of several", "detection", "json", "receipts", "receipt questions", "choices",
    "tool call", "tool result", "no tool",
)  # fmt: skip
# Kinds of the clips' questions, and how the questions of tools are told apart.
_CLIPS = {"movement": moving, "order": appearing, "change": changing, "slides": slides}


@dataclass(frozen=True)
class Turn:
    """An earlier turn of the conversation: what is said, with pictures or not."""

    text: str
    pictures: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Item:
    """One question of the exam.

    Attributes:
        picture: None where there is none, or several.
        pictures: several pictures, that come with the question.
        layout: how several are marked in the prompt.
        system: the system message; None for the official one.
        earlier: turns before, which the model answers itself.
        schema: the JSON schema whose form stands behind the question, where one does.
    """

    suite: str
    picture: Image | None
    question: str
    answer: str
    max_tiles: int
    pictures: tuple[Image, ...] = ()
    layout: Literal["separate", "frames"] = "separate"
    system: str | None = None
    earlier: tuple[Turn, ...] = ()
    schema: dict[str, Any] | None = None

    @property
    def shown(self) -> tuple[Image, ...]:
        """All pictures that come with the question."""
        return self.pictures if self.picture is None else (self.picture,)


def _shape_item(ask: Callable[[Scene, Random], Question | None], rng: Random) -> tuple[Scene, Question]:
    while True:
        scene = shapes_scene(rng, smallest=0.14)
        question = ask(scene, rng)
        if question is not None and scene.shapes:
            return scene, question


def _reading_item(text: str, rng: Random, small: bool) -> tuple[Scene, Question]:
    while True:
        if small:
            size = rng.choice(SMALL_PRINT_CANVASES)
            rows = 4 if size[1] > size[0] else 3
            scene = text_scene(rng, size, smallest=1 / 9 / rows, largest=1 / 6 / rows, text=text)
        else:
            scene = text_scene(rng, random_canvas(rng), smallest=0.125, largest=0.6, text=text)
        if not scene.lines:
            continue
        question = ask_reading(scene, rng)
        if question.kind == "reading":
            return scene, question


_ASKERS = {
    "shapes": ask_shape, "colours": ask_colour, "counts": ask_count, "places": ask_place, "presence": ask_presence,
    "descriptions": ask_description,
}  # fmt: skip


def _new_item(suite: str, rng: Random, max_tiles: int) -> Item:
    """A question of one of NEW_KINDS."""
    if suite in _CLIPS:
        clip = _CLIPS[suite](rng, rng.choice((4, 5, 6)))
        question = rng.choice(clip.questions)
        frames = tuple(scene.image for scene in clip.frames)
        return Item(suite, None, question.text, question.answer, max_tiles, frames, "frames")
    if suite in ("receipts", "receipt questions"):
        receipt = random_receipt(rng, TEST_WORDS)
        question = (ask_receipt_form if suite == "receipts" else ask_receipt)(receipt, rng)
        return Item(suite, receipt.scene.image, question.text, question.answer, max_tiles, schema=question.schema)
    if suite in ("which of three", "one of three", "boxes of several", "later picture"):
        return _album_item(suite, rng, max_tiles)
    while True:
        scene = shapes_scene(rng, most=4, smallest=0.16, text=rng.random() < 0.5)
        if suite in ("tool call", "tool result", "no tool"):
            offers = random_offers(rng)
            turns = ask_tools(scene, offers, rng)
            if turns[-1].kind == suite and scene.shapes:
                earlier = tuple(Turn(turn.text, (scene.image,)) for turn in turns[:-1])
                picture = None if earlier else scene.image
                system = with_tools(SYSTEM_OFFICIAL, offers)
                return Item(suite, picture, turns[-1].text, turns[-1].answer, max_tiles, system=system, earlier=earlier)
            continue
        asked = _asked_of(suite, scene, rng)
        if asked is None:
            continue
        if suite == "second questions":
            earlier = (Turn(random_question(scene, rng).text, (scene.image,)),)
            return Item(suite, None, asked.text, asked.answer, max_tiles, earlier=earlier)
        return Item(suite, scene.image, asked.text, asked.answer, max_tiles, schema=asked.schema)


def _asked_of(suite: str, scene: Scene, rng: Random) -> Question | None:
    """A question about one scene, of the suites that need nothing else; None where it does not fit."""
    if suite in ("boxes", "boxes of writing"):
        found = ask_box(scene, rng, official=True)
        return found if found is not None and found.kind == suite else None
    if suite == "detection":
        return ask_detection(scene, rng) if scene.boxes else None
    if suite == "json":
        return ask_form(scene, rng)
    while True:
        found = random_question(scene, rng)
        if found.kind in ("descriptions", "outside"):
            continue
        return found if suite == "second questions" else with_choices(found, rng)


def _album_item(suite: str, rng: Random, max_tiles: int) -> Item:
    """A question about three pictures, or one that brings a second."""
    while True:
        scenes = album(rng, 2 if suite == "later picture" else 3)
        if suite == "later picture":
            question: Question | None = ask_later(scenes, 1, rng)
        elif suite == "which of three":
            question = ask_which(scenes, rng)
        elif suite == "boxes of several":
            index = rng.randrange(3)
            question = ask_box(scenes[index], rng, f" in Image-{index + 1}")
        else:
            question = ask_about_one(scenes, rng)
        if question is None or (suite == "one of three") != (question.kind == "one of several"):
            continue
        pictures = tuple(scene.image for scene in scenes)
        if suite == "later picture":
            first = Turn(random_question(scenes[0], rng).text, pictures[:1])
            return Item(suite, pictures[1], question.text, question.answer, max_tiles, earlier=(first,))
        return Item(suite, None, question.text, question.answer, max_tiles, pictures)


def items(suite: str, count: int, max_tiles: int, seed: int = SEED) -> Iterator[Item]:
    """`count` questions of one suite: of SHAPE_KINDS, READING_KINDS, NEW_KINDS, "small print", "absent" or "text".

    Small print has capitals of a ninth to a sixth of a tile's height when the picture is cut into 12 tiles; other
    printed lines have an eighth or more of the picture's height; shapes have 0.14 or more of its shorter side.
    """
    for index in range(count):
        rng = Random(seed + 1000 * index + sum(map(ord, suite)))
        if suite == "text":
            question = without_picture(rng)
            yield Item(suite, None, question.text, question.answer, max_tiles)
            continue
        if suite in NEW_KINDS:
            yield _new_item(suite, rng, max_tiles)
            continue
        if suite in _ASKERS:
            scene, question = _shape_item(_ASKERS[suite], rng)
        elif suite == "absent":
            scene = new_scene(rng, random_canvas(rng)) if rng.random() < 0.3 else shapes_scene(rng)
            question = ask_reading(scene, rng)
        else:
            word = suite == "words" or (suite == "small print" and index % 2 == 1)
            text = rng.choice(TEST_WORDS) if word else random_number(rng)
            scene, question = _reading_item(text, rng, suite == "small print")
        yield Item(suite, scene.image, question.text, question.answer, max_tiles)
