"""Choices: the question ends with `Answer with one of these: red, blue, green`, and the answer is exactly one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from training.questions import PLACES, UNKNOWN
from training.scenes import COLOURS, SHAPES

if TYPE_CHECKING:
    from random import Random

    from training.questions import Question

ENDING = "\n\nAnswer with one of these: {}"
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
_FAMILIES: tuple[tuple[str, ...], ...] = (COLOURS, SHAPES, tuple(PLACES.values()), ("yes", "no"), _NUMBERS)


def with_choices(question: Question, rng: Random) -> Question | None:
    """The question with two to six choices behind it, the right one among them; None where it has no such answer."""
    bare = question.answer.rstrip(".")
    if question.answer == UNKNOWN:
        return None
    lower = bare[:1].lower() + bare[1:]
    core = lower.split(" ", 1)[1] if lower.startswith(("a ", "an ")) else lower
    if question.kind == "reading":
        others = [_changed(bare, rng) for _ in range(rng.randint(1, 3))]
        return _asked(question, [bare, *others], bare, rng)
    if core in _NUMBERS and rng.random() < 0.5:
        digits = [str(number) for number in range(7)]
        return _asked(question, _some(digits, str(_NUMBERS.index(core)), rng), str(_NUMBERS.index(core)), rng)
    for family in _FAMILIES:
        if core in family:
            options = _some(family, core, rng)
            if rng.random() < 0.25:
                options, core = [_capital(option) for option in options], _capital(core)
            return _asked(question, options, core, rng)
    return None


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _some(family: tuple[str, ...] | list[str], right: str, rng: Random) -> list[str]:
    others = [option for option in family if option != right]
    return [right, *rng.sample(others, min(len(others), rng.randint(1, 5)))]


def _changed(text: str, rng: Random) -> str:
    """Another number or word of the same length."""
    at = rng.randrange(len(text))
    letters = "123456789" if text.isdigit() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return text[:at] + rng.choice(letters.replace(text[at], "")) + text[at + 1 :]


def _asked(question: Question, options: list[str], right: str, rng: Random) -> Question:
    options = list(dict.fromkeys(options))
    rng.shuffle(options)
    text = question.text + ENDING.format(", ".join(options))
    return replace(question, kind="choices", text=text, answer=right, marks=())
