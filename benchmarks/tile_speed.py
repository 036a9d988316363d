"""Seconds for a tile in the vision encoder: one tile a call and several, against llama-mtmd-cli with the same mmproj.

Method. Our encoder (`VisionEncoder`) stays loaded; a round encodes TILES tiles one by one, then in batches of 2 and of
4, each time other tiles, and takes the mean for a tile. So does the same mmproj in OpenVINO, in float32, and in
bfloat16 where the CPU has units for it, one tile a call and as many at once as the largest batch. With --pytorch
transformers' vision model of the same shape, random weights, encodes the same pixels in both precisions, one tile a
call, without the projector. llama-mtmd-cli is started once a round, warms up at loading, and is given a
picture of exactly one tile TILES + 1 times over, so that it cuts nothing; its log says how long each encoding took, to
the millisecond; the first one is a second warm-up. It reads the rows of each picture into the text model in between,
which that does not count. Threads are the same, flash attention is on in both. The order of all changes each round, the
first round does not count.

    python benchmarks/tile_speed.py [--model TEXT.gguf] [--mmproj MMPROJ.gguf] [--tools DIR] [--threads N] [--rounds N]
                                    [--pytorch]

Without --model the embedded demo model is measured; --quick is one short round. Beside the times stands what a product
of two large matrices reaches in OpenVINO in the same minutes: the operations of a tile by that are the physical limit.
Run with nothing else on the machine. The last line of the output is one JSON document.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import measure
import peers
from internvl_gguf.gguf.arch.internvit import tile_operations
from internvl_gguf.gguf.header import read_header
from internvl_gguf.gguf.validation import validate_mmproj
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.vision import VisionEncoder
from internvl_gguf.memory import VisionWeights, shape_from_headers
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.vision.contract import TileEncoder
from internvl_gguf.vision.openvino_encoder import EncoderPrecision, OpenVINOEncoder, has_bfloat16
from internvl_gguf.vision.openvino_library import ops, ov
from measure import Settings
from ours import noise

TILES, BATCHES = 4, (1, 2, 4)
QUICK_TILES, QUICK_BATCHES = 2, (1, 2)
MATRIX = 4096  # rows and columns of the large product
TEXT_TOKENS = 256  # of the prompt around the pictures, at most


def open_encoder(files: ModelFiles, vision: VisionWeights, threads: int, owned: ExitStack) -> VisionEncoder:
    """The encoder alone, with no more of the text model than its vocabulary."""
    model = owned.enter_context(TextModel(files.text, vocab_only=True))
    encoder = VisionEncoder(
        files.mmproj,
        model,
        tile_size=vision.image_size,
        tokens_per_tile=vision.tokens_per_tile,
        n_embd=vision.projection_dim,
        use_gpu=False,
        n_threads=threads,
    )
    owned.callback(encoder.close)
    return encoder


def open_in_openvino(
    files: ModelFiles, threads: int, precision: EncoderPrecision, tiles: int, owned: ExitStack
) -> OpenVINOEncoder:
    """The same encoder in OpenVINO, for so many tiles at once, compiled anew."""
    header = read_header(files.mmproj)
    encoder = OpenVINOEncoder(
        files.mmproj,
        header,
        validate_mmproj(header),
        precision=precision,
        n_threads=threads,
        tiles_per_batch=tiles,
        keep=False,
    )
    owned.callback(encoder.close)
    return encoder


def in_pytorch(vision: VisionWeights, threads: int, precision: EncoderPrecision, count: int) -> Callable[[int], float]:
    """Seconds a tile in transformers' vision model, which the published models are run with."""
    import torch
    from transformers import InternVLVisionConfig, InternVLVisionModel

    torch.set_num_threads(threads)
    config = InternVLVisionConfig(
        hidden_size=vision.n_embd,
        num_hidden_layers=vision.n_layers,
        num_attention_heads=vision.n_head,
        intermediate_size=vision.n_ff,
        attention_bias=True,
        image_size=[vision.image_size] * 2,
        patch_size=[vision.patch_size] * 2,
    )
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    model = InternVLVisionModel(config).to(kind).eval()

    def run(turn: int) -> float:
        tiles = [torch.from_numpy(np.array(noise(1, 1, vision.image_size, seed=turn))) for _ in range(count)]
        started = time.perf_counter()
        with torch.inference_mode():
            for tile in tiles:
                model((tile.permute(2, 0, 1)[None].float() / 127.5 - 1).to(kind))
        return (time.perf_counter() - started) / count

    return run


