"""Frames of a video, one tile each: something moves, appears or changes its colour, or slides follow one another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from training.questions import Question, article, sentence
from training.scenes import COLOURS, PALETTE, RGB, SHAPES, Scene, Shape, Target, add_text, distance, draw_shape, jitter
from training.words import random_text

if TYPE_CHECKING:
    from random import Random

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_SIZES = ((320, 240), (240, 240), (400, 300), (320, 180))
# Where a shape starts and ends, in parts of the canvas, for each direction.
_WAYS = {
    "to the right": ((0.18, None), (0.82, None)), "to the left": ((0.82, None), (0.18, None)),
    "down": ((None, 0.2), (None, 0.8)), "up": ((None, 0.8), (None, 0.2)),
}  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """Frames, and the questions that may be asked about them."""

    frames: tuple[Scene, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class _Thing:
    kind: str
    colour: str
    fill: RGB
    radius: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"


class _Stage:
    """A background of one colour that frames are drawn on."""

    def __init__(self, rng: Random) -> None:
        self.size = rng.choice(_SIZES)
        shade = rng.randint(225, 255)
        self.back: RGB = (shade, shade, shade) if rng.random() < 0.85 else (12, 12, 12)

    def thing(self, rng: Random, taken: list[_Thing]) -> _Thing:
        """A shape that is seen on this background and is like none of those taken, in kind and colour."""
        while True:
            kind, colour = rng.choice(SHAPES), rng.choice(COLOURS)
            fill = jitter(rng, rng.choice(PALETTE[colour]))
            if distance(fill, self.back) < 110 or any(kind == t.kind or colour == t.colour for t in taken):
                continue
            return _Thing(kind, colour, fill, rng.uniform(0.12, 0.19) * min(self.size))

    def fill(self, rng: Random, besides: str) -> tuple[str, RGB]:
        """Another colour that is seen on this background."""
        while True:
            colour = rng.choice(COLOURS)
            fill = jitter(rng, rng.choice(PALETTE[colour]))
            if colour != besides and distance(fill, self.back) >= 110:
                return colour, fill

    def frame(self, placed: list[tuple[_Thing, float, float]]) -> Scene:
        """One frame, with things at places in parts of the canvas."""
        scene = Scene(Image.new("RGB", self.size, self.back), "")
        canvas = ImageDraw.Draw(scene.image)
        for thing, across, down in placed:
            x, y, r = across * self.size[0], down * self.size[1], thing.radius
            draw_shape(canvas, thing.kind, x, y, r, thing.fill)
            scene.shapes.append(Shape(thing.kind, thing.colour, x, y, r, (x - r, y - r, x + r, y + r)))
        return scene


def _questions(kind: str, told: list[tuple[tuple[str, ...], str, int]], *order: int) -> tuple[Question, ...]:
    """One question for each wording; the number is that of the frame it is about, 0 for none.

    Answers with several parts, joined by "then", "from" or "to", have a frame of `order` for each.
    """
    found = []
    for texts, answer, frame in told:
        starts = [at.end() for at in re.finditer(r"^(?=An? )|, then|and then|(?<=turns) from| to(?= \w+\.$)", answer)]
        marks = tuple(zip(starts, map(Target, order), strict=True)) if len(starts) == len(order) > 1 else ()
        target = Target(frame) if frame else None
        found += [Question(kind, text, answer, target=target, marks=marks) for text in texts]
    return tuple(found)


def moving(rng: Random, count: int) -> Clip:
    """A shape that moves in one direction, now and then beside one that stays."""
    stage = _Stage(rng)
    thing = stage.thing(rng, [])
    other = stage.thing(rng, [thing]) if rng.random() < 0.4 else None
    way = rng.choice(list(_WAYS))
    start, end = _WAYS[way]
    free, rest = rng.uniform(0.25, 0.75), (rng.choice((0.2, 0.8)), rng.choice((0.2, 0.8)))
    if other:
        free = 0.75 if rest[1 if start[0] is not None else 0] < 0.5 else 0.25
    frames = []
    for index in range(count):
        part = index / (count - 1)
        across, down = (free if a is None or b is None else a + (b - a) * part for a, b in zip(start, end, strict=True))
        frames.append(stage.frame([(thing, across, down), *([(other, *rest)] if other else [])]))
    name = thing.name
    asked = [
        ((f"Where does the {name} move to?", f"Where does the {thing.kind} go?",
          f"In which direction does the {thing.kind} move?", f"Where does the {thing.kind} move?"), sentence(way), 0),
        (("What happens?", "What happens in the video?", "Describe the video."), f"The {name} moves {way}.", 0),
        (("What moves?", "Which shape moves?"), f"The {name}.", 0),
    ]  # fmt: skip
    return Clip(tuple(frames), _questions("movement", asked))


def appearing(rng: Random, count: int) -> Clip:
    """Two or three shapes that appear one after another."""
    stage, things = _Stage(rng), list[_Thing]()
    for _ in range(rng.choice((2, 2, 3))):
        things.append(stage.thing(rng, things))
    spots = rng.sample([(0.2, 0.28), (0.5, 0.28), (0.8, 0.28), (0.2, 0.74), (0.5, 0.74), (0.8, 0.74)], len(things))
    starts = [0, *sorted(rng.sample(range(1, count), len(things) - 1))]
    frames = [
        stage.frame(
            [(t, *spot) for t, spot, at in zip(things, spots, starts, strict=True) if at <= index]
        )
        for index in range(count)
    ]  # fmt: skip
    names = [article(thing.name) for thing in things]
    order = f"{names[0]}, then {' and then '.join(names[1:])}"
    asked = [
        (("What comes first?", "What appears first?", "Which shape comes first?"), sentence(names[0]), 1),
        (("What comes last?", "What appears last?", "Which shape comes last?"), sentence(names[-1]), starts[-1] + 1),
        (("What happens first?",), sentence(f"{names[0]} appears"), 1),
        (("What happens last?",), sentence(f"{names[-1]} appears"), starts[-1] + 1),
        (("In which order do they appear?", "In which order do the shapes come?", "What happens?",
          "What happens in the video?"), sentence(order), 0),
    ]  # fmt: skip
    for thing, at in list(zip(things, starts, strict=True))[1:]:
        asked.append(((f"In which frame does the {thing.name} appear?", f"When does the {thing.kind} appear?"),
                      f"Frame{at + 1}.", at + 1))  # fmt: skip
    if len(names) == 3:
        asked.append(((f"What comes after the {things[0].name}?",), sentence(names[1]), starts[1] + 1))
    return Clip(tuple(frames), _questions("order", asked, *(start + 1 for start in starts)))


def changing(rng: Random, count: int) -> Clip:
    """A shape that changes its colour once."""
    stage = _Stage(rng)
    thing = stage.thing(rng, [])
    colour, fill = stage.fill(rng, thing.colour)
    after = _Thing(thing.kind, colour, fill, thing.radius)
    at, spot = rng.randint(1, count - 1), (rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75))
    frames = [stage.frame([(after if index >= at else thing, *spot)]) for index in range(count)]
    kind = thing.kind
    asked = [
        ((f"What colour is the {kind} at first?", f"What colour is the {kind} in the first frame?",
          f"What colour is the {kind} at the beginning?"), sentence(thing.colour), 1),
        ((f"What colour is the {kind} at last?", f"What colour is the {kind} in the last frame?",
          f"What colour does the {kind} become?", f"What colour is the {kind} at the end?"), sentence(colour), count),
        (("What happens?", "What happens in the video?", "Describe the video."),
         f"The {kind} turns from {thing.colour} to {colour}.", 0),
        (("In which frame does the colour change?",), f"Frame{at + 1}.", at + 1),
    ]  # fmt: skip
    return Clip(tuple(frames), _questions("change", asked, 1, at + 1))


def slides(rng: Random, count: int) -> Clip:
    """Another shape or printed line on each frame."""
    stage = _Stage(rng)
    things: list[_Thing] = []
    frames, told, read = [], [], []
    for _ in range(count):
        if rng.random() < 0.5 or len(things) > 3:
            scene = stage.frame([])
            text = random_text(rng)
            if not add_text(scene, rng, text, 0.2, 0.5, centred=0.7):
                continue
            told.append(f"the {'number' if text.isdigit() else 'word'} {text}")
            read.append(text)
        else:
            thing = stage.thing(rng, [])
            things.append(thing)
            scene = stage.frame([(thing, rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7))])
            told.append(article(thing.name))
            read.append("")
        frames.append(scene)
    asked = [
        (("What comes first?", "What is in the first frame?", "What is in Frame1?"), sentence(told[0]), 1),
        (("What comes last?", "What is in the last frame?"), sentence(told[-1]), len(told)),
    ]
    for index, (what, text) in enumerate(zip(told, read, strict=True)):
        asked.append(
            ((f"What is in Frame{index + 1}?", f"What is in the {ORDINALS[index]} frame?"), sentence(what), index + 1)
        )
        if text:
            noun = "number" if text.isdigit() else "word"
            asked.append(((f"What {noun} is written in the {ORDINALS[index]} frame?",
                           f"What {noun} is written in Frame{index + 1}?"), text, index + 1))  # fmt: skip
        if told.count(what) == 1 and index < len(told) - 1:
            bare = what.split(" ", 1)[1]
            asked.append(((f"What comes after the {bare}?",), sentence(told[index + 1]), index + 2))
        if told.count(what) == 1:
            asked.append(((f"In which frame is {what}?",), f"Frame{index + 1}.", index + 1))
    return Clip(tuple(frames), _questions("slides", asked))


def random_clip(rng: Random, count: int) -> Clip:
    """A clip of `count` frames (fewer where a printed line found no room)."""
    return rng.choices((moving, appearing, changing, slides), weights=(3, 4, 2, 3))[0](rng, count)
