"""Questions about a scene, each with the one answer the model is to give."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.phrases import (
    ABOUT_ITSELF,
    BACKGROUNDS,
    COLOUR_OF_TEXT,
    COLOURS_OF,
    COUNT,
    DESCRIBE,
    NO_PICTURE,
    OUTSIDE,
    PRESENCE,
    READ_ANY,
    READ_NUMBER,
    READ_WORD,
    SHAPE_OF,
    SINGLE,
    TEXT_PRESENCE,
    WHERE,
    WHERE_TEXT,
)  # fmt: skip
from training.scenes import COLOURS, SHAPES, Line, Scene, Shape, Target, place_of, spelling, target_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

UNKNOWN = "I cannot tell. I know shapes, colours, places, numbers and short words only."
NO_WRITING = "There is no writing."
COUNT_WORDS = ("None.", "One.", "Two.", "Three.", "Four.", "Five.", "Six.", "Seven.", "Eight.")
PLACES = {
    "top left": "at the top left", "top middle": "at the top", "top right": "at the top right",
    "middle left": "on the left", "middle": "in the middle", "middle right": "on the right",
    "bottom left": "at the bottom left", "bottom middle": "at the bottom", "bottom right": "at the bottom right",
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question, its answer, and the kind it is counted under.

    Attributes:
        marked: whether special tokens written in the text are meant as such; in an answer they always are.
        tiles: tiles of each picture that comes with this question, beyond those of the shared beginning.
        target: the one thing that it asks about, where there is one.
        marks: things that parts of the answer are about, each with the character before which its part begins.
        schema: the JSON schema whose form stands behind the question, where one does.
    """

    kind: str
    text: str
    answer: str
    marked: bool = False
    tiles: tuple[int, ...] = ()
    target: Target | None = None
    marks: tuple[tuple[int, Target], ...] = ()
    schema: dict[str, Any] | None = None


def article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sentence(text: str) -> str:
    """The text with a capital first and a full stop last."""
    return f"{text[0].upper()}{text[1:]}."


def name_of(shape: Shape) -> str:
    """For example "red circle"."""
    return f"{shape.colour} {shape.kind}"


def name_of_line(line: Line) -> str:
    """For example "the number 42" or "the word STOP"."""
    return f"the {'number' if line.text.isdigit() else 'word'} {line.text}"


def where(scene: Scene, thing: Shape | Line) -> str:
    """For example "at the top left"."""
    return PLACES[place_of(scene, thing.box)]


def in_order(scene: Scene) -> list[Shape]:
    """The shapes as a description tells them: by place, top to bottom and left to right."""
    order = list(PLACES)
    return sorted(scene.shapes, key=lambda shape: (order.index(place_of(scene, shape.box)), shape.x))


def description(scene: Scene) -> tuple[str, tuple[tuple[int, Target], ...]]:
    """Everything in the scene with its place, top to bottom and left to right, the writing last; and its marks."""
    things: list[Shape | Line] = [*in_order(scene), *scene.lines]
    told, marks = "", []
    for number, thing in enumerate(things):
        if number:
            told += "," if number < len(things) - 1 else " and"
        marks.append((len(told), target_of(scene, thing)))
        name = article(name_of(thing)) if isinstance(thing, Shape) else name_of_line(thing)
        told += f"{' ' if number else ''}{name}"
        if isinstance(thing, Line):
            begins = len(told) - len(thing.text)
            marks += [(begins + at, target) for at, target in spelling(scene, thing)]
        told += f" {where(scene, thing)}"
    return (sentence(told), tuple(marks)) if things else ("The picture is empty.", ())


def unique(scene: Scene, key: Callable[[Shape], str]) -> list[Shape]:
    counts = Counter(key(shape) for shape in scene.shapes)
    return [shape for shape in scene.shapes if counts[key(shape)] == 1]


