"""Draw pictures to ask the demo model about many of: one or two coloured shapes each, and what they are in a table.

    python -m internvl_gguf.demo.pictures photos [COUNT]

Writes COUNT (50) pictures, `photos/0001.png` and on, and `photos.csv`: for each its path and what is in it. The same
count draws the same pictures.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from PIL import Image, ImageDraw

from internvl_gguf.errors import InternVLError

SIZE: Final = (320, 240)
DEFAULT_COUNT: Final = 50
MOST: Final = 1_000_000
COLOURS: Final = {"red": (220, 38, 38), "green": (40, 160, 60), "blue": (40, 80, 220), "yellow": (250, 220, 30)}
SHAPES: Final = ("circle", "square", "triangle")
_CENTRES: Final = ((90, 120), (230, 120))
_RADII: Final = (34, 52)


@dataclass(frozen=True)
class DrawnPicture:
    """A picture and what is in it.

    Attributes:
        image: RGB.
        colour, shape: of its shape; of the left one where there are two.
        count: how many shapes there are.
    """

    image: Image.Image
    colour: str
    shape: str
    count: int


def drawn_picture(seed: int) -> DrawnPicture:
    """Return the picture of a seed; no two of 32,768 are equal, as their backgrounds differ by what no one sees."""
    rng = Random(seed)
    image = Image.new("RGB", SIZE, tuple(250 - seed // 32**place % 32 for place in range(3)))
    count = rng.choice((1, 2))
    things = [(rng.choice(tuple(COLOURS)), rng.choice(SHAPES)) for _ in range(count)]
    for (colour, shape), centre in zip(things, _CENTRES, strict=False):
        _draw(ImageDraw.Draw(image), shape, COLOURS[colour], centre, rng.randint(*_RADII))
    return DrawnPicture(image, *things[0], count)


def draw_pictures(folder: Path, count: int = DEFAULT_COUNT) -> Path:
    """Write pictures into a folder, over older ones, and return the table of what they show.

    Args:
        folder: is made if it is not there.
        count: how many.

    Raises:
        InternVLError: a file cannot be written.
    """
    table = folder.with_name(f"{folder.name}.csv")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with table.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("image", "colour", "shape", "count"))
            for seed in range(1, count + 1):
                path, drawn = folder / f"{seed:04}.png", drawn_picture(seed)
                drawn.image.save(path, compress_level=1)
                rows.writerow((path, drawn.colour, drawn.shape, drawn.count))
    except OSError as error:
        raise InternVLError(
            f"{error.filename or folder} cannot be written: {error.strerror}.", "Choose another place for them."
        ) from error
    return table


def _draw(
    draw: ImageDraw.ImageDraw, shape: str, colour: tuple[int, int, int], centre: tuple[int, int], radius: int
) -> None:
    (x, y), box = centre, (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.polygon(((x, y - radius), (x - radius, y + radius), (x + radius, y + radius)), fill=colour)


def main() -> int:
    """Draw the pictures that the command line asks for."""
    arguments = sys.argv[1:]
    is_number = len(arguments) < 2 or (arguments[1].isdecimal() and 1 <= int(arguments[1]) <= MOST)
    if len(arguments) not in (1, 2) or arguments[0].startswith("-") or not is_number:
        print("Usage: python -m internvl_gguf.demo.pictures FOLDER [COUNT]", file=sys.stderr)
        return 2
    count = int(arguments[1]) if len(arguments) == 2 else DEFAULT_COUNT
    try:
        table = draw_pictures(Path(arguments[0]), count)
    except InternVLError as error:
        print(f"Error: {error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    print(f"Drew {count:,} picture{'s' if count > 1 else ''} into {arguments[0]}; {table} says what is in them.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
