"""The grammar of an answer that consists of boxes, for llguidance."""

from __future__ import annotations

from typing import Final

from internvl_gguf.structured.answer_format import AnswerFormat
from internvl_gguf.utils import arguments

MAX_LABELS: Final = 100
"""Most labels of a constrained answer. What has no bound may never end: a small model repeats itself."""

MAX_BOXES: Final = 50
"""Most boxes of one label."""

LONGEST_LABEL: Final = 80
"""Most characters of a label."""


def box_grammar(max_labels: int = MAX_LABELS, max_boxes: int = MAX_BOXES) -> str:
    """Return the Lark grammar of `<ref>label</ref><box>[[x1, y1, x2, y2], ...]</box>`, one label a line.

    `<ref>`, `</ref>`, `<box>` and `</box>` are the control tokens of these names: the vocabulary must have them.
    Numbers are 0 to 1000 without leading zeros. Corners in the wrong order are in the language: no grammar compares.

    Args:
        max_labels: most lines, at least 1.
        max_boxes: most boxes of a line, at least 1.

    Raises:
        InvalidRequestError: a number that is none, or below 1.
    """
    for name, most in (("max_labels", max_labels), ("max_boxes", max_boxes)):
        if arguments.whole(name, most) < 1:
            raise arguments.wrong(name, most, "Give 1 or more.")
    lines, boxes = _repeated('"\\n" item', max_labels), _repeated('", " box', max_boxes)
    return rf"""start: item{lines}
item: <ref> LABEL </ref> <box> "[" box{boxes} "]" </box>
box: "[" NUMBER ", " NUMBER ", " NUMBER ", " NUMBER "]"
LABEL: /[^<>\[\]\x00-\x1f\x7f]{{1,{LONGEST_LABEL}}}/
NUMBER: /0|[1-9][0-9]{{0,2}}|1000/
"""


def box_format() -> AnswerFormat:
    """Return the form of an answer that consists of boxes; its value is the text, which `parse_boxes` reads."""
    return AnswerFormat("boxes", box_grammar(), "", str, lambda text: text or None)


def _repeated(what: str, most: int) -> str:
    """Return what may follow the first of several, `most` in all; llguidance knows no {0,0}."""
    return f" ({what}){{0,{most - 1}}}" if most > 1 else ""
