"""Memory of the vision encoder in OpenVINO, as planned and as the system counts it.

Method. Each configuration is loaded in a process of its own, once to compile it and once more from the kept graph,
which is what counts: compiling holds the weights twice. Measured is the anonymous memory of the process after two
batches were encoded, less that before the encoder was loaded. Mapped files (the mmproj, the kept graph) are left out:
the system drops them when it needs the memory.

    python benchmarks/encoder_memory.py MMPROJ.gguf TEXT.gguf [--write docs/memory.md]

`benchmarks/real_size.py` makes both files. The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import get_args

from internvl_gguf.config import EncoderKind
from internvl_gguf.gguf.header import read_header
from internvl_gguf.gguf.validation import validate_mmproj
from internvl_gguf.memory import shape_from_headers
from internvl_gguf.memory.openvino_memory import openvino_activations, openvino_weights
from internvl_gguf.vision.openvino_encoder import EncoderPrecision, OpenVINOEncoder
from pages import write_between_markers

MIB = 1024**2
KINDS: tuple[EncoderKind, ...] = ("openvino f32", "openvino bf16")
BATCHES = (1, 4)


def anonymous_bytes() -> int:
    """Anonymous memory of this process, as Linux counts it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(mmproj: Path, precision: EncoderPrecision, tiles: int) -> int:
    """Bytes that this process takes for an encoder that has encoded two batches."""
    header = read_header(mmproj)
    facts = validate_mmproj(header)
    before = anonymous_bytes()
    encoder = OpenVINOEncoder(mmproj, header, facts, precision=precision, n_threads=2, tiles_per_batch=tiles)
    for _ in range(2):
        encoder.encode([bytes(3 * facts.image_size**2)] * tiles)
    return anonymous_bytes() - before


def measured_in_child(mmproj: Path, kind: EncoderKind, tiles: int, cache: str) -> int:
    """Bytes of an encoder loaded from its kept graph."""
    command = [sys.executable, __file__, str(mmproj), "--child", kind, str(tiles)]
    environment = {**os.environ, "INTERNVL_CACHE": cache}
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mmproj", type=Path)
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--child", nargs=2, metavar=("KIND", "TILES"))
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    if asked.child:
        kind, tiles = asked.child
        precision = next(each for each in get_args(EncoderPrecision) if kind.endswith(each))
        print(measure(asked.mmproj, precision, int(tiles)))
        return
    vision = shape_from_headers([read_header(asked.text)], read_header(asked.mmproj)).vision
    if vision is None:
        raise SystemExit("The mmproj has no vision encoder.")
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for kind in KINDS:
            for tiles in BATCHES:
                planned = openvino_weights(vision, kind) + openvino_activations(vision, tiles, kind)
                rows.append((kind, tiles, planned, measured_in_child(asked.mmproj, kind, tiles, cache)))
    lines = ["| encoder | tiles at once | planned, MiB | measured, MiB | error |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {kind} | {tiles} | {planned / MIB:,.0f} | {measured / MIB:,.0f} | {planned / measured - 1:+.1%} |"
        for kind, tiles, planned, measured in rows
    ]
    print("\n".join(lines))
    if asked.write:
        write_between_markers(asked.write, "encoder_memory", [*lines, ""])
    print(json.dumps({"benchmark": "encoder_memory", "rows": rows}))


if __name__ == "__main__":
    main()
