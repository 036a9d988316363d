"""Make the quants of the demo model: once, into the cache, with an importance matrix from pictures like its own."""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from internvl_gguf.errors import InternVLError, InvalidRequestError
from internvl_gguf.models.local_files import demo_files
from internvl_gguf.quantizing import (
    TYPES,
    ImportanceMatrix,
    importance_matrix,
    make_ladder,
    parse_types,
    read_matrix,
    write_matrix,
)
from internvl_gguf.utils.paths import making_temporary
from internvl_gguf.utils.records import BENCHMARKS

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

LadderProgress = Callable[[str, str, float], None]
"""Called with the step, the name of the current item (empty for none), and the fraction that is done, 0 to 1."""

_NOT_IN_IT: Final = frozenset({"F32", "TQ2_0", "TQ1_0", "Q1_0"})  # no smaller than BF16; for models trained in them
_COLOURS: Final = ("red", "green", "blue", "yellow", "orange", "purple", "black")
_QUESTIONS: Final = (
    "How many shapes are there?", "What is in the picture?", "Is there a red circle?", "What colour is the square?",
    "Where is the circle?", "What shape is blue?", "What colour is the background?", "What number is written?",
)  # fmt: skip
_PICTURES: Final = 24
_SIDE: Final = 288  # two tiles of the demo model


def demo_ladder(
    labels: Sequence[str], precisions: Sequence[str], on_progress: LadderProgress
) -> tuple[Path, list[str]]:
    """Make quants of the demo model, and its mmproj in some precisions.

    Args:
        labels: the quant types; empty for all that such a model can use.
        precisions: types of the mmproj; empty to make none.
        on_progress: called with the progress.

    Returns:
        The folder, and the types as they stand in the names of the files.

    Raises:
        InvalidRequestError: no such type, no room on the disk, or a cache folder that cannot be written.
        LibraryError: llama.cpp cannot make one.
    """
    kinds = parse_types(",".join(labels)) if labels else [kind for kind in TYPES if kind.label not in _NOT_IN_IT]
    folder = BENCHMARKS.path / "demo"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequestError(
            f"The demo model's quants cannot be kept in {folder}: {error.strerror or error}.",
            "Set INTERNVL_CACHE to another folder.",
        ) from error
    demo = demo_files()
    matrix = _matrix(folder / "imatrix.gguf", on_progress)

    def telling(what: str, found: Sequence[str]) -> Callable[[str, int, int], None]:
        def tell_part(label: str, done: int, count: int) -> None:
            on_progress(what, label, (found.index(label) + done / count) / len(found))

        return tell_part

    found = [kind.label for kind in kinds]
    make_ladder(demo.text, folder, found, matrix, telling("Making quants of the demo model", found))
    if precisions:
        visions = [kind.label for kind in parse_types(",".join(precisions))]
        make_ladder(demo.mmproj, folder, visions, None, telling("Making the demo model's vision encoder", visions))
    return folder, found


def _matrix(path: Path, on_progress: LadderProgress) -> ImportanceMatrix:
    """Return the importance matrix; measure it if the file is missing or damaged."""
    with contextlib.suppress(InternVLError):
        return read_matrix(path)
    demo = demo_files()
    with making_temporary():
        temporary = tempfile.TemporaryDirectory(prefix="internvl-calibrate-")
    with temporary as name:
        questions = write_pictures(Path(name))
        found = importance_matrix(
            demo.text,
            [questions],
            mmproj=demo.mmproj,
            n_gpu_layers=0,
            on_progress=lambda done, count: on_progress("Reading pictures for the importance matrix", "", done / count),
        )
    write_matrix(path, found.matrix)
    return found.matrix


def write_pictures(folder: Path) -> Path:
    """Draw pictures of shapes, the same each time, and write questions about them; return the file of questions."""
    from PIL import Image, ImageDraw

    draw = random.Random(1)
    lines = []
    for number in range(_PICTURES):
        picture = Image.new("RGB", (_SIDE, _SIDE), "white")
        for _ in range(draw.randrange(1, 5)):
            _draw_shape(ImageDraw.Draw(picture), draw)
        picture.save(folder / f"{number}.png")
        lines.append(json.dumps({"prompt": _QUESTIONS[number % len(_QUESTIONS)], "images": [f"{number}.png"]}))
    questions = folder / "shapes.jsonl"
    questions.write_text("\n".join(lines), "utf-8")
    return questions


def _draw_shape(pen: ImageDraw, draw: random.Random) -> None:
    size = draw.randrange(_SIDE // 6, _SIDE // 3)
    left, top = draw.randrange(_SIDE - size), draw.randrange(_SIDE - size)
    box, colour = (left, top, left + size, top + size), draw.choice(_COLOURS)
    kind = draw.choice(("circle", "square", "triangle"))
    if kind == "circle":
        pen.ellipse(box, fill=colour)
    elif kind == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(left, top + size), (left + size, top + size), (left + size // 2, top)], fill=colour)
