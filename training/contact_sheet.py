"""Draw held-out pictures with their question and the model's answer on one sheet.

python -m training.contact_sheet docs/images/demo-model.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from internvl_gguf import SamplingParams, Session
from training.exam import Item, items
from training.fonts import EMBEDDED, sized

SHOWN = (
    ("shapes", 1), ("colours", 1), ("counts", 1), ("places", 1), ("numbers", 1),
    ("words", 1), ("presence", 12), ("numbers", 12), ("words", 12), ("small print", 12),
)  # fmt: skip
COLUMNS, CELL, CAPTION = 5, (230, 172), 46


def sheet(shown: list[tuple[Item, str]]) -> Image.Image:
    """Pictures in rows, under each the question and the answer given; a wrong answer is marked with the right one."""
    rows = (len(shown) + COLUMNS - 1) // COLUMNS
    paper = Image.new("RGB", (COLUMNS * CELL[0], rows * (CELL[1] + CAPTION)), (238, 238, 238))
    canvas, font = ImageDraw.Draw(paper), sized(EMBEDDED, 13)
    for index, (item, said) in enumerate(shown):
        left, top = index % COLUMNS * CELL[0] + 8, index // COLUMNS * (CELL[1] + CAPTION) + 8
        if item.picture is not None:
            small = item.picture.copy()
            small.thumbnail((CELL[0] - 16, CELL[1] - 16))
            paper.paste(small, (left, top))
            canvas.rectangle((left - 1, top - 1, left + small.width, top + small.height), outline=(150, 150, 150))
        right = said == item.answer
        canvas.text((left, top + CELL[1] - 12), item.question, fill=(60, 60, 60), font=font)
        note = said if right else f"{said}  (right: {item.answer})"
        canvas.text((left, top + CELL[1] + 6), note, fill=(0, 110, 0) if right else (190, 0, 0), font=font)
    return paper


def main() -> None:
    """Read the command line, ask the demo model, write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--each", type=int, default=2, help="pictures of each kind")
    args = parser.parse_args()
    shown = []
    with Session.open("demo") as session:
        for suite, max_tiles in SHOWN:
            for item in items(suite, args.each, max_tiles, seed=40_000_000):
                session.clear()
                reply = session.ask(
                    item.question,
                    images=[item.picture],
                    max_tiles=item.max_tiles,
                    sampling=SamplingParams(temperature=0),
                )
                shown.append((item, reply.text))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(shown).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
