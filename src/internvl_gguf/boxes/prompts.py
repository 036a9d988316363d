"""The prompts with which InternVL was taught to answer with boxes.

Source: "Grounding / Detection Data" of InternVL's chat data format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from internvl_gguf.boxes.parse import GROUNDING_TOKENS, REF, REF_END
from internvl_gguf.types import Box
from internvl_gguf.utils import arguments
from internvl_gguf.utils.safe_text import shortened

DETECT_PROMPT: Final = "Please detect and label all objects in the following image and mark their positions."
_LOCATE_PROMPT: Final = "Please provide the bounding box coordinate of the region this sentence describes: "
_DETECT_LABELS: Final = "Please detect and label these objects in the following image and mark their positions: "


def detect_prompt(labels: Iterable[str] | None = None) -> str:
    """Return the prompt that asks for all objects of a picture, or for those of some labels.

    Args:
        labels: what to look for; None for all. No prompt with labels is published; this one is as near as can be.

    Raises:
        InvalidRequestError: labels that are no list of texts, or have tags in them.
    """
    if labels is None:
        return DETECT_PROMPT
    return _DETECT_LABELS + ", ".join(f"{REF}{label}{REF_END}" for label in given_labels(labels)) + "."


def given_labels(labels: Iterable[str]) -> list[str]:
    """Return labels to look for, one or a list, without blanks around them. Raises as `detect_prompt`."""
    given = [labels] if isinstance(labels, str) else list(arguments.items("labels", labels, "Give a list of texts."))
    if not given:
        raise arguments.wrong("labels", given, "Give at least one, or leave it out for all objects.")
    return [_words("A label", label) for label in given]


def missed_labels(labels: Sequence[str], boxes: Iterable[Box]) -> tuple[str, ...]:
    """Return a line that names the labels looked for of which no box is; none where there are boxes of all.

    A box is of a label whose words stand in its own: "red car" is a car.
    """
    found = [box.label.casefold() for box in boxes]
    missed = [label for label in dict.fromkeys(labels) if not any(label.casefold() in each for each in found)]
    return (f"The answer has no box of {shortened(', '.join(missed), 200)}.",) if missed else ()


def locate_prompt(phrase: str) -> str:
    """Return the prompt that asks where something is.

    Args:
        phrase: what it is: "the lady with the blue shirt".

    Raises:
        InvalidRequestError: a phrase that is no text or empty, or has tags in it.
    """
    return f"{_LOCATE_PROMPT}{REF}{_words('phrase', phrase)}{REF_END}"


def _words(name: str, text: object) -> str:
    words = arguments.text(name, text).strip()
    if not words or any(tag in words for tag in GROUNDING_TOKENS):
        raise arguments.wrong(name, text, "Give words alone: the tags around them are added.")
    return words
