"""Lessons without a picture that teach to copy: what was said is repeated, and forms are filled from facts in the text.

Keys of a schema, names in a question and results of tools are all copied from the prompt. A model that never had to
copy learns it slowly from these, where one token in ten depends on it, and fast from lessons where nearly all do.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from training.forms import FORM, Member, schema_text, value_of
from training.questions import Question
from training.scenes import COLOURS, PLACE_COLUMNS, PLACE_ROWS, SHAPES
from training.tools import RESPONSE_WORDS
from training.words import TRAIN_WORDS, random_letters, random_number

if TYPE_CHECKING:
    from random import Random

KEYS = (
    "shape", "kind", "form", "figure", "type", "name", "colour", "color", "place", "position", "where", "side",
    "column", "row", "count", "how_many", "shapes", "objects", "circles", "squares", "stars", "triangles", "diamonds",
    "writing", "has_text", "text", "word", "number", "printed", "label", "background", "shop", "merchant", "store",
    "price", "amount", "cost", "total", "sum", "item", "product", "circle", "square", "star", "red", "blue", "green",
    "digits", "height",
)  # fmt: skip


def _value(rng: Random) -> Any:
    """A short value of the drawn world."""
    draw = rng.random()
    if draw < 0.25:
        return rng.choice(COLOURS)
    if draw < 0.45:
        return rng.choice(SHAPES)
    if draw < 0.6:
        return rng.choice((*PLACE_COLUMNS, *PLACE_ROWS))
    if draw < 0.75:
        return int(random_number(rng))
    return rng.choice(TRAIN_WORDS) if rng.random() < 0.5 else random_letters(rng)


def ask_repeat(rng: Random) -> Question:
    """Words, names and numbers in any order, to be said again."""
    parts = []
    for _ in range(rng.randint(2, 14)):
        draw = rng.random()
        value = str(_value(rng)) if draw < 0.6 else rng.choice(KEYS if draw < 0.85 else RESPONSE_WORDS)
        parts.append(f'"{value}"' if rng.random() < 0.2 else value)
    told = rng.choice((" ", ", ")).join(parts)
    return Question("repeat", f"{rng.choice(('Repeat', 'Say again', 'Copy'))}: {told}", told)


def ask_told_form(rng: Random) -> Question:
    """A form filled from facts that the question tells, in the schema's order or another."""
    keys = rng.sample(KEYS, rng.randint(1, 5))
    if rng.random() < 0.4:
        keys = [f"{key}_{rng.choice(KEYS)}" if rng.random() < 0.3 else key for key in keys]
    members = []
    for key in dict.fromkeys(keys):
        value = _value(rng)
        members.append(Member(key, "integer" if isinstance(value, int) else "string", value))
    facts = [f"{member.key} {member.value}" for member in members]
    if rng.random() < 0.5:
        rng.shuffle(facts)
    text = f"{', '.join(facts)}{FORM}{schema_text(tuple(members))}"
    return Question("told form", text, json.dumps(value_of(tuple(members))))


def ask_copy(rng: Random) -> Question:
    """Either of them."""
    return ask_repeat(rng) if rng.random() < 0.5 else ask_told_form(rng)
