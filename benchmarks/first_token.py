"""Time to the first token of the first answer about a picture of 13 tiles, with each vision encoder and in PyTorch.

Method. Each side is a process of its own that has loaded the model and has never seen the picture: ours with the
encoder in llama.cpp and in OpenVINO (in the precision that suits the CPU, compiled before), llama-server over HTTP,
and with --pytorch transformers' `InternVLForConditionalGeneration` of the same shape in bfloat16, with random weights,
given the pixels and as many tokens. Threads, context and batch sizes are the same; ours and llama-server have flash
attention on and an F16 cache. A round is each side once, in an order that changes; there is no warm-up round.

    python benchmarks/first_token.py [--model TEXT.gguf] [--mmproj MMPROJ.gguf] [--tools DIR] [--threads N] [--rounds N]
                                     [--pytorch] [--quick]

Without --model the embedded demo model is measured. Run with nothing else on the machine. The last line of the output
is one JSON document.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import measure
import peers
from internvl_gguf import SamplingParams, Session
from internvl_gguf.config import EncoderLibrary
from internvl_gguf.gguf.header import read_header
from internvl_gguf.memory import shape_from_headers
from internvl_gguf.models.resolve import ModelFiles
from measure import Settings
from ours import TILES, picture_of_tiles
from second_question_children import FIRST, N_CTX, conversation

LIBRARIES: tuple[EncoderLibrary, ...] = ("llama.cpp", "openvino")
IMAGE_TOKEN = 0  # of the random weights
TEXT_TOKENS = 60  # of system message and question


def ask_ours(files: ModelFiles, settings: Settings, picture: bytes, library: EncoderLibrary) -> float:
    """Seconds to the first token in this process."""
    options = settings.engine_options()
    options["encoder"] = library
    with Session.open(files.text, files.mmproj, **options) as session:
        reply = session.ask(FIRST, [picture], sampling=SamplingParams(max_tokens=1))
    return reply.timings.time_to_first_token


def ask_pytorch(files: ModelFiles, settings: Settings) -> float:
    """Seconds to the first token of the same shapes in transformers, in this process."""
    import torch
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    torch.set_num_threads(settings.threads)
    shape = shape_from_headers([read_header(files.text)], read_header(files.mmproj))
    text, vision = shape.text, shape.vision
    assert vision is not None
    config = InternVLConfig(
        vision_config={
            "hidden_size": vision.n_embd,
            "num_hidden_layers": vision.n_layers,
            "num_attention_heads": vision.n_head,
            "intermediate_size": vision.n_ff,
            "attention_bias": True,
            "image_size": [vision.image_size] * 2,
            "patch_size": [vision.patch_size] * 2,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": text.n_vocab,
            "hidden_size": text.n_embd,
            "num_hidden_layers": text.n_layers,
            "num_attention_heads": text.n_head,
            "num_key_value_heads": text.n_head_kv,
            "intermediate_size": text.n_ff,
            "tie_word_embeddings": text.output is None,
        },
        image_token_id=IMAGE_TOKEN,
        image_seq_length=vision.tokens_per_tile,
        downsample_ratio=0.5,
    )
    torch.set_default_dtype(torch.bfloat16)
    model = InternVLForConditionalGeneration(config).eval()
    pixels = torch.randn(TILES, 3, vision.image_size, vision.image_size)
    pictures = torch.full((1, TILES * vision.tokens_per_tile), IMAGE_TOKEN)
    tokens = torch.cat([torch.randint(1, 100, (1, TEXT_TOKENS)), pictures], dim=1)
    started = time.perf_counter()
    with torch.inference_mode():
        model.generate(input_ids=tokens, pixel_values=pixels, max_new_tokens=1, do_sample=False, pad_token_id=0)
    return time.perf_counter() - started


class Sides:
    """One model and one picture, asked on each side.

    Args:
        folder: for the picture and our caches.
        files: the model.
        settings: the same for all.
    """

    def __init__(self, folder: Path, files: ModelFiles, settings: Settings) -> None:
        self._folder, self._files, self._settings = folder, files, settings
        self._picture = picture_of_tiles(files.mmproj)
        (folder / "picture.jpg").write_bytes(self._picture)

    def child(self, side: str, _turn: int) -> float:
        """Seconds on a side in a process of its own that knows no embeddings."""
        shutil.rmtree(self._folder / "cache" / "embeddings", ignore_errors=True)
        request = {
            "text": str(self._files.text),
            "mmproj": str(self._files.mmproj),
            "picture": str(self._folder / "picture.jpg"),
            "threads": self._settings.threads,
        }
        done = subprocess.run(
            [sys.executable, __file__, "--child", side],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "INTERNVL_CACHE": str(self._folder / "cache")},
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{side} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
        return float(done.stdout.splitlines()[-1])

    def server(self, tool: Path, _turn: int) -> float:
        """Seconds in llama-server."""
        with peers.Server(tool, self._files.text, self._files.mmproj, self._settings) as server:
            return server.ask(conversation(self._picture, FIRST), 1).first_token


def child(side: str, request: dict[str, Any]) -> float:
    """What a process measures for a side."""
    files = ModelFiles("model", Path(request["text"]), Path(request["mmproj"]))
    settings = Settings(request["threads"], N_CTX)
    if side == "pytorch":
        return ask_pytorch(files, settings)
    library = next(each for each in LIBRARIES if each == side)
    return ask_ours(files, settings, Path(request["picture"]).read_bytes(), library)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(child(sys.argv[2], json.load(sys.stdin)))
        return
    parser = measure.parser(__doc__, rounds=3, mmproj=True, tools=True)
    parser.add_argument("--pytorch", action="store_true", help="compare with PyTorch and transformers")
    arguments = parser.parse_args()
    files = measure.model_files(arguments)
    tool = peers.find_tool("llama-server", arguments)
    with tempfile.TemporaryDirectory(prefix="internvl-first-") as name:
        asked = Sides(Path(name), files, Settings(arguments.threads, N_CTX))
        sides: dict[str, Callable[[int], float]] = {
            "ours, OpenVINO": partial(asked.child, "openvino"),
            "ours, llama.cpp": partial(asked.child, "llama.cpp"),
        }
        if tool:
            sides["llama-server"] = partial(asked.server, tool)
        if arguments.pytorch:
            sides["transformers bf16"] = partial(asked.child, "pytorch")
        asked.child("openvino", 0)  # compiles its graph, which is kept
        found = measure.interleaved(sides, measure.rounds_of(arguments), warm_up=0)
    rows, result = measure.comparison(found, "first token", ours="ours, OpenVINO")
    print(f"Seconds to the first token, a picture of {TILES} tiles, {arguments.threads} threads.\n")
    print(measure.table(["", "side", "s, median (range)", "OpenVINO/other"], rows))
    measure.last_line("first_token", arguments, files.text, {"tiles": TILES, "first_token": result})


if __name__ == "__main__":
    main()
