"""Several pictures in one conversation: which of them shows something, and any question about one of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from training.boxes import ask_box
from training.questions import (
    Question,
    article,
    ask_colour,
    ask_count,
    ask_description,
    ask_place,
    ask_presence,
    ask_reading,
    ask_shape,
    name_of,
)
from training.scenes import COLOURS, SHAPES, Scene, Target, random_canvas, shapes_scene, text_scene

if TYPE_CHECKING:
    from random import Random

ORDINALS = ("first", "second", "third", "fourth")
NUMBERS = ("One", "Two", "Three", "Four")
WHICH = (
    "Which picture shows {}?", "Which picture shows {}?", "In which picture is {}?", "Which picture has {}?",
    "Which image shows {}?", "In which image is {}?",
)  # fmt: skip
NONE_OF_THEM = "None of them."
_ASKERS = (ask_colour, ask_count, ask_place, ask_shape, ask_presence, ask_description)


def album(rng: Random, count: int) -> list[Scene]:
    """Simple pictures of one to three shapes, or a printed line."""
    scenes = []
    for _ in range(count):
        if rng.random() < 0.4:
            scenes.append(
                text_scene(rng, random_canvas(rng, 640), smallest=0.14, largest=0.6, shapes=rng.choice((0, 1)))
            )
        else:
            scenes.append(shapes_scene(rng, random_canvas(rng, 640), most=3, smallest=0.16, text=rng.random() < 0.15))
    return scenes


def features(scene: Scene) -> set[str]:
    """What the picture can be said to show: names, kinds and colours of shapes, and writing."""
    found = {name for shape in scene.shapes for name in (article(name_of(shape)), article(shape.kind))}
    found |= {article(f"{shape.colour} shape") for shape in scene.shapes}
    for line in scene.lines:
        what = "number" if line.text.isdigit() else "word"
        found |= {f"the {what} {line.text}", article(what), "writing", f"the {what} {line.text}"}
    return found


def ask_which(scenes: list[Scene], rng: Random) -> Question | None:
    """Which picture shows what only one of them shows (or none of them)."""
    text = rng.choice(WHICH)
    if rng.random() < 0.07:
        name = article(f"{rng.choice(COLOURS)} {rng.choice(SHAPES)}")
        if all(name not in features(scene) for scene in scenes):
            return Question("which picture", text.format(name), NONE_OF_THEM)
    all_features = [features(scene) for scene in scenes]
    index = rng.randrange(len(scenes))
    others = set().union(*(found for at, found in enumerate(all_features) if at != index))
    own = sorted(all_features[index] - others)
    if not own:
        return None
    answer = f"Image-{index + 1}." if "image" in text else f"The {ORDINALS[index]}."
    return Question("which picture", text.format(rng.choice(own)), answer, target=Target(index + 1))


def place_in_album(index: int, count: int, rng: Random) -> str:
    """For example "in the second picture", "in Image-2", "in the last picture"."""
    noun = rng.choice(("picture", "picture", "image"))
    ways = [f"in the {ORDINALS[index]} {noun}", f"in the {ORDINALS[index]} {noun}", f"in Image-{index + 1}"]
    if index == count - 1 and count > 1:
        ways.append(f"in the last {noun}")
    return rng.choice(ways)


def in_picture(question: Question, number: int) -> Question:
    """The question with its targets in the picture of this number."""
    target = replace(question.target or Target(), picture=number)
    marks = tuple((at, replace(mark, picture=number)) for at, mark in question.marks)
    return replace(question, target=target, marks=marks)


def about(question: Question, place: str, number: int) -> Question:
    """The question asked about one picture of several, which is put in words as `place`."""
    mark = question.text[-1] if question.text[-1] in "?." else ""
    text = re.sub(r" in (the|this) (picture|image)$", "", question.text.rstrip("?."))
    return in_picture(replace(question, kind="one of several", text=f"{text} {place}{mark}"), number)


def ask_about_one(scenes: list[Scene], rng: Random) -> Question | None:
    """A question about one of the pictures; a printed line is asked for where there is one."""
    index = rng.randrange(len(scenes))
    scene, place = scenes[index], place_in_album(index, len(scenes), rng)
    if rng.random() < 0.12:
        question = ask_box(scene, rng, f" {place}")
        if question is None:
            return None
        return in_picture(replace(question, kind="box of several"), index + 1)
    if scene.lines and rng.random() < 0.65:
        found: Question | None = ask_reading(scene, rng)
    elif not scene.shapes:
        return None
    else:
        found = rng.choice(_ASKERS)(scene, rng)
    if found is None:
        return None
    if re.search(r"(picture|image)( show| say)?( in detail| shortly)?[?.]$", found.text) and not re.search(
        r" in (the|this) (picture|image)[?.]$", found.text
    ):
        bare = {"reading": "What is written?", "absent": "What is written?", "descriptions": "What do you see?"}
        if found.kind not in bare:
            return None
        if found.kind == "absent" and scene.lines:
            return None
        found = replace(found, text=bare[found.kind])
    return about(found, place, index + 1)


def ask_how_many(scenes: list[Scene], rng: Random) -> Question:
    """How many pictures there are."""
    noun = rng.choice(("pictures", "images"))
    return Question("one of several", f"How many {noun} are there?", f"{NUMBERS[len(scenes) - 1]}.")


def ask_album(scenes: list[Scene], rng: Random) -> Question:
    """Any question about several pictures."""
    while True:
        draw = rng.random()
        if draw < 0.02:
            return ask_how_many(scenes, rng)
        question = ask_which(scenes, rng) if draw < 0.55 else ask_about_one(scenes, rng)
        if question is not None:
            return question


def ask_later(scenes: list[Scene], tiles: int, rng: Random) -> Question:
    """A question that brings the last of these pictures, about it or an earlier one."""
    while True:
        if rng.random() < 0.55:
            scene = scenes[-1]
            found = ask_reading(scene, rng) if scene.lines and rng.random() < 0.6 else None
            if found is None and scene.shapes:
                found = rng.choice(_ASKERS)(scene, rng)
            if found is not None:
                text = re.sub(r" in the (picture|image)", r" in this \1", found.text)
                return in_picture(replace(found, kind="later picture", text=text, tiles=(tiles,)), len(scenes))
        else:
            asked = ask_which(scenes, rng) if rng.random() < 0.4 else ask_about_one(scenes, rng)
            if asked is not None:
                return replace(asked, kind="later picture", tiles=(tiles,))
