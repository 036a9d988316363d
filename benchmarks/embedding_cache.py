"""What a picture seen before costs: the first question about it, in one process and again in another.

Method. A text model and an mmproj of published shapes are written without weights (`model_headers.py`): zeros are
multiplied as fast as anything else. A picture of noise is cut into 13 tiles. Each round begins with an empty cache
folder and asks the same question, with an answer of one token, in processes of their own: with the disk cache turned
off, on for the first time (encodes and writes), and again (reads). The order of the first two changes each round.
Reported are medians over the rounds, in seconds: until the first token, and from there to the end of `close`, in which
what is left to write is waited for. A table of its own gives the store alone, per tile, for each width of text model.

Run with nothing else on the machine: native threads that share a core with anything slow down several times.

    python benchmarks/embedding_cache.py [--text 0.5B] [--quant Q4_K_M] [--rounds N] [--threads N]

The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import model_headers as headers
import numpy as np

from internvl_gguf.embedding_store import EmbeddingStore
from internvl_gguf.this_machine import default_threads

MIB = 1024**2
STORE_TILES = 26
WIDTHS = (896, 1536, 3584, 5120, 8192)
MODES = ("off", "first", "again")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", choices=headers.TEXT, default="0.5B", help="shape of the text model")
    parser.add_argument("--quant", choices=headers.QUANTS, default="Q4_K_M")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--child", choices=("load", *MODES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(ask(args.folder, args.threads, args.child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        store = measure_store(Path(folder))
        write_models(Path(folder), args.text, args.quant)
        asked = measure_questions(Path(folder), args)
    print(json.dumps({"store_ms_per_tile": store, "questions": asked}))


def measure_store(folder: Path) -> dict[int, dict[str, float]]:
    """Milliseconds to write and to read a tile's 256 rows, medians, for each width."""
    found = {}
    print("width    MiB    write ms    read ms")
    for width in WIDTHS:
        store = EmbeddingStore(folder / f"store-{width}", 2**40)
        tiles = {
            index.to_bytes(16): np.random.default_rng(index).standard_normal((256, width), dtype=np.float32)
            for index in range(STORE_TILES)
        }
        write = statistics.median(seconds(store.put, key, tile) for key, tile in tiles.items())
        read = statistics.median(seconds(store.get, key) for key in tiles)
        store.clear()
        found[width] = {"write": 1e3 * write, "read": 1e3 * read}
        print(f"{width:5} {1024 * width / MIB:6.2f} {1e3 * write:11.1f} {1e3 * read:10.1f}")
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
    tensors = headers.mmproj_tensors(vision, "F16", shape.width)
    headers.write_sparse(folder / "mmproj.gguf", headers.mmproj_header(vision, "F16", shape.width), tensors)


def measure_questions(folder: Path, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians over the rounds of what a question takes in each mode."""
    runs: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    run_child(folder, args, "load")  # a warm-up: corrected copy, probe, file system cache
    for index in range(args.rounds):
        EmbeddingStore(folder / "cache" / "embeddings", 0).clear()
        order = ("off", "first", "again") if index % 2 else ("first", "again", "off")
        for mode in order:
            runs[mode].append(run_child(folder, args, mode))
    print("\ndisk cache   tiles encoded   encode s   prefill s   first token s   then until closed s")
    medians = {}
    for mode in MODES:
        median = {name: statistics.median(run[name] for run in runs[mode]) for name in runs[mode][0]}
        medians[mode] = median
        print(
            f"{mode:10} {median['tiles_encoded']:15.0f} {median['encode']:10.2f} {median['prefill']:11.2f} "
            f"{median['first_token']:15.2f} {median['close']:21.3f}"
        )
    return medians


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
    options = {"embedding_disk_bytes": 0} if mode == "off" else {}
    session = Session.open(folder / "text.gguf", folder / "mmproj.gguf", n_threads=threads, **options)
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
