"""The exam of `internvl bench`: held-out pictures with questions that the demo model was trained to answer.

Seeds lie apart from the training's and from those of docs/demo-model.md, words are those kept from training, and the
only font is Pillow's own. The pictures ship as they were drawn once: another Pillow may draw letters otherwise.

    python -m training.bench_exam src/internvl_gguf/bench/data/exam
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from PIL import Image

from training.exam import items
from training.fonts import EMBEDDED, faces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.exam import Item

SEED = 60_000_000
SUITES = (
    # suite, questions, most tiles; more of the harder ones, which tell quants apart
    ("shapes", 20, 1), ("colours", 20, 1), ("counts", 40, 1), ("places", 20, 1), ("presence", 10, 1),
    ("descriptions", 40, 1), ("numbers", 30, 1), ("words", 30, 1), ("small print", 20, 12),
)  # fmt: skip
PALETTE = 32  # the edges of letters have many greys; so many are enough for the eye, at half the bytes


def exam() -> Iterator[Item]:
    """All questions, in order of their suites."""
    embedded = tuple(face for face in faces() if face.path == EMBEDDED)
    with patch("training.scenes.faces", lambda: embedded):
        for suite, count, max_tiles in SUITES:
            yield from items(suite, count, max_tiles, seed=SEED)


def main() -> None:
    """Draw the pictures and write the questions beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, item in enumerate(exam(), 1):
        name = f"{item.suite.replace(' ', '-')}-{number:03}.png"
        assert item.picture is not None
        item.picture.quantize(PALETTE, dither=Image.Dither.NONE).save(folder / name, optimize=True)
        # A number that was read is right or wrong: four digits of five are not 5% off.
        fields = {"id": item.suite, "image": name, "prompt": item.question, "answer": item.answer}
        lines.append(json.dumps({**fields, "max_tiles": item.max_tiles, "tolerance": 0}))
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
