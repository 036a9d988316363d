"""Pictures for the demo model: shapes and printed text on a canvas, with everything in them known.

Needs Pillow and numpy only, so that tests draw held-out pictures with the same code. A scene is drawn at the size a
user's picture might have; the tiles are then cut by `internvl_gguf.tiling`, as they are when the model is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from PIL import Image, ImageDraw

from training.fonts import Face, faces, sized
from training.words import random_text

if TYPE_CHECKING:
    from random import Random

SHAPES = ("circle", "square", "triangle", "diamond", "star")
# Several true colours for each name; each is jittered when drawn.
PALETTE: dict[str, tuple[tuple[int, int, int], ...]] = {
    "red": ((255, 0, 0), (220, 38, 38), (200, 20, 30)),
    "orange": ((255, 165, 0), (255, 140, 0), (240, 130, 20)),
    "yellow": ((255, 255, 0), (250, 220, 30), (255, 215, 0)),
    "green": ((0, 128, 0), (0, 255, 0), (40, 160, 60), (34, 139, 34)),
    "blue": ((0, 0, 255), (40, 80, 220), (30, 144, 255), (0, 0, 160)),
    "purple": ((128, 0, 128), (140, 50, 180), (148, 0, 211)),
    "black": ((0, 0, 0), (25, 25, 25)),
    "white": ((255, 255, 255), (245, 245, 245)),
}
COLOURS = tuple(PALETTE)
CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COMMON_SIZES = (
    (640, 480), (640, 480), (400, 300), (400, 300), (800, 600), (500, 500), (512, 512), (320, 240), (1024, 768),
    (448, 448), (300, 300), (600, 400), (1280, 720), (480, 640), (224, 224), (256, 256), (300, 200), (200, 200),
)  # fmt: skip
EDGE_STEPS = 50  # in which edges of things are told: fiftieths of the picture
PLACE_ROWS = ("top", "middle", "bottom")
PLACE_COLUMNS = ("left", "middle", "right")
Box = tuple[float, float, float, float]
RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    """A filled shape, in canvas pixels: centre, and half its side (or its radius)."""

    kind: str
    colour: str
    x: float
    y: float
    radius: float
    box: Box


@dataclass(frozen=True)
class Glyph:
    """One printed character: its advance box across, the line's capitals up and down."""

    character: str
    box: Box


@dataclass(frozen=True)
class Line:
    """One printed line of capitals or digits."""

    text: str
    glyphs: tuple[Glyph, ...]
    cap_height: float
    box: Box
    ink: RGB

    @property
    def colour(self) -> str:
        """The name of the ink's colour."""
        return min(COLOURS, key=lambda name: min(distance(self.ink, tone) for tone in PALETTE[name]))


@dataclass
class Scene:
    """A drawn picture and what is in it.

    Attributes:
        image: the RGB canvas.
        background: a colour name, "grey", or "" where no one name is right.
        shapes: the shapes, none hidden by another thing.
        lines: the printed lines.
    """

    image: Image.Image
    background: str
    shapes: list[Shape] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    @property
    def boxes(self) -> list[Box]:
        """Boxes of everything in the scene, in canvas pixels."""
        return [*(shape.box for shape in self.shapes), *(line.box for line in self.lines)]

    @property
    def back(self) -> RGB:
        """The colour of the canvas in its corner, which nothing is drawn over."""
        return cast("RGB", self.image.getpixel((0, 0)))


@dataclass(frozen=True)
class Target:
    """Where the thing that a question is about lies; training's targets only, no answer tells it.

    Attributes:
        picture: its number, from 1.
        edges: left, top, right, bottom in fiftieths of the picture; empty where the question has no one thing.
    """

    picture: int = 1
    edges: tuple[int, ...] = ()


def target_of(scene: Scene, thing: Shape | Line | Glyph) -> Target:
    """The target of a question about a shape, a printed line or a character."""
    box = extent(thing) if isinstance(thing, Shape) else thing.box
    across, down = scene.image.width, scene.image.height
    edges = (box[0] / across, box[1] / down, box[2] / across, box[3] / down)
    return Target(1, tuple(min(EDGE_STEPS, max(0, round(EDGE_STEPS * edge))) for edge in edges))


