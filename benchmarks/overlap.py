"""Whether encoding the next tiles while the text model reads the last ones would gain anything on a CPU.

Method. The work of a picture of TILES tiles is done in two ways: one after the other, both with all threads, as the
engine does it; and at the same time, in two threads of this process, each side with half of the CPU threads. A round is
each way once, in an order that changes from round to round. The encoder is the one that this machine takes by itself.

    python benchmarks/overlap.py [--model TEXT.gguf] [--mmproj MMPROJ.gguf] [--threads N] [--rounds N] [--quick]

Run with nothing else on the machine. The last line of the output is one JSON document.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np

import measure
from internvl_gguf.config import EngineConfig
from internvl_gguf.gguf.header import read_header
from internvl_gguf.gguf.validation import validate_mmproj
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.model import TextModel
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.vision.openvino_encoder import EncoderPrecision, OpenVINOEncoder, has_bfloat16
from measure import Settings
from ours import noise

TILES, QUICK_TILES = 4, 1


class Work:
    """The tiles of a picture, to be encoded and to be read, with so many CPU threads for each.

    Args:
        files: the model.
        threads: CPU threads.
        tiles: tiles of the picture.
        owned: frees it.
    """

    def __init__(self, files: ModelFiles, threads: int, tiles: int, owned: ExitStack) -> None:
        header = read_header(files.mmproj)
        facts = validate_mmproj(header)
        precision: EncoderPrecision = "bf16" if has_bfloat16() else "f32"
        self._encoder = OpenVINOEncoder(files.mmproj, header, facts, precision=precision, n_threads=threads, keep=False)
        owned.callback(self._encoder.close)
        model = owned.enter_context(TextModel(files.text, n_gpu_layers=0))
        settings = Settings(threads, n_ctx=2 * tiles * facts.tokens_per_tile)
        config = EngineConfig(**settings.engine_options())
        self._context = owned.enter_context(Context(model, config, n_ctx=settings.n_ctx, n_threads=threads))
        self._pixels = [noise(1, 1, facts.image_size, seed=index).tobytes() for index in range(tiles)]
        self._rows = np.zeros((facts.tokens_per_tile, facts.projection_dim), np.float32)

    def encode(self) -> None:
        """Encode every tile."""
        for tile in self._pixels:
            self._encoder.encode([tile])

    def read(self) -> None:
        """Read the rows of every tile into the text model."""
        self._context.cut(0, 0)
        for index in range(len(self._pixels)):
            self._context.decode_embeddings(self._rows, index * len(self._rows), 0, logits=False)


def main() -> None:
    arguments = measure.parser(__doc__, rounds=5, mmproj=True).parse_args()
    files = measure.model_files(arguments)
    tiles = QUICK_TILES if arguments.quick else TILES
    with ExitStack() as owned:
        whole = Work(files, arguments.threads, tiles, owned)
        half = Work(files, max(1, arguments.threads // 2), tiles, owned)
        pool = owned.enter_context(ThreadPoolExecutor(2))

        def in_turn(_turn: int) -> float:
            started = time.perf_counter()
            whole.encode()
            whole.read()
            return time.perf_counter() - started

        def at_once(_turn: int) -> float:
            started = time.perf_counter()
            for done in [pool.submit(half.encode), pool.submit(half.read)]:
                done.result()
            return time.perf_counter() - started

        sides = {"one after the other": in_turn, "at the same time": at_once}
        found = measure.interleaved(sides, measure.rounds_of(arguments))
    rows, result = measure.comparison(found, f"{tiles} tiles", ours="one after the other")
    print(measure.table(["", "side", "s, median (range)", "in turn/at once"], rows))
    measure.last_line("overlap", arguments, files.text, {"seconds": result})


if __name__ == "__main__":
    main()
