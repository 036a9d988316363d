"""Boxes in InternVL's form: `<ref>red circle</ref><box>[[x1, y1, x2, y2]]</box>`, in thousandths of the picture.

The demo model tells edges in fiftieths of the picture: finer steps would be noise to a model that sees 144 pixels.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from training.questions import Question, in_order, name_of, name_of_line, unique
from training.scenes import COLOURS, EDGE_STEPS, SHAPES, Line, Scene, Shape, Target, target_of

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


def thousandths(target: Target) -> list[int]:
    """[x1, y1, x2, y2] in thousandths of the picture's width and height."""
    return [1000 // EDGE_STEPS * edge for edge in target.edges]


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
    target = target_of(scene, thing)
    answer = marked(label, [thousandths(target)])
    marks = ((answer.index("<box>"), target),)
    return Question(kind, text + where, answer, tags, target=target, marks=marks)


def ask_detection(scene: Scene, rng: Random, where: str = "") -> Question | None:
    """All things: one line for each kind of shape, its boxes in the order of a description, and the writing last."""
    groups: dict[str, list[Target]] = {}
    for shape in in_order(scene):
        groups.setdefault(shape.kind, []).append(target_of(scene, shape))
    for line in scene.lines:
        groups[name_of_line(line)] = [target_of(scene, line)]
    if not groups or sum(map(len, groups.values())) > 5:
        return None
    answer, marks = "", []
    for label, found in groups.items():
        answer += "\n" if answer else ""
        written = marked(label, list(map(thousandths, found)))
        starts = [at.start() for at in re.finditer(r"\[\d", written)]
        marks += [(len(answer), found[0]), (len(answer) + written.index("<box>"), found[0])]
        marks += [(len(answer) + start, target) for start, target in zip(starts[1:], found[1:], strict=True)]
        answer += written
    return Question("detection", rng.choice(DETECT) + where, answer, marks=tuple(marks))


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