def spelling(scene: Scene, line: Line) -> tuple[tuple[int, Target], ...]:
    """Where each character but the first lies, with its index in the line's text: reading is pointing."""
    known = [at for at, character in enumerate(line.text) if character in CHARACTERS]
    return tuple((at, target_of(scene, glyph)) for at, glyph in zip(known, line.glyphs, strict=True) if at)


def place_of(scene: Scene, box: Box) -> str:
    """Which of the nine places of the canvas holds the box's centre, for example "top left" or "middle"."""
    column = min(2, int(3 * (box[0] + box[2]) / 2 / scene.image.width))
    row = min(2, int(3 * (box[1] + box[3]) / 2 / scene.image.height))
    if (row, column) == (1, 1):
        return "middle"
    return f"{PLACE_ROWS[row]} {PLACE_COLUMNS[column]}"


def jitter(rng: Random, colour: RGB, amount: int = 14) -> RGB:
    """The colour, each channel moved by up to `amount`."""
    red, green, blue = (min(255, max(0, c + rng.randint(-amount, amount))) for c in colour)
    return red, green, blue


def distance(a: RGB, b: RGB) -> float:
    """Euclidean distance of two colours."""
    return math.dist(a, b)


def luminance(colour: RGB) -> float:
    """Perceived brightness, 0 to 255 (Rec. 601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def random_canvas(rng: Random, largest: int = 1024) -> tuple[int, int]:
    """A canvas size: mostly one that people use, else any of a moderate aspect ratio."""
    if rng.random() < 0.6:
        sizes = [size for size in COMMON_SIZES if max(size) <= largest]
        return rng.choice(sizes)
    width = rng.randint(200, largest)
    height = int(width * math.exp(rng.uniform(-0.65, 0.65)))
    return width, max(180, min(largest, height))


def new_scene(rng: Random, size: tuple[int, int]) -> Scene:
    """An empty scene on a random background, mostly white or pale."""
    draw = rng.random()
    if draw < 0.5:
        colour, name = jitter(rng, (255, 255, 255), 6) if rng.random() < 0.3 else (255, 255, 255), "white"
    elif draw < 0.68:
        colour, name = (rng.randint(200, 250), rng.randint(200, 250), rng.randint(200, 250)), ""
    elif draw < 0.78:
        shade = rng.randint(110, 200)
        colour, name = (shade, shade, shade), "grey"
    elif draw < 0.9:
        colour, name = jitter(rng, (10, 10, 10), 10), "black"
    else:
        name = rng.choice(COLOURS[:6])
        colour = jitter(rng, rng.choice(PALETTE[name]))
    return Scene(Image.new("RGB", size, colour), name)


def _polygon(kind: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    if kind == "square":
        r = radius * 0.9
        return [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]
    if kind == "diamond":
        return [(x, y - radius), (x + radius * 0.85, y), (x, y + radius), (x - radius * 0.85, y)]
    if kind == "triangle":
        return [(x, y - radius), (x + radius, y + radius * 0.85), (x - radius, y + radius * 0.85)]
    points = []
    for corner in range(10):
        reach = radius * (1.08 if corner % 2 == 0 else 0.45)
        angle = math.pi * (corner / 5 - 0.5)
        points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    return points


def draw_shape(
    canvas: ImageDraw.ImageDraw,
    kind: str,
    x: float,
    y: float,
    radius: float,
    fill: int | RGB,
    outline: RGB | None = None,
) -> None:
    """Draw one filled shape with its centre at (x, y)."""
    width = max(1, int(radius * 0.08)) if outline else 0
    if kind == "circle":
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=outline, width=width)
    else:
        canvas.polygon(_polygon(kind, x, y, radius), fill=fill, outline=outline, width=max(1, width))


def extent(shape: Shape) -> Box:
    """The tight box around a shape: its `box` is that of its radius, whatever its kind."""
    if shape.kind == "circle":
        return shape.box
    xs, ys = zip(*_polygon(shape.kind, shape.x, shape.y, shape.radius), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _free(box: Box, taken: list[Box], gap: float) -> bool:
    return all(
        box[2] + gap <= other[0] or other[2] + gap <= box[0] or box[3] + gap <= other[1] or other[3] + gap <= box[1]
        for other in taken
    )


def _clear_of_borders(scene: Scene, x: float, y: float) -> bool:
    """Whether a centre lies well inside one of the nine places, so that naming its place is fair."""
    across, down = 3 * x / scene.image.width % 1, 3 * y / scene.image.height % 1
    return 0.1 < across < 0.9 and 0.1 < down < 0.9


def add_shape(scene: Scene, rng: Random, kind: str, colour: str, smallest: float, largest: float) -> bool:
    """Draw a shape where there is room for it.

    Args:
        scene: drawn into.
        rng: the source of chance.
        kind: one of SHAPES.
        colour: one of COLOURS.
        smallest: least full size, as a part of the canvas's shorter side.
        largest: greatest full size.

    Returns:
        False where no room was found, or the colour is not seen on this background.
    """
    width, height = scene.image.size
    back = scene.back
    fill = jitter(rng, rng.choice(PALETTE[colour]))
    if distance(fill, back) < 110:
        return False
    for _ in range(30):
        radius = rng.uniform(smallest, largest) * min(width, height) / 2
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        box = (x - radius, y - radius, x + radius, y + radius)
        if _clear_of_borders(scene, x, y) and _free(box, scene.boxes, 0.02 * min(width, height)):
            outline = (0, 0, 0) if rng.random() < 0.12 and luminance(back) > 90 else None
            draw_shape(ImageDraw.Draw(scene.image), kind, x, y, radius, fill, outline)
            scene.shapes.append(Shape(kind, colour, x, y, radius, box))
            return True
    return False


def random_face(rng: Random) -> Face:
    """A face, the ordinary ones more often."""
    return rng.choices(faces(), weights=[face.weight for face in faces()])[0]


def _ink(rng: Random, back: RGB) -> RGB:
    light = luminance(back) > 120
    if rng.random() < 0.6:
        return (0, 0, 0) if light else (255, 255, 255)
    for _ in range(20):
        ink = jitter(rng, rng.choice(PALETTE[rng.choice(COLOURS)]))
        if abs(luminance(ink) - luminance(back)) > 70:
            return ink
    return (0, 0, 0) if light else (255, 255, 255)


def print_line(
    scene: Scene, text: str, face: Face, size: int, left: float, cap_top: float, ink: RGB, margin: float = 0.0
) -> Line | None:
    """Print a line with its capitals' top at cap_top; None where it leaves the canvas or touches something."""
    font = sized(face.path, size)
    _, top, _, bottom = font.getbbox("H")
    cap = float(bottom - top)
    edges = [left + font.getlength(text[:count]) for count in range(len(text) + 1)]
    box = (left, cap_top, edges[-1], cap_top + cap)
    reach = (box[0], box[1] - 0.05 * cap, box[2], box[3] + 0.12 * cap)
    inside = reach[0] >= 0 and reach[1] >= 0 and reach[2] <= scene.image.width and reach[3] <= scene.image.height
    if not inside or not _free(reach, scene.boxes, margin):
        return None
    ImageDraw.Draw(scene.image).text((left, cap_top - top), text, font=font, fill=ink)
    glyphs = tuple(
        Glyph(character, (edges[i], box[1], edges[i + 1], box[3]))
        for i, character in enumerate(text)
        if character in CHARACTERS
    )
    line = Line(text, glyphs, cap, box, ink)
    scene.lines.append(line)
    return line


