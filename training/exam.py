"""Held-out pictures with questions: the suites that the accuracy in docs/demo-model.md is measured on.

Seeds lie apart from the training's, words are those kept from training, and nothing here needs PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from training.questions import (
    ask_colour,
    ask_count,
    ask_description,
    ask_place,
    ask_presence,
    ask_reading,
    ask_shape,
    without_picture,
)  # fmt: skip
from training.scenes import Scene, new_scene, random_canvas, shapes_scene, text_scene
from training.words import TEST_WORDS, random_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL.Image import Image

    from training.questions import Question

SEED = 20_000_000
SMALL_PRINT_CANVASES = ((640, 480), (800, 600), (1024, 768), (1280, 960), (900, 900), (600, 800))
SHAPE_KINDS = ("shapes", "colours", "counts", "places", "presence", "descriptions")
READING_KINDS = ("numbers", "words")


@dataclass(frozen=True)
class Item:
    """One question of the exam; `picture` is None where there is none."""

    suite: str
    picture: Image | None
    question: str
    answer: str
    max_tiles: int


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


def items(suite: str, count: int, max_tiles: int, seed: int = SEED) -> Iterator[Item]:
    """`count` questions of one suite: a kind of SHAPE_KINDS or READING_KINDS, "small print", "absent" or "text".

    Small print has capitals of a ninth to a sixth of a tile's height when the picture is cut into 12 tiles; other
    printed lines have an eighth or more of the picture's height; shapes have 0.14 or more of its shorter side.
    """
    for index in range(count):
        rng = Random(seed + 1000 * index + sum(map(ord, suite)))
        if suite == "text":
            question = without_picture(rng)
            yield Item(suite, None, question.text, question.answer, max_tiles)
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
