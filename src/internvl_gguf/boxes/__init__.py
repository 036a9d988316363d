"""Boxes that answers name: read from the text, drawn over the picture, exported.

parse          the text of an answer to boxes
corners        four numbers to the corners of a box, mended
which_picture  the picture that a box lies in
given          arguments of these, checked
draw           boxes over a picture
label_places   where labels stand so that they hide little
save           files of drawn boxes, and of COCO's JSON
export         COCO's JSON, and arrays for supervision
prompts        the published prompts that ask for boxes
grammar        the grammar of an answer that consists of boxes

Names are imported on first use: reading boxes needs neither Pillow nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from internvl_gguf.boxes.draw import draw_boxes
    from internvl_gguf.boxes.export import to_arrays, to_coco
    from internvl_gguf.boxes.grammar import box_format, box_grammar
    from internvl_gguf.boxes.parse import BoxReading, parse_boxes, read_boxes
    from internvl_gguf.boxes.prompts import DETECT_PROMPT, detect_prompt, locate_prompt
    from internvl_gguf.types import Box

__all__ = [
    "DETECT_PROMPT",
    "Box",
    "BoxReading",
    "box_format",
    "box_grammar",
    "detect_prompt",
    "draw_boxes",
    "locate_prompt",
    "parse_boxes",
    "read_boxes",
    "to_arrays",
    "to_coco",
]

_HOMES: Final = {
    "DETECT_PROMPT": "boxes.prompts",
    "Box": "types",
    "BoxReading": "boxes.parse",
    "box_format": "boxes.grammar",
    "box_grammar": "boxes.grammar",
    "detect_prompt": "boxes.prompts",
    "draw_boxes": "boxes.draw",
    "locate_prompt": "boxes.prompts",
    "parse_boxes": "boxes.parse",
    "read_boxes": "boxes.parse",
    "to_arrays": "boxes.export",
    "to_coco": "boxes.export",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"internvl_gguf.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
