"""JSON to a schema in the prompt: keys and types are drawn, the values are what the scene holds.

The runtime writes the schema behind the question as `FORM` and `schema_text` do, and the answer is one line of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from training.questions import Question, in_order
from training.scenes import (
    COLOURS,
    PLACE_COLUMNS,
    PLACE_ROWS,
    SHAPES,
    Line,
    Scene,
    Shape,
    Target,
    place_of,
    spelling,
    target_of,
)

if TYPE_CHECKING:
    from random import Random

FORM = "\n\nAnswer with JSON of this form:\n"
ASKED = (
    "What is in the picture?", "Describe the picture.", "What do you see?", "Describe the image.", "Read the picture.",
    "Fill in the form.",
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A key of an object: its type as the prompt shows it (or the members of an object), and its value.

    Attributes:
        key: as written.
        type: for example "string", "integer", '"left" | "right"', "[string]"; or a tuple of members, an object.
        value: what the answer has; ABSENT leaves the key out.
        listed: an array of objects, each of the members of `type`; `value` then holds the objects.
        note: a description, "" for none.
        optional: whether the key may be left out.
    """

    key: str
    type: str | tuple[Member, ...]
    value: Any = None
    listed: bool = False
    note: str = ""
    optional: bool = False


ABSENT = object()


@dataclass(frozen=True)
class Leaf:
    """A value that one thing of the picture gives.

    Attributes:
        value: as JSON has it.
        target: where the thing lies.
        written: the value's JSON, where it is to be written in another way than Python's, as "3.50" is.
        spelled: where characters of the value lie, with their index.
    """

    value: Any
    target: Target
    written: str = ""
    spelled: tuple[tuple[int, Target], ...] = ()


def read_leaf(scene: Scene, line: Line, value: Any, written: str = "") -> Leaf:
    """A value that is printed."""
    return Leaf(value, target_of(scene, line), written, spelling(scene, line))


def json_text(value: Any) -> tuple[str, tuple[tuple[int, Target], ...]]:
    """One line of JSON, and where in it the values of things begin."""
    if isinstance(value, Leaf):
        quote = int(isinstance(value.value, str))
        letters = tuple((at + quote, target) for at, target in value.spelled)
        return value.written or json.dumps(value.value), ((0, value.target), *letters)
    if not isinstance(value, dict | list):
        return json.dumps(value), ()
    text, marks = "[{"[isinstance(value, dict)], []
    for number, entry in enumerate(value):
        text += "," if number else ""
        if isinstance(value, dict):
            text += f"{' ' if number else ''}{json.dumps(entry)}:"
        gap = " " if isinstance(value, dict) or number else ""
        inner, found = json_text(value[entry] if isinstance(value, dict) else entry)
        marks += [(len(text) + (at and at + len(gap)), target) for at, target in found]
        text += gap + inner
    return text + "]}"[isinstance(value, dict)], tuple(marks)


def schema_text(members: tuple[Member, ...], indent: str = "") -> str:
    """The schema as it stands in the prompt."""
    lines = ["{"]
    for index, member in enumerate(members):
        deeper = indent + "  "
        key = f'{deeper}"{member.key}"{"?" if member.optional else ""}: '
        comma = "," if index < len(members) - 1 else ""
        note = f" // {member.note}" if member.note else ""
        if isinstance(member.type, str):
            lines.append(key + member.type + comma + note)
        elif member.listed:
            lines += [f"{key}[{note}", f"{deeper}  {schema_text(member.type, deeper + '  ')}", f"{deeper}]{comma}"]
        else:
            opened, *rest = schema_text(member.type, deeper).split("\n")
            lines += [key + opened + note, *rest[:-1], rest[-1] + comma]
    return "\n".join([*lines, indent + "}"])


