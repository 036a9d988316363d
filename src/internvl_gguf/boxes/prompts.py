"""The prompts with which InternVL was taught to answer with boxes.

Source: "Grounding / Detection Data" of InternVL's chat data format.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from internvl_gguf.boxes.parse import GROUNDING_TOKENS, REF, REF_END
from internvl_gguf.utils import arguments

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
    given = [labels] if isinstance(labels, str) else list(arguments.items("labels", labels, "Give a list of texts."))
    if not given:
        raise arguments.wrong("labels", given, "Give at least one, or leave it out for all objects.")
    return _DETECT_LABELS + ", ".join(_referred("A label", label) for label in given) + "."


def locate_prompt(phrase: str) -> str:
    """Return the prompt that asks where something is.

    Args:
        phrase: what it is: "the lady with the blue shirt".

    Raises:
        InvalidRequestError: a phrase that is no text or empty, or has tags in it.
    """
    return _LOCATE_PROMPT + _referred("phrase", phrase)


def _referred(name: str, text: object) -> str:
    words = arguments.text(name, text).strip()
    if not words or any(tag in words for tag in GROUNDING_TOKENS):
        raise arguments.wrong(name, text, "Give words alone: the tags around them are added.")
    return f"{REF}{words}{REF_END}"