def matrix_rate(threads: int, precision: EncoderPrecision, _turn: int) -> float:
    """Operations a second of a product of two large matrices in OpenVINO."""
    compiled = product(threads, precision)
    operand = np.full((MATRIX, MATRIX), 0.01, np.float32)
    started = time.perf_counter()
    compiled([operand])
    return 2 * MATRIX**3 / (time.perf_counter() - started)


@cache
def product(threads: int, precision: EncoderPrecision) -> Any:
    """The compiled product of a matrix with a constant one."""
    left = ops.parameter([MATRIX, MATRIX], ov.Type.f32)
    right = ops.constant(np.random.default_rng(1).standard_normal((MATRIX, MATRIX), np.float32))
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    return ov.Core().compile_model(ov.Model([ops.matmul(left, right, False, True)], [left], "product"), "CPU", options)


def encode(encoder: TileEncoder, count: int, batch: int, turn: int) -> float:
    """Seconds a tile, so many of them in batches."""
    tiles = [noise(1, 1, encoder.tile_size, seed=count * turn + index).tobytes() for index in range(count)]
    started = time.perf_counter()
    for first in range(0, count, batch):
        encoder.encode(tiles[first : first + batch])
    return (time.perf_counter() - started) / count


def precisions() -> tuple[EncoderPrecision, ...]:
    """Those that this CPU computes in by itself."""
    return ("f32", "bf16") if has_bfloat16() else ("f32",)


def encode_with_tool(tool: Path, files: ModelFiles, settings: Settings, picture: Path, count: int, _turn: int) -> float:
    """Seconds a tile in llama-mtmd-cli."""
    return sum(peers.tile_seconds(tool, files.text, files.mmproj, settings, picture, count)) / count


def main() -> None:
    parser = measure.parser(__doc__, mmproj=True, tools=True)
    parser.add_argument("--pytorch", action="store_true", help="compare with PyTorch and transformers")
    arguments = parser.parse_args()
    files = measure.model_files(arguments)
    vision = shape_from_headers(read_header(files.text), read_header(files.mmproj)).vision
    assert vision is not None
    count, batches = (QUICK_TILES, QUICK_BATCHES) if arguments.quick else (TILES, BATCHES)
    tool = peers.find_tool("llama-mtmd-cli", arguments)
    with ExitStack() as owned:
        encoder = open_encoder(files, vision, arguments.threads, owned)
        sides: dict[str, Callable[[int], float]] = {
            "ours" if batch == 1 else f"ours, {batch} a call": partial(encode, encoder, count, batch)
            for batch in batches
        }
        for precision in precisions():
            for batch in (1, batches[-1]):
                other = open_in_openvino(files, arguments.threads, precision, batch, owned)
                name = f"ours, OpenVINO {precision}"
                sides[name if batch == 1 else f"{name}, {batch} a call"] = partial(encode, other, count, batch)
            if arguments.pytorch:
                sides[f"PyTorch {precision}"] = in_pytorch(vision, arguments.threads, precision, count)
        if tool:
            picture = Path(owned.enter_context(tempfile.TemporaryDirectory())) / "tile.png"
            noise(1, 1, vision.image_size, seed=0).save(picture)
            settings = Settings(arguments.threads, n_ctx=(count + 1) * (vision.tokens_per_tile + 2) + TEXT_TOKENS)
            sides["llama-mtmd-cli"] = partial(encode_with_tool, tool, files, settings, picture, count)
        limits: dict[str, Callable[[int], float]] = {
            precision: partial(matrix_rate, arguments.threads, precision) for precision in precisions()
        }
        both = measure.interleaved({**sides, **limits}, measure.rounds_of(arguments))
    found = {name: both[name] for name in sides}
    rows, result = measure.comparison(found, files.mmproj.stem)
    print(f"Seconds a tile of {vision.image_size} x {vision.image_size} pixels, {arguments.threads} threads.\n")
    print(measure.table(["", "side", "s, median (range)", "ours/other"], rows))
    operations = tile_operations(vision)
    reached = {precision: measure.Spread(tuple(both[precision])) for precision in limits}
    for name, rate in reached.items():
        least = operations / max(rate.values)
        print(f"\nA large product in {name}: {rate.median / 1e9:,.0f} GFLOP/s; a tile at its best: {least:.3g} s.")
    more = {"gflops": {precision: rate.median / 1e9 for precision, rate in reached.items()}, "operations": operations}
    measure.last_line("tile_speed", arguments, files.mmproj, {"tiles": count, "seconds_per_tile": result, **more})


if __name__ == "__main__":
    main()