def json_schema(members: tuple[Member, ...]) -> dict[str, Any]:
    """The JSON schema that the runtime writes into the prompt as `schema_text` does."""
    properties = {member.key: _type_schema(member) for member in members}
    required = [member.key for member in members if not member.optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _type_schema(member: Member) -> dict[str, Any]:
    if not isinstance(member.type, str):
        inner = json_schema(member.type)
        found: dict[str, Any] = {"type": "array", "items": inner} if member.listed else inner
    elif member.type.startswith('"'):
        found = {"enum": [json.loads(option) for option in member.type.split(" | ")]}
    elif member.type.startswith("["):
        found = {"type": "array", "items": {"type": member.type.strip("[]")}}
    else:
        names = member.type.split(" | ")
        found = {"type": names if len(names) > 1 else names[0]}
    return {**found, "description": member.note} if member.note else found


def value_of(members: tuple[Member, ...]) -> dict[str, Any]:
    """The object that the answer gives."""
    found: dict[str, Any] = {}
    for member in members:
        if member.value is ABSENT:
            continue
        nested = not isinstance(member.type, str) and not member.listed
        found[member.key] = value_of(member.type) if nested else member.value  # type: ignore[arg-type]
    return found


def form_question(kind: str, asked: str, members: tuple[Member, ...]) -> Question:
    """The question with its schema, and the answer as one line of JSON."""
    answer, marks = json_text(value_of(members))
    return Question(kind, asked + FORM + schema_text(members), answer, marks=marks, schema=json_schema(members))


def enumeration(options: tuple[str, ...], value: str, rng: Random, least: int = 2) -> str:
    """Choices that hold the value, in any order."""
    others = [option for option in options if option != value]
    chosen = [value, *rng.sample(others, rng.randint(least - 1, len(others)))]
    rng.shuffle(chosen)
    return " | ".join(f'"{option}"' for option in chosen)


def _kind(shape: Shape, rng: Random) -> Member:
    key = rng.choice(("shape", "shape", "kind", "form", "figure", "type", "name"))
    listed = enumeration(SHAPES, shape.kind, rng) if rng.random() < 0.2 else "string"
    return Member(key, listed, shape.kind, note=rng.choice(("", "", "", "", "what shape it is")))


def _colour(colour: str, rng: Random) -> Member:
    key = rng.choice(("colour", "color"))
    return Member(key, enumeration(COLOURS, colour, rng) if rng.random() < 0.2 else "string", colour)


def _place(place: str, rng: Random) -> Member:
    """The place, as a whole or only across or down."""
    row = place.split(" ")[0]
    column = place.split(" ")[-1]
    draw = rng.random()
    if draw < 0.4:
        return Member(rng.choice(("place", "position", "where")), "string", place)
    if draw < 0.75:
        key = rng.choice(("place", "position", "side", "where", "column", "horizontal"))
        return Member(key, enumeration(PLACE_COLUMNS, column, rng, 3), column)
    return Member(
        rng.choice(("place", "position", "row", "height", "vertical")), enumeration(PLACE_ROWS, row, rng, 3), row
    )


def _shape_members(scene: Scene, shape: Shape, rng: Random) -> tuple[Member, ...]:
    return (_kind(shape, rng), _colour(shape.colour, rng), _place(place_of(scene, shape.box), rng))


def _count(scene: Scene, rng: Random) -> Member:
    """How many shapes: all, of a kind or of a colour."""
    draw = rng.random()
    if draw < 0.4:
        key = rng.choice(("count", "count", "how_many", "number_of_shapes", "shapes", "objects"))
        note = rng.choice(("", "", "how many shapes there are"))
        return Member(key, "integer", len(scene.shapes), note=note)
    if draw < 0.75:
        kind = rng.choice(scene.shapes).kind if scene.shapes and rng.random() < 0.6 else rng.choice(SHAPES)
        key = rng.choice((f"{kind}s", f"{kind}s", f"how_many_{kind}s", f"{kind}_count"))
        return Member(key, "integer", sum(shape.kind == kind for shape in scene.shapes))
    colour = rng.choice(scene.shapes).colour if scene.shapes and rng.random() < 0.6 else rng.choice(COLOURS)
    return Member(f"{colour}_shapes", "integer", sum(shape.colour == colour for shape in scene.shapes))


def _presence(scene: Scene, rng: Random) -> Member:
    """Whether there is a kind, a colour or writing."""
    draw = rng.random()
    if draw < 0.3:
        key = rng.choice(("writing", "has_text", "has_writing", "text", "any_text"))
        return Member(key, "boolean", bool(scene.lines))
    kind = rng.choice(scene.shapes).kind if scene.shapes and rng.random() < 0.5 else rng.choice(SHAPES)
    if draw < 0.75:
        key = rng.choice((kind, f"has_{kind}", f"is_there_a_{kind}"))
        return Member(key, "boolean", any(shape.kind == kind for shape in scene.shapes))
    colour = rng.choice(scene.shapes).colour if scene.shapes and rng.random() < 0.5 else rng.choice(COLOURS)
    key = rng.choice((colour, f"has_{colour}", f"any_{colour}"))
    return Member(key, "boolean", any(shape.colour == colour for shape in scene.shapes))


def _writing(scene: Scene, rng: Random) -> Member:
    """What is written; null, or left out, where nothing of that is."""
    text = scene.lines[0].text if scene.lines else None
    draw = rng.random()
    if draw < 0.34:
        key, asked, found = rng.choice(("word", "word", "word_written")), "string", text
        found = None if text is None or text.isdigit() else text
    elif draw < 0.67:
        key, asked = rng.choice(("number", "number", "number_written", "digits")), rng.choice(("integer", "string"))
        found = text if text is not None and text.isdigit() else None
    else:
        key, asked, found = rng.choice(("text", "writing", "text_written", "printed", "label")), "string", text
    if found is None:
        if rng.random() < 0.4:
            return Member(key, asked, ABSENT, optional=True)
        return Member(key, f"{asked} | null", None)
    value = read_leaf(scene, scene.lines[0], int(found) if asked == "integer" else found)
    if rng.random() < 0.2:
        return Member(key, asked, value, optional=True)
    return Member(key, asked if rng.random() < 0.5 else f"{asked} | null", value)


def _colours(scene: Scene, rng: Random) -> Member:
    """All colours of the shapes, or all kinds, each once, in the order of a description."""
    by_colour = rng.random() < 0.65
    keys = ("colours", "colors", "colours", "all_colours") if by_colour else ("shapes", "kinds", "forms", "shapes")
    first: dict[str, Leaf] = {}
    for shape in in_order(scene):
        value = shape.colour if by_colour else shape.kind
        first.setdefault(value, Leaf(value, target_of(scene, shape)))
    return Member(rng.choice(keys), "[string]", list(first.values()))


def _objects(scene: Scene, rng: Random) -> Member:
    """One object for each shape."""
    members = list(_shape_members(scene, scene.shapes[0], rng))
    rng.shuffle(members)
    types = tuple(members[: rng.choice((1, 2, 2, 2, 3))])
    found = []
    for shape in in_order(scene):
        place = place_of(scene, shape.box)
        values = {}
        for member in types:
            if member.value == scene.shapes[0].kind:
                values[member.key] = shape.kind
            elif member.value == scene.shapes[0].colour:
                values[member.key] = shape.colour
            elif '"middle"' not in str(member.type):
                values[member.key] = place
            else:
                values[member.key] = place.split(" ")[-1 if '"left"' in str(member.type) else 0]
        target = target_of(scene, shape)
        found.append({key: Leaf(value, target) for key, value in values.items()})
    kept = tuple(Member(member.key, "string" if " | " in str(member.type) and "middle" not in str(member.type) else
                        member.type) for member in types)  # fmt: skip
    return Member(rng.choice(("shapes", "objects", "items", "things")), kept, found, listed=True)


def _background(scene: Scene, rng: Random) -> Member | None:
    if not scene.background:
        return None
    if rng.random() < 0.5:
        return Member("background", "string", scene.background)
    return Member("background", (_colour(scene.background, rng),))


def _line(scene: Scene, rng: Random) -> Member | None:
    """The writing as an object of its own."""
    if not scene.lines:
        return None
    line = scene.lines[0]
    members = [Member("text", "string", line.text), _place(place_of(scene, line.box), rng)]
    if rng.random() < 0.4:
        members.append(_colour(line.colour, rng))
    rng.shuffle(members)
    chosen = [
        replace(member, value=read_leaf(scene, line, line.text)) if member.key == "text" else member
        for member in _told_of(members[: rng.choice((1, 2, 2, 3))], target_of(scene, line))
    ]
    return Member(rng.choice(("writing", "line", "print")), tuple(chosen))


def _told_of(members: list[Member], target: Target) -> list[Member]:
    """The members with values that one thing gives."""
    return [replace(member, value=Leaf(member.value, target)) for member in members]


def _one_shape(scene: Scene, rng: Random) -> list[Member]:
    """Members about the only shape: side by side, or in an object of their own."""
    members = list(_shape_members(scene, scene.shapes[0], rng))
    rng.shuffle(members)
    chosen = _told_of(members[: rng.choice((1, 2, 2, 3))], target_of(scene, scene.shapes[0]))
    if rng.random() < 0.25:
        keys = [key for key in ("object", "thing", "shape") if all(key != member.key for member in chosen)]
        return [Member(rng.choice(keys), tuple(chosen))]
    return chosen


_MAKERS: tuple[tuple[Callable[[Scene, Random], Member | None], float], ...] = (
    (_count, 1.3), (_presence, 1.0), (_writing, 1.2), (_background, 0.4), (_line, 0.5),
)  # fmt: skip


def form_members(scene: Scene, rng: Random) -> tuple[Member, ...]:
    """One to five members that this scene gives values for, no key twice."""
    members: list[Member] = []
    if len(scene.shapes) == 1 and rng.random() < 0.75:
        members += _one_shape(scene, rng)
    elif len(scene.shapes) > 1 and rng.random() < 0.5:
        members.append(_objects(scene, rng) if len(scene.shapes) < 4 and rng.random() < 0.5 else _colours(scene, rng))
    makers, weights = zip(*_MAKERS, strict=True)
    wanted = len(members) + rng.choice((0, 1, 1, 2, 2, 3)) or 1
    while len(members) < wanted:
        made = rng.choices(makers, weights=weights)[0](scene, rng)
        if made is not None:
            members.append(made)
    rng.shuffle(members)
    return tuple({member.key: member for member in members}.values())


def ask_form(scene: Scene, rng: Random) -> Question:
    """A form about the scene, to be filled in."""
    return form_question("json", rng.choice(ASKED), form_members(scene, rng))