def ask_count(scene: Scene, rng: Random) -> Question:
    """How many shapes of a kind, a colour, both, or at all."""
    draw = rng.random()
    kind, colour = rng.choice(SHAPES), rng.choice(COLOURS)
    if scene.shapes and rng.random() < 0.8:
        shape = rng.choice(scene.shapes)
        kind, colour = shape.kind, shape.colour
    if draw < 0.25:
        what, count = rng.choice(("shapes", "objects")), len(scene.shapes)
    elif draw < 0.65:
        what, count = f"{kind}s", sum(shape.kind == kind for shape in scene.shapes)
    elif draw < 0.85:
        what, count = f"{colour} shapes", sum(shape.colour == colour for shape in scene.shapes)
    else:
        what = f"{colour} {kind}s"
        count = sum((shape.kind, shape.colour) == (kind, colour) for shape in scene.shapes)
    return Question("counts", rng.choice(COUNT).format(what), COUNT_WORDS[count])


def ask_colour(scene: Scene, rng: Random) -> Question | None:
    """The colour of the only shape of its kind, of the writing, or of the background."""
    draw = rng.random()
    if draw < 0.1 and scene.background:
        return Question("colours", rng.choice(BACKGROUNDS), sentence(scene.background))
    if draw < 0.2 and scene.lines:
        noun = rng.choice(("writing", "text", "number" if scene.lines[0].text.isdigit() else "word"))
        line = scene.lines[0]
        text = rng.choice(COLOUR_OF_TEXT).format(noun)
        return Question("colours", text, sentence(line.colour), target=target_of(scene, line))
    single = unique(scene, lambda shape: shape.kind)
    if single:
        shape = rng.choice(single)
        text = rng.choice(COLOURS_OF).format(shape.kind)
        return Question("colours", text, sentence(shape.colour), target=target_of(scene, shape))
    missing = [kind for kind in SHAPES if all(shape.kind != kind for shape in scene.shapes)]
    if missing and rng.random() < 0.3:
        kind = rng.choice(missing)
        return Question("colours", rng.choice(COLOURS_OF).format(kind), f"There is no {kind}.")
    return None


def ask_shape(scene: Scene, rng: Random) -> Question | None:
    """Which shape has a colour or lies in a place, or what the only shape is."""
    if len(scene.shapes) == 1 and not scene.lines and rng.random() < 0.4:
        return Question("shapes", rng.choice(SINGLE), sentence(article(name_of(scene.shapes[0]))))
    by_colour = unique(scene, lambda shape: shape.colour)
    if by_colour and rng.random() < 0.6:
        shape = rng.choice(by_colour)
        text = rng.choice(SHAPE_OF).format(shape.colour)
        return Question("shapes", text, sentence(article(shape.kind)), target=target_of(scene, shape))
    taken = {where(scene, line) for line in scene.lines}
    by_place = [s for s in unique(scene, lambda shape: where(scene, shape)) if where(scene, s) not in taken]
    if not by_place:
        return None
    shape = rng.choice(by_place)
    text = rng.choice(("What is {}?", "What shape is {}?", "Which shape is {}?")).format(where(scene, shape))
    return Question("shapes", text, sentence(article(name_of(shape))), target=target_of(scene, shape))


def ask_place(scene: Scene, rng: Random) -> Question | None:
    """Where the only shape of its name (or of its kind) is, or where the writing is."""
    if scene.lines and rng.random() < 0.2:
        noun = rng.choice(("writing", "text", "number" if scene.lines[0].text.isdigit() else "word"))
        line = scene.lines[0]
        text = rng.choice(WHERE_TEXT).format(noun)
        return Question("places", text, sentence(where(scene, line)), target=target_of(scene, line))
    by_kind = rng.random() < 0.4
    key: Callable[[Shape], str] = (lambda shape: shape.kind) if by_kind else name_of
    single = unique(scene, key)
    if single and rng.random() < 0.9:
        shape = rng.choice(single)
        text = rng.choice(WHERE).format(key(shape))
        return Question("places", text, sentence(where(scene, shape)), target=target_of(scene, shape))
    name = f"{rng.choice(COLOURS)} {rng.choice(SHAPES)}"
    if any(name_of(shape) == name for shape in scene.shapes):
        return None
    return Question("places", rng.choice(WHERE).format(name), f"There is no {name}.")