def add_text(scene: Scene, rng: Random, text: str, smallest: float, largest: float, centred: float = 0.3) -> bool:
    """Print `text` where there is room, its cap height between two parts of the canvas's height.

    Returns:
        False where it does not fit at the smallest size.
    """
    width, height = scene.image.size
    back = scene.back
    face, ink = random_face(rng), _ink(rng, back)
    for _ in range(25):
        cap = height * math.exp(rng.uniform(math.log(smallest), math.log(largest)))
        size = max(8, round(cap / face.cap_ratio))
        long = sized(face.path, size).getlength(text)
        if long > 0.96 * width:
            size = int(size * 0.96 * width / long * rng.uniform(0.8, 1.0))
            if size * face.cap_ratio < smallest * height:
                continue
            long = sized(face.path, size).getlength(text)
        cap = size * face.cap_ratio
        if rng.random() < centred:
            left, top = (width - long) / 2, (height - cap) / 2
        else:
            left = rng.uniform(0.01, 0.99) * (width - long)
            top = height * 0.01 + rng.uniform(0, 1) * max(0.0, 0.97 * height - 1.15 * cap)
        if print_line(scene, text, face, size, int(left), int(top), ink, 0.02 * min(width, height)):
            return True
    return False


def add_frame(scene: Scene, rng: Random) -> None:
    """Now and then a border along the canvas's edge or a box around the only line: marks that mean nothing."""
    if rng.random() < 0.06 and not scene.shapes:
        pad = 0.3 * scene.lines[0].cap_height if scene.lines else 0
        canvas = ImageDraw.Draw(scene.image)
        ink = _ink(rng, scene.back)
        x0, y0, x1, y1 = scene.lines[0].box if scene.lines else (2, 2, scene.image.width - 3, scene.image.height - 3)
        canvas.rectangle((x0 - pad, y0 - pad, x1 + pad, y1 + pad), outline=ink, width=rng.randint(1, 3))


