"""What a cascade of a quant of the demo model and the demo model itself takes, beside the latter alone.

Method. Each question of the demo model's exam is asked twice: of the large model alone, and of the cascade; who comes
first changes from question to question. The large model alone has no cache of embeddings; the cascade has that on disk.
One pixel of each picture is changed by chance, so that nobody has seen it. Reported are the right answers of both, the
questions that went on to the large model, its tiles that were encoded again, and the seconds of a question.

    python benchmarks/cascade.py [--quant Q2_K] [--threshold 0.966] [--threads N] [--quick]

The last line of the output is one JSON document.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

import measure
from internvl_gguf import Cascade, Session
from internvl_gguf.bench.ladder import demo_ladder
from internvl_gguf.bench.quality.matching import is_relaxed
from internvl_gguf.bench.quality.sets import PictureItem, read_task
from internvl_gguf.config import AskOptions
from internvl_gguf.images.load import load_image
from internvl_gguf.models.resolve import resolve_model

MAX_TOKENS: Final = 64
QUICK: Final = 6


def main() -> None:
    """Ask, compare, print."""
    parser = measure.parser(__doc__, rounds=1)
    parser.add_argument("--quant", default="Q2_K", help="of the demo model, which is asked first")
    parser.add_argument("--threshold", type=float, default=0.966)
    arguments = parser.parse_args()
    folder, (label,) = demo_ladder([arguments.quant], [], lambda what, name, done: None)
    demo = resolve_model("demo")
    small = Path(folder, f"demo-text-{label}.gguf")
    items = read_task(None).items[: QUICK if arguments.quick else None]
    chance = np.random.default_rng()
    seconds: dict[str, list[float]] = {"cascade": [], "large alone": []}
    right = {"cascade": 0, "large alone": 0}
    asked_on = encoded_again = encoded = 0
    alone = Session.open("demo", n_threads=arguments.threads, embedding_disk_bytes=0, embedding_cache_bytes=0)
    models = Cascade(
        [small, "demo"], threshold=arguments.threshold, mmproj=demo.mmproj, n_threads=arguments.threads, on_notice=print
    )
    with alone, models:
        for turn, item in enumerate([items[0], *items]):  # the first one warms up
            pictures = [_new(path, chance) for path in item.images]
            for side in ("cascade", "large alone")[:: -1 if turn % 2 else 1]:
                started = time.perf_counter()
                if side == "cascade":
                    answer = models.ask(item.prompt, pictures, **_options(item))
                    reply = answer.reply
                else:
                    alone.clear()
                    reply = alone.ask(item.prompt, pictures, **_options(item))
                if turn:
                    seconds[side].append(time.perf_counter() - started)
                    right[side] += is_relaxed(reply.text, item.answers, item.tolerance)
            if turn:
                tiles = [step.reply.usage.tiles_encoded for step in answer.steps if step.reply]
                encoded += tiles[0]
                asked_on += len(tiles) > 1
                encoded_again += sum(tiles[1:])
    means = {side: sum(values) / len(values) for side, values in seconds.items()}
    rows = [[side, f"{right[side]} of {len(items)}", measure.number(means[side])] for side in means]
    print(measure.table(["who is asked", "right", "seconds, mean"], rows))
    print(f"{asked_on} questions went on, and {encoded_again} tiles were encoded again.")
    found = {"right": right, "seconds": means, "encoded": encoded, "asked_on": asked_on, "encoded_again": encoded_again}
    measure.last_line("cascade", arguments, small, {"questions": len(items), **found})


def _new(path: Path, chance: np.random.Generator) -> NDArray[np.uint8]:
    pixels = np.array(load_image(path))
    pixels[0, 0] = chance.integers(0, 256, 3)
    return pixels


def _options(item: PictureItem) -> AskOptions:
    options: AskOptions = {"max_tokens": item.max_tokens or MAX_TOKENS}
    if item.max_tiles is not None:
        options["max_tiles"] = item.max_tiles
    return options


if __name__ == "__main__":
    main()
