"""Boxes in InternVL's form: `<ref>red circle</ref><box>[[x1, y1, x2, y2]]</box>`, in thousandths of the picture.

The demo model tells edges in steps of ten thousandths: the units would be noise to a model that sees 144 pixels.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from training.questions import Question, in_order, name_of, name_of_line, unique
from training.scenes import COLOURS, SHAPES, Box, Line, Scene, Shape, extent

if TYPE_CHECKING:
    from random import Random

GROUND = (
    "Please provide the bounding box coordinate of the region this sentence describes: {}",
    "Please provide the bounding box coordinate of the region this sentence describes: {}",
    "Provide the bounding box of {}", "Give the box of {}", "Locate {}",
)  # fmt: skip
DETECT = (
    "Please detect and label all objects in the following image and mark their positions.",
    "Please detect and label all objects in the following image and mark their positions.",
    "Detect all objects.", "Mark all objects with boxes.",
)  # fmt: skip
STEP = 10


def box_of(thing: Shape | Line) -> Box:
    """The tight box, in canvas pixels."""
    return extent(thing) if isinstance(thing, Shape) else thing.box


def thousandths(scene: Scene, box: Box) -> list[int]:
    """[x1, y1, x2, y2] in thousandths of the picture's width and height, in steps of STEP."""
    across, down = scene.image.width, scene.image.height
    edges = (box[0] / across, box[1] / down, box[2] / across, box[3] / down)
    return [min(1000, max(0, STEP * round(1000 * edge / STEP))) for edge in edges]


def marked(label: str, boxes: list[list[int]]) -> str:
    """A label with its boxes."""
    return f"<ref>{label}</ref><box>{boxes}</box>"


def _asked(rng: Random, label: str, official: bool) -> tuple[str, bool]:
    """The question about a label, and whether its tags are special tokens rather than text that was typed."""
    tagged = f"<ref>{label}</ref>" if official or rng.random() < 0.75 else label
    text = GROUND[0] if official else rng.choice(GROUND)
    return text.format(tagged), tagged != label and rng.random() < 0.5


def ask_box(scene: Scene, rng: Random, where: str = "", official: bool = False) -> Question | None:
    """Where the only thing of its name lies; `where` is put behind, for example " in Image-2"."""
    if rng.random() < 0.05 and not official:
        name = f"{rng.choice(COLOURS)} {rng.choice(SHAPES)}"
        if all(name_of(shape) != name for shape in scene.shapes):
            text, tags = _asked(rng, name, official)
            return Question("boxes", text + where, f"There is no {name}.", tags)
    by_kind = rng.random() < 0.35
    single: list[tuple[str, Shape | Line]] = [
        (shape.kind if by_kind else name_of(shape), shape)
        for shape in unique(scene, (lambda shape: shape.kind) if by_kind else name_of)
    ]
    single += [(name_of_line(line), line) for line in scene.lines]
    if scene.lines and rng.random() < 0.3:
        line = scene.lines[0]
        single = [(rng.choice(("the number" if line.text.isdigit() else "the word", "the writing", "text")), line)]
    if not single:
        return None
    label, thing = rng.choice(single)
    text, tags = _asked(rng, label, official)
    kind = "boxes" if isinstance(thing, Shape) else "boxes of writing"
    return Question(kind, text + where, marked(label, [thousandths(scene, box_of(thing))]), tags)


def ask_detection(scene: Scene, rng: Random, where: str = "") -> Question | None:
    """All things: one line for each kind of shape, its boxes in the order of a description, and the writing last."""
    groups: dict[str, list[list[int]]] = {}
    for shape in in_order(scene):
        groups.setdefault(shape.kind, []).append(thousandths(scene, box_of(shape)))
    for line in scene.lines:
        groups[name_of_line(line)] = [thousandths(scene, box_of(line))]
    if not groups or sum(map(len, groups.values())) > 5:
        return None
    text = rng.choice(DETECT)
    return Question("detection", text + where, "\n".join(marked(label, boxes) for label, boxes in groups.items()))


def boxes_in(answer: str) -> list[tuple[str, list[int]]]:
    """Labels and boxes of an answer, one entry a box; what is not of the form is left out."""
    found = []
    for label, boxes in re.findall(r"<ref>(.*?)</ref><box>\[(.*?)\]</box>", answer, re.DOTALL):
        for box in re.findall(r"\[([^\[\]]*)\]", f"{boxes}" if boxes.startswith("[") else f"[{boxes}]"):
            numbers = re.findall(r"\d+", box)
            if len(numbers) == 4:
                found.append((label, [int(number) for number in numbers]))
    return found


def overlap(a: list[int], b: list[int]) -> float:
    """Intersection over union of two boxes."""
    across = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - across * down
    return across * down / both if both > 0 else 0.0