def ask_presence(scene: Scene, rng: Random) -> Question:
    """Yes or no: is there a shape of this kind, colour or both; is there any writing."""
    if rng.random() < 0.2:
        noun, wanted = rng.choice(TEXT_PRESENCE)
        held = any(wanted in ("any", "number" if line.text.isdigit() else "word") for line in scene.lines)
        return Question("presence", noun, "Yes." if held else "No.")
    kind, colour = rng.choice(SHAPES), rng.choice(COLOURS)
    if scene.shapes:
        shape = rng.choice(scene.shapes)
        kind, colour = (
            (shape.kind, shape.colour)
            if rng.random() < 0.5
            else rng.choice(((kind, shape.colour), (shape.kind, colour)))
        )
    form = rng.choice(("kind", "colour", "both", "both"))
    what = {"kind": kind, "colour": f"{colour} shape", "both": f"{colour} {kind}"}[form]
    held = any(
        (form == "colour" or shape.kind == kind) and (form == "kind" or shape.colour == colour)
        for shape in scene.shapes
    )
    return Question("presence", rng.choice(PRESENCE).format(article(what)), "Yes." if held else "No.")


def ask_reading(scene: Scene, rng: Random) -> Question:
    """What is printed; or that nothing, or no number, or no word is."""
    if not scene.lines:
        return Question("absent", rng.choice((*READ_ANY, *READ_NUMBER, *READ_WORD)), NO_WRITING)
    text = scene.lines[0].text
    own, other = (READ_NUMBER, READ_WORD) if text.isdigit() else (READ_WORD, READ_NUMBER)
    draw = rng.random()
    if draw < 0.06:
        return Question("absent", rng.choice(other), f"There is no {'word' if text.isdigit() else 'number'}.")
    asked = rng.choice(own if draw < 0.55 else READ_ANY)
    line = scene.lines[0]
    return Question("reading", asked, text, target=target_of(scene, line), marks=spelling(scene, line))


def ask_description(scene: Scene, rng: Random) -> Question:
    """Everything at once."""
    told, marks = description(scene)
    return Question("descriptions", rng.choice(DESCRIBE), told, marks=marks)


def ask_outside(scene: Scene, rng: Random) -> Question:
    """Something the model cannot know."""
    return Question("outside", rng.choice(OUTSIDE), UNKNOWN)


def without_picture(rng: Random) -> Question:
    """A question of a conversation that holds no picture."""
    if rng.random() < 0.7:
        text, answer = rng.choice(ABOUT_ITSELF)
        return Question("text", text, answer)
    pool = (*READ_NUMBER, *READ_ANY, *DESCRIBE, *(phrase.format("circles") for phrase in COUNT))
    return Question("text", rng.choice(pool), NO_PICTURE)


_ASKERS: tuple[tuple[Callable[[Scene, Random], Question | None], int, int], ...] = (
    # asker, weight where there are shapes, weight where there is writing
    (ask_count, 8, 0), (ask_colour, 3, 1), (ask_shape, 3, 0), (ask_place, 4, 1), (ask_presence, 1, 1),
    (ask_reading, 2, 12), (ask_description, 2, 1),
)  # fmt: skip


def loosely(text: str, rng: Random) -> str:
    """The question as people type it: now and then without its capital, its mark, or with a word before it."""
    draw = rng.random()
    if draw < 0.08:
        return text[0].lower() + text[1:].rstrip("?.")
    if draw < 0.14:
        return text.rstrip("?.")
    if draw < 0.18:
        return text[0].lower() + text[1:]
    if draw < 0.2:
        return f"Please: {text[0].lower()}{text[1:]}"
    return text


def random_question(scene: Scene, rng: Random) -> Question:
    """Any question that this scene answers."""
    if rng.random() < 0.015:
        return ask_outside(scene, rng)
    weights = [
        shapes * bool(scene.shapes) + writing * bool(scene.lines) + (not scene.shapes and not scene.lines)
        for _, shapes, writing in _ASKERS
    ]
    while True:
        asker = rng.choices(_ASKERS, weights=weights)[0][0]
        question = asker(scene, rng)
        if question is not None:
            return question