def shapes_scene(
    rng: Random, size: tuple[int, int] | None = None, most: int = 6, smallest: float = 0.13, text: bool = False
) -> Scene:
    """One to `most` shapes; with `text`, one printed line too (cap height at least an eighth of the canvas)."""
    scene = new_scene(rng, size or random_canvas(rng))
    if text:
        add_text(scene, rng, random_text(rng), 0.125, 0.25, centred=0.1)
    count = rng.randint(1, most)
    largest = (0.8, 0.6, 0.42, 0.36, 0.3, 0.28)[count - 1 + (text and count < 6)]
    kinds = rng.sample(SHAPES, rng.choice((1, 2, 2, 3, 5)))
    colours = rng.sample(COLOURS, rng.choice((1, 2, 3, 3, 8)))
    for _ in range(count):
        if not add_shape(scene, rng, rng.choice(kinds), rng.choice(colours), smallest, largest):
            add_shape(scene, rng, rng.choice(kinds), rng.choice(COLOURS), smallest, max(smallest, largest * 0.6))
    return scene


def text_scene(
    rng: Random, size: tuple[int, int] | None = None, smallest: float = 0.125, largest: float = 0.6, shapes: int = 0,
    text: str | None = None,
) -> Scene:  # fmt: skip
    """One printed line, its cap height between two parts of the canvas's height, and up to `shapes` shapes."""
    scene = new_scene(rng, size or random_canvas(rng))
    add_text(scene, rng, text or random_text(rng), smallest, largest)
    add_frame(scene, rng)
    for _ in range(rng.randint(0, shapes)):
        add_shape(scene, rng, rng.choice(SHAPES), rng.choice(COLOURS), 0.1, 0.3)
    return scene


def wall_scene(rng: Random, size: tuple[int, int] | None = None) -> Scene:
    """Lines of random characters at random sizes all over the canvas: many labelled glyphs in one picture."""
    scene = new_scene(rng, size or random_canvas(rng, 640))
    width, height = scene.image.size
    back = scene.back
    biggest = height * math.exp(rng.uniform(math.log(0.14), math.log(0.7)))
    y = rng.uniform(0, 0.1) * height
    while y < 0.95 * height:
        cap = biggest * rng.uniform(0.8, 1.0)
        face, ink = random_face(rng), _ink(rng, back)
        size_px = max(8, round(cap / face.cap_ratio))
        x = rng.uniform(0, 0.15) * width
        while x < 0.9 * width:
            letters = CHARACTERS[10:] if rng.random() < 0.75 else CHARACTERS[:10]
            text = "".join(rng.choice(letters) for _ in range(rng.randint(1, 5)))
            line = print_line(scene, text, face, size_px, int(x), int(y), ink)
            x = (line.box[2] if line else x) + cap * rng.uniform(0.4, 1.5)
        y += cap * rng.uniform(1.3, 1.9)
    return scene
