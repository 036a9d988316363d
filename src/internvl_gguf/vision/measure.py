"""Measure a tile in OpenVINO: a child process of `hardware.encoder_precision`, as `llama.measure.encoder` is.

    python -m internvl_gguf.vision.measure "openvino f32" "openvino bf16"

The same block of InternViT-300M's shape, with the same weights.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from gguf import GGMLQuantizationType

from internvl_gguf.gguf.header import read_header
from internvl_gguf.gguf.validation import validate_mmproj
from internvl_gguf.hardware.cores import default_threads
from internvl_gguf.llama.measure.encoder import write_block
from internvl_gguf.llama.measure.timing import Timing, time_repeatedly
from internvl_gguf.vision.openvino_encoder import EncoderPrecision, OpenVINOEncoder, has_bfloat16


def encoder_timing(precision: EncoderPrecision, n_threads: int) -> Timing:
    """Time one tile through one block and the projector, with `n_threads` CPU threads."""
    with tempfile.TemporaryDirectory(prefix="internvl-speed-") as folder:
        path = Path(folder, "mmproj.gguf")
        write_block(path, GGMLQuantizationType.F16)
        header = read_header(path)
        facts = validate_mmproj(header)
        encoder = OpenVINOEncoder(path, header, facts, precision=precision, n_threads=n_threads, keep=False)
        tile = [bytes(3 * facts.image_size**2)]
        return time_repeatedly(lambda: encoder.encode(tile), n_threads)


def main() -> None:
    """Print one JSON line for each precision named on the command line that the CPU has, as soon as it is measured."""
    n_threads = default_threads()
    for label in sys.argv[1:]:
        precision: EncoderPrecision = "bf16" if label.endswith("bf16") else "f32"
        if precision == "bf16" and not has_bfloat16():
            continue
        print(json.dumps({label: encoder_timing(precision, n_threads).median}), flush=True)


if __name__ == "__main__":
    main()
