"""Speeds as estimated from a roofline against speeds as measured in real loads.

Method. The roofline is the one recorded on this machine (`internvl doctor --measure`), or measured first with
--measure; without either the estimates rest on assumptions, and the output says so. Every model is loaded as a session
would load it. Prefill is the first positions, as many as the table says, read into an empty context; decode is one
token after another behind them, without sampling; a tile is one call of the vision encoder. Each is the median of
several runs after a warm-up; runs in which other programs took the CPU do not count (`llama.measure.timing`). Synthetic
models have the published shapes with fewer layers and fewer tokens, and random weights in which every scale is an
ordinary number.

    python benchmarks/speed_estimates.py [--model TEXT.gguf] [--measure] [--threads N] [--write PAGE] [--quick]

--quick takes the demo model and one small synthetic one. The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

import model_headers as headers
from internvl_gguf.config import EngineConfig
from internvl_gguf.gguf.header import read_header
from internvl_gguf.hardware.cores import default_threads
from internvl_gguf.hardware.roofline import Range, Roofline, measure_roofline, recorded_roofline
from internvl_gguf.llama.context import Context, TokenRun
from internvl_gguf.llama.library import build, has_gpu
from internvl_gguf.llama.measure.timing import Timing, time_repeatedly
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.synthetic import write_vocabulary
from internvl_gguf.llama.vision import VisionEncoder
from internvl_gguf.memory import MemoryRequest, shape_from_headers
from internvl_gguf.models.resolve import resolve_model
from internvl_gguf.planning.speed_estimate import estimate_speed
from pages import write_between_markers

TOKENS = 8  # of an answer in each run
PATIENCE, PAUSE = 4, 5.0  # how often to try again where other programs took the CPU, and seconds between
FLOATS = ("F32", "F16", "BF16")

# Shape, layers, quant: about half a gigabyte each, and every family of quants.
SYNTHETIC = (
    ("1.5B", 8, "F16"),
    ("1.5B", 10, "Q8_0"),
    ("7B", 3, "Q4_K_M"),
    ("7B", 3, "Q6_K"),
    ("7B", 3, "IQ3_S"),
    ("14B", 2, "Q5_K_S"),
    ("14B", 2, "Q4_0"),
    ("14B", 2, "Q3_K_M"),
    ("14B", 2, "IQ4_XS"),
    ("14B", 2, "IQ2_XXS"),
    ("14B", 2, "IQ1_M"),
    ("32B", 1, "Q2_K"),
)
ENCODERS = (("InternViT-300M", 6, "F16"), ("InternViT-300M", 6, "Q8_0"), ("InternViT-6B", 2, "BF16"))
VOCABULARY = 32_768


@dataclass(frozen=True)
class Setup:
    """What all comparisons share.

    Attributes:
        roofline: of this machine; None where nothing was measured.
        threads: CPU threads.
        patience: how often to time again what other programs disturbed.
        folder: for synthetic models.
    """

    roofline: Roofline | None
    threads: int
    patience: int
    folder: Path

    def timed(self, run: Callable[[], object]) -> Timing:
        """Time something, and again later as long as other programs disturb it."""
        watched = 0 if has_gpu() else self.threads
        timing = time_repeatedly(run, watched)
        for _ in range(self.patience):
            if not timing.disturbed:
                break
            time.sleep(PAUSE)
            timing = time_repeatedly(run, watched)
        return timing


@dataclass(frozen=True)
class Comparison:
    """A speed in two versions.

    Attributes:
        what: "decode" and "prefill" in tokens/s, "tile" in seconds.
        configuration: in words.
        estimated: the range.
        measured: the median.
        disturbed: whether other programs took the CPU in every run.
    """

    what: str
    configuration: str
    estimated: Range
    measured: float
    disturbed: bool

    @property
    def is_hit(self) -> bool:
        """Whether the measurement lies in the range."""
        return self.estimated.low <= self.measured <= self.estimated.high

    @property
    def ratio(self) -> float:
        """Measured by the middle of the range, the geometric one."""
        return self.measured / math.sqrt(self.estimated.low * self.estimated.high)


def write_random(path: Path, header: bytes, tensors: list[headers.Entry]) -> Path:
    """A model with random weights; none of the numbers in it is infinite, none so small that a CPU slows down."""
    random = np.random.default_rng(1)
    with path.open("wb") as stream:
        stream.write(header)
        for _, shape, kind in tensors:
            data = contents(kind, shape, random)
            stream.write(data)
            stream.write(bytes(-len(data) % headers.ALIGNMENT))
    return path


def contents(kind: GGMLQuantizationType, shape: tuple[int, ...], random: np.random.Generator) -> bytes:
    """Ones for vectors; for matrices numbers of a trained model's size."""
    count = int(np.prod(shape))
    if len(shape) == 1:
        return np.ones(count, dtype=np.float32).tobytes()
    if kind.name in FLOATS:
        values = np.resize(0.02 * random.standard_normal(2**20, dtype=np.float32), count)
        return values.tobytes() if kind.name == "F32" else quants.quantize(values, kind).tobytes()
    # Bytes from 0x11 to 0x1F: a scale made of any two of them is between 0.0006 and 0.008.
    block, size = GGML_QUANT_SIZES[kind]
    data: bytes = random.integers(0x11, 0x20, count // block * size, dtype=np.uint8).tobytes()
    return data


def text_comparisons(
    setup: Setup, path: Path, name: str, depth: int = 512, *, flash_attn: bool = False
) -> Iterator[Comparison]:
    """Prefill and decode of one text model."""
    layers = -1 if has_gpu() else 0
    n_ctx = depth + 2 * TOKENS
    config = EngineConfig(flash_attn=flash_attn, n_gpu_layers=layers)
    shape = shape_from_headers(read_header(path))
    request = MemoryRequest(n_ctx, flash_attn=flash_attn, gpus=(1.0,) if has_gpu() else (), n_gpu_layers=layers)
    estimate = estimate_speed(shape, request, setup.roofline, tiles_per_picture=1, depth=depth)
    words = f"{name}, {depth} positions" + (", flash attention" if flash_attn else "")
    tokens = [7 + index % 64 for index in range(depth)]
    with ExitStack() as owned:
        model = owned.enter_context(TextModel(path, n_gpu_layers=layers))
        context = owned.enter_context(Context(model, config, n_ctx=n_ctx, n_threads=setup.threads))

        def read() -> None:
            context.cut(0, 0)
            for start in range(0, depth, context.n_batch):
                part = tokens[start : start + context.n_batch]
                context.decode_many([TokenRun(part, start, 0, outputs=int(start + len(part) == depth))])
            context.likeliest_token()  # waits for a GPU

        def answer() -> None:
            context.cut(0, depth)
            for index in range(TOKENS):
                context.decode_token(9 + index, depth + index, 0)
                context.likeliest_token()

        prefill, decode = setup.timed(read), setup.timed(answer)
    per_second = depth / prefill.median
    yield Comparison("prefill", words, estimate.prefill, per_second, prefill.disturbed)
    per_second = TOKENS / decode.median
    yield Comparison("decode", words, estimate.decode, per_second, decode.disturbed)


def tile_comparison(setup: Setup, mmproj: Path, name: str, text: Path) -> Comparison:
    """One tile through a vision encoder."""
    shape = shape_from_headers(read_header(text), read_header(mmproj))
    vision = shape.vision
    assert vision is not None
    request = MemoryRequest(2048, gpus=(1.0,) if has_gpu() else (), mmproj_gpu=0 if has_gpu() else None)
    estimate = estimate_speed(shape, request, setup.roofline, tiles_per_picture=1, depth=0)
    assert estimate.tile_seconds is not None
    vocabulary = setup.folder / "vocabulary.gguf"
    write_vocabulary(vocabulary, vision.projection_dim)
    with ExitStack() as owned:
        model = owned.enter_context(TextModel(vocabulary, vocab_only=True))
        encoder = VisionEncoder(
            mmproj,
            model,
            tile_size=vision.image_size,
            tokens_per_tile=vision.tokens_per_tile,
            n_embd=vision.projection_dim,
            use_gpu=has_gpu(),
            n_threads=setup.threads,
        )
        owned.callback(encoder.close)
        blank = [bytes(3 * vision.image_size**2)]
        timing = setup.timed(lambda: encoder.encode(blank))
    return Comparison("tile", name, estimate.tile_seconds, timing.median, timing.disturbed)


def small_text(folder: Path) -> Path:
    """A text model nobody loads, for a shape with nothing but an encoder of interest."""
    architecture = replace(headers.TEXT["0.5B"], n_layers=1, n_vocab=512)
    tensors = headers.text_tensors(architecture, "Q8_0")
    return headers.write_sparse(folder / "small.gguf", headers.text_header(architecture, "Q8_0"), tensors)


def synthetic_text(folder: Path, name: str, layers: int, quant: str, vocabulary: int = VOCABULARY) -> Path:
    """A text model with random weights."""
    architecture = replace(headers.TEXT[name], n_layers=layers, n_vocab=vocabulary)
    header, tensors = headers.text_header(architecture, quant), headers.text_tensors(architecture, quant)
    return write_random(folder / "text.gguf", header, tensors)


def synthetic_encoder(folder: Path, name: str, layers: int, kind: str) -> Path:
    """An mmproj with random weights for a text model as wide as the 0.5B."""
    architecture, width = replace(headers.VISION[name], n_layers=layers), headers.TEXT["0.5B"].n_embd
    header, tensors = (
        headers.mmproj_header(architecture, kind, width),
        headers.mmproj_tensors(architecture, kind, width),
    )
    return write_random(folder / "mmproj.gguf", header, tensors)


def comparisons(setup: Setup, model: Path | None, *, quick: bool) -> Iterator[Comparison]:
    """Everything that is compared, one after another."""
    demo, folder = resolve_model("demo"), setup.folder
    yield from text_comparisons(setup, demo.text, "demo")
    yield tile_comparison(setup, demo.mmproj, "demo", demo.text)
    if quick:
        yield from text_comparisons(setup, synthetic_text(folder, "0.5B", 2, "Q8_0", 1024), "0.5B of 2 layers Q8_0", 64)
        return
    for name, layers, quant in SYNTHETIC:
        yield from text_comparisons(
            setup, synthetic_text(folder, name, layers, quant), f"{name} of {layers} layers {quant}"
        )
    for name, layers, kind in ENCODERS:
        mmproj = synthetic_encoder(folder, name, layers, kind)
        yield tile_comparison(setup, mmproj, f"{name} of {layers} layers {kind}", small_text(folder))
    if model:
        for depth, flash_attn in ((512, False), (512, True), (2048, False), (2048, True)):
            yield from text_comparisons(setup, model, model.stem, depth, flash_attn=flash_attn)


def row(comparison: Comparison) -> str:
    """A line of the table."""
    low, high = comparison.estimated.low, comparison.estimated.high
    remark = "" if comparison.is_hit else "miss"
    if comparison.disturbed:
        remark += " (disturbed)"
    return (
        f"| {comparison.what} | {comparison.configuration} | {low:.3g} to {high:.3g} | {comparison.measured:.3g} |"
        f" {comparison.ratio:.2f} | {remark.strip()} |"
    )


def rates(roofline: Roofline) -> list[str]:
    """A table of what was measured of the host."""
    host = roofline.host
    lines = ["| type | one token, GB/s | 512 tokens, GFLOP/s | encoder, GFLOP/s |", "|---|---|---|---|"]
    for kind, bandwidth in host.bandwidth.items():
        cells = [bandwidth, host.matrix_rate.get(kind), host.encoder_rate.get(kind)]
        texts = [f"{each.low / 1e9:.1f} to {each.high / 1e9:.1f}" if each else "" for each in cells]
        lines.append(f"| {kind} | {' | '.join(texts)} |")
    lines += ["", "| attention | one token, GB/s of keys and values | 512 tokens, GFLOP/s |", "|---|---|---|"]
    for kind, bandwidth in host.attention_bandwidth.items():
        rate = host.attention_rate[kind]
        lines.append(
            f"| {kind} | {bandwidth.low / 1e9:.2f} to {bandwidth.high / 1e9:.2f} |"
            f" {rate.low / 1e9:.1f} to {rate.high / 1e9:.1f} |"
        )
    node = host.node_seconds
    return [*lines, "", f"An operation takes {1e6 * node.low:.1f} to {1e6 * node.high:.1f} µs however small it is.", ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a text GGUF with real weights")
    parser.add_argument("--measure", action="store_true", help="measure the roofline first")
    parser.add_argument("--write", type=Path, help="page to write the tables to")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    arguments = parser.parse_args()
    roofline = measure_roofline(n_threads=arguments.threads) if arguments.measure else recorded_roofline()
    lines = (
        rates(roofline) if roofline else ["Nothing was measured on this machine; the estimates are assumptions.", ""]
    )
    lines += ["| | configuration | estimated | measured | by the middle | |", "|---|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    found: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix="internvl-speed-") as name:
        setup = Setup(roofline, arguments.threads, 0 if arguments.quick else PATIENCE, Path(name))
        for each in comparisons(setup, arguments.model, quick=arguments.quick):
            found.append(each)
            lines.append(row(each))
            print(lines[-1], flush=True)
    if arguments.write:
        write_between_markers(arguments.write, "speed_estimates", [*lines, ""])
    print(json.dumps({**summary(found), "threads": arguments.threads, "measured_roofline": roofline is not None}))


def summary(found: list[Comparison]) -> dict[str, Any]:
    """What the last line says."""
    result: dict[str, Any] = {
        "benchmark": "speed_estimates",
        "build": build(),
        "compared": len(found),
        "hits": sum(each.is_hit for each in found),
        "disturbed": sum(each.disturbed for each in found),
    }
    for what in dict.fromkeys(each.what for each in found):
        ratios = [each.ratio for each in found if each.what == what]
        result[f"{what}_ratio"] = [min(ratios), statistics.median(ratios), max(ratios)]
    return result


if __name__ == "__main__":
    main()
