"""What a picture seen before costs: the first question about it, in one process and again in another.

Method. A text model and an mmproj of published shapes are written without weights (`model_headers.py`): zeros are
multiplied as fast as anything else. A picture of noise is cut into 13 tiles. Each round begins with an empty cache
folder and asks the same question, with an answer of one token, in processes of their own: with the disk cache turned
off, on for the first time (encodes and writes), and again (reads). Whether off comes first or last changes each round.
Reported are medians over the rounds with their range, in seconds: until the first token, and from there to the end of
`close`, in which what is left to write is waited for. A table of its own gives the store alone, per tile, for each
width of text model.

Run with nothing else on the machine: native threads that share a core with anything slow down several times.

    python benchmarks/embedding_cache.py [--text 0.5B] [--quant Q4_K_M] [--rounds N] [--threads N] [--quick]

--quick is one round with the demo model. The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import measure
import model_headers as headers
from internvl_gguf.config import EngineOptions
from internvl_gguf.engine.embedding_store import EmbeddingStore
from internvl_gguf.hardware.cores import default_threads
from internvl_gguf.llama.library import build
from internvl_gguf.models.resolve import resolve_model

MIB = 1024**2
STORE_TILES, QUICK_STORE_TILES = 26, 4
WIDTHS, QUICK_WIDTHS = (896, 1536, 3584, 5120, 8192), (896,)
MODES = ("off", "first", "again")
TIMES = {
    "encode": "encode, s",
    "prefill": "prefill, s",
    "first_token": "first token, s",
    "close": "then until closed, s",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", choices=headers.TEXT, default="0.5B", help="shape of the text model")
    parser.add_argument("--quant", choices=headers.QUANTS, default="Q4_K_M")
    parser.add_argument("--rounds", type=measure.positive, default=3)
    parser.add_argument("--threads", type=measure.positive, default=default_threads())
    parser.add_argument("--quick", action="store_true", help="one round with the demo model, to see that it runs")
    parser.add_argument("--child", choices=("load", *MODES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(ask(args.folder, args.threads, args.child)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.quick:
            store = measure_store(folder, QUICK_WIDTHS, QUICK_STORE_TILES)
            copy_demo(folder)
        else:
            store = measure_store(folder, WIDTHS, STORE_TILES)
            write_models(folder, args.text, args.quant)
        asked = measure_questions(folder, args)
    about = {
        "benchmark": "embedding_cache",
        "build": build(),
        "threads": args.threads,
        "rounds": measure.rounds_of(args),
    }
    print(json.dumps({**about, "store_ms_per_tile": store, "questions": asked}))


def measure_store(folder: Path, widths: tuple[int, ...], count: int) -> dict[int, dict[str, float]]:
    """Milliseconds to write and to read a tile's 256 rows, medians, for each width."""
    found, rows = {}, []
    for width in widths:
        store = EmbeddingStore(folder / f"store-{width}", 2**40)
        tiles = {
            index.to_bytes(16): np.random.default_rng(index).standard_normal((256, width), dtype=np.float32)
            for index in range(count)
        }
        write = 1e3 * statistics.median(seconds(store.put, key, tile) for key, tile in tiles.items())
        read = 1e3 * statistics.median(seconds(store.get, key) for key in tiles)
        store.clear()
        found[width] = {"write": write, "read": read}
        rows.append([str(width), f"{1024 * width / MIB:.2f}", measure.number(write), measure.number(read)])
    print(measure.table(["width", "MiB", "write, ms", "read, ms"], rows), end="\n\n", flush=True)
    return found


def seconds(call: Any, *arguments: Any) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def write_models(folder: Path, text: str, quant: str) -> None:
    """A text model and an InternViT-300M of the given shapes, all zeros."""
    shape, vision = headers.TEXT[text], headers.VISION["InternViT-300M"]
    tensors = headers.text_tensors(shape, quant)
    headers.write_sparse(folder / "text.gguf", headers.text_header(shape, quant), tensors)
    tensors = headers.mmproj_tensors(vision, "F16", shape.n_embd)
    headers.write_sparse(folder / "mmproj.gguf", headers.mmproj_header(vision, "F16", shape.n_embd), tensors)


def copy_demo(folder: Path) -> None:
    """The demo model in the place of those."""
    files = resolve_model("demo")
    shutil.copy(files.text, folder / "text.gguf")
    shutil.copy(files.mmproj, folder / "mmproj.gguf")


def measure_questions(folder: Path, args: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """What a question takes in each mode: medians over the rounds, with their range."""
    runs: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    if not args.quick:
        run_child(folder, args, "load")  # a warm-up: corrected copy, probe, file system cache
    for index in range(measure.rounds_of(args)):
        EmbeddingStore(folder / "cache" / "embeddings", 0).clear()
        order = ("off", "first", "again") if index % 2 else ("first", "again", "off")
        for mode in order:
            runs[mode].append(run_child(folder, args, mode))
    spreads = {
        mode: {name: measure.Spread(tuple(run[name] for run in several)) for name in several[0]}
        for mode, several in runs.items()
    }
    rows = [
        [mode, f"{found['tiles_encoded'].median:.0f}", *(str(found[name]) for name in TIMES)]
        for mode, found in spreads.items()
    ]
    print(measure.table(["disk cache", "tiles encoded", *TIMES.values()], rows))
    return {mode: {name: spread.as_json() for name, spread in found.items()} for mode, found in spreads.items()}


def run_child(folder: Path, args: argparse.Namespace, mode: str) -> dict[str, float]:
    """One question in a process of its own."""
    command = [sys.executable, __file__, "--child", mode, "--folder", str(folder), "--threads", str(args.threads)]
    environment = {**os.environ, "INTERNVL_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def ask(folder: Path, threads: int, mode: str) -> dict[str, float]:
    """What one question about the picture took; mode "load" asks none."""
    from internvl_gguf import SamplingParams, Session

    picture = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    options: EngineOptions = {"n_threads": threads}
    if mode == "off":
        options["embedding_disk_bytes"] = 0
    session = Session.open(folder / "text.gguf", folder / "mmproj.gguf", **options)
    if mode == "load":
        session.close()
        return {}
    reply = session.ask("What is it?", [picture], sampling=SamplingParams(max_tokens=1))
    closing = seconds(session.close)
    return {
        "tiles_encoded": reply.usage.tiles_encoded,
        "encode": reply.timings.encode,
        "prefill": reply.timings.prefill,
        "first_token": reply.timings.time_to_first_token,
        "close": closing,
    }


if __name__ == "__main__":
    main()
