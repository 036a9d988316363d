"""Pictures with questions of which the demo model is unsure, and wrong answers to them that are made up.

A case is drawn from its seed alone: what the model answered to it (`training.critic_answers`) needs the seed only.
Seeds lie apart from the exam's, and words are those of training.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from training.albums import ORDINALS, album, ask_about_one, ask_which
from training.choices import with_choices
from training.forms import ask_form
from training.lessons import lesson_scene
from training.questions import COUNT_WORDS, NO_WRITING, ask_count, ask_description, ask_reading, random_question
from training.receipts import ask_receipt, ask_receipt_form, random_receipt
from training.scenes import COLOURS, SHAPES, Scene, shapes_scene, text_scene

if TYPE_CHECKING:
    from training.questions import Question

FIRST_SEED = 40_000_000
KINDS = (("shapes", 0.46), ("writing", 0.17), ("small print", 0.13), ("receipt", 0.14), ("album", 0.1))
# Words that may stand for one another in a wrong answer.
_FAMILIES: tuple[tuple[str, ...], ...] = (
    COLOURS, SHAPES, ("top", "bottom", "left", "right", "middle"), tuple(word.rstrip(".") for word in COUNT_WORDS[:7]),
    tuple(word.rstrip(".").lower() for word in COUNT_WORDS[:7]), ("Yes", "No"), ("yes", "no"), ("true", "false"),
    ORDINALS,
)  # fmt: skip
_OTHERS = {word: [other for other in family if other != word] for family in _FAMILIES for word in family}
_SPOILABLE = re.compile(r"\b(" + "|".join(_OTHERS) + r"|(?:[A-Z]{2,}|\d+)(?:\.\d\d)?)\b")
_DIGITS, _CAPITALS = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Case:
    """Pictures, the most tiles of each, and questions about them."""

    scenes: tuple[Scene, ...]
    max_tiles: int
    questions: tuple[Question, ...]


def draw_case(seed: int) -> Case:
    """The case of a seed."""
    rng = Random(FIRST_SEED + seed)
    kind = rng.choices([name for name, _ in KINDS], weights=[weight for _, weight in KINDS])[0]
    most = 1
    if kind == "shapes":
        scenes = [shapes_scene(rng, text=rng.random() < 0.25)]
        asked = [ask_count(scenes[0], rng), ask_count(scenes[0], rng), ask_description(scenes[0], rng)]
        asked += [random_question(scenes[0], rng)]
        asked += [ask_form(scenes[0], rng)] if rng.random() < 0.6 else []
    elif kind == "writing":
        scenes = [text_scene(rng, smallest=0.11, largest=0.7, shapes=rng.choice((0, 0, 0, 2)))]
        asked = [ask_reading(scenes[0], rng), random_question(scenes[0], rng)]
        asked += [ask_form(scenes[0], rng)] if rng.random() < 0.4 else []
    elif kind == "small print":
        most = rng.choices((1, 4, 6, 12), weights=(1, 2, 2, 5))[0]
        scenes = [lesson_scene(rng, 12 if most == 1 else most, 1.0)]
        asked = [ask_reading(scenes[0], rng), random_question(scenes[0], rng)]
    elif kind == "receipt":
        most, receipt = rng.choice((1, 6, 6, 6)), random_receipt(rng)
        scenes = [receipt.scene]
        asked = [ask_receipt_form(receipt, rng), *(ask_receipt(receipt, rng) for _ in range(4))]
    else:
        scenes = album(rng, 3)
        made = [ask_which(scenes, rng), *(ask_about_one(scenes, rng) for _ in range(4))]
        asked = [question for question in made if question is not None and question.kind != "box of several"]
    chosen = [with_choices(question, rng) if rng.random() < 0.15 else None for question in asked]
    asked = [choice or question for choice, question in zip(chosen, asked, strict=True)]
    return Case(tuple(scenes), most, tuple({question.text: question for question in asked}.values()))


def spoiled(answer: str, rng: Random) -> str:
    """A wrong answer that looks like the right one: a word of its kind, a letter or a digit put for another."""
    found = list(_SPOILABLE.finditer(answer))
    if not found:
        return f"{rng.choice(_CAPITALS)}{rng.choice(_CAPITALS)}" if answer == NO_WRITING else NO_WRITING
    if len(found) > 2 and rng.random() < 0.15 and ", " in answer:
        parts = answer.split(", ")
        at = rng.randrange(len(parts) - 1)
        return ", ".join(parts[:at] + parts[at + 1 :]) if at else ", ".join([*parts[:2], *parts[1:]])
    match = rng.choice(found)
    word = match[0]
    changed = rng.choice(_near(word, _OTHERS[word], rng)) if word in _OTHERS else _misread(word, rng)
    return answer[: match.start()] + changed + answer[match.end() :]


def _near(word: str, others: list[str], rng: Random) -> list[str]:
    """Of counts mostly those off by one; of others all."""
    counts = [count.rstrip(".").lower() for count in COUNT_WORDS]
    if word.lower() not in counts or rng.random() < 0.2:
        return others
    at = counts.index(word.lower())
    return [other for other in others if abs(counts.index(other.lower()) - at) == 1] or others


def _misread(word: str, rng: Random) -> str:
    """The word or number with one character changed, left out, doubled, or two changed places."""
    at = rng.randrange(len(word))
    if word[at] == ".":
        at -= 1
    letters = _DIGITS if word[at].isdigit() else _CAPITALS
    draw = rng.random()
    if draw < 0.6 or len(word) < 2:
        return word[:at] + rng.choice(letters.replace(word[at], "")) + word[at + 1 :]
    if draw < 0.75 and "." not in word:
        return word[:at] + word[at + 1 :]
    if draw < 0.9:
        return word[: at + 1] + rng.choice(letters) + word[at + 1 :]
    swapped = word[:at] + word[at : at + 2][::-1] + word[at + 2 :]
    return swapped if swapped != word and "." not in word else word + rng.choice(letters)
