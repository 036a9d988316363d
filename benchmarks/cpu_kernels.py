"""Prefill and decode with llama.cpp's own layouts of weights on the CPU and with weights as they lie in the file.

Method. A model of the 7B's shape, cut to two layers, is made of random weights in each quant. Both sides are loaded at
once; a round reads 512 tokens and decodes 32, each side once, in an order that changes from round to round. The last
column is what `internvl_gguf.planning.cpu_kernels` chooses for a question about a picture of 13 tiles: by what
`internvl doctor --measure` found on this machine, if it was run, else by the CPU's features.

    python benchmarks/cpu_kernels.py [--threads N] [--rounds N] [--write docs/performance.md] [--quick]

Run with nothing else on the machine. --quick is one round of one quant of the 0.5B. The last line of the output is one
JSON document.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure
from internvl_gguf.config import EngineConfig
from internvl_gguf.gguf.header import read_header
from internvl_gguf.hardware.identity import processor_name
from internvl_gguf.hardware.roofline import recorded_roofline
from internvl_gguf.llama.context import Context, TokenRun
from internvl_gguf.llama.model import TextModel
from internvl_gguf.memory import shape_from_headers
from internvl_gguf.planning.cpu_kernels import plain_is_faster
from pages import write_between_markers
from speed_estimates import synthetic_text

QUANTS = ("Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "IQ4_XS")
PROMPT, ANSWER = 512, 32
PICTURE, WRITTEN = 13 * 256 + 100, 200
"""Tokens read and written of the question that the choice is made for."""
SIDES = {"llama.cpp's": True, "as in the file": False}


@dataclass(frozen=True)
class Speed:
    """Tokens a second."""

    prefill: float
    decode: float


def run(context: Context, prompt: list[int], _turn: int) -> Speed:
    """Read a prompt into an empty context and decode behind it."""
    context.cut(0, 0)
    started = time.perf_counter()
    context.decode_many([TokenRun(prompt, 0, 0, outputs=1)])
    read = time.perf_counter()
    for index in range(ANSWER):
        context.decode_token(prompt[index], PROMPT + index, 0)
    written = time.perf_counter()
    return Speed(PROMPT / (read - started), ANSWER / (written - read))


def measured(path: Path, threads: int, rounds: int) -> dict[str, list[Speed]]:
    """Both sides of one model."""
    prompt = [7 + index % 64 for index in range(PROMPT)]
    with ExitStack() as owned:
        contexts = {}
        for name, extra in SIDES.items():
            model = owned.enter_context(TextModel(path, n_gpu_layers=0, use_extra_bufts=extra))
            config = EngineConfig(n_gpu_layers=0)
            contexts[name] = owned.enter_context(Context(model, config, n_ctx=PROMPT + 2 * ANSWER, n_threads=threads))
        return measure.interleaved({name: partial(run, each, prompt) for name, each in contexts.items()}, rounds)


def chosen(path: Path) -> str:
    """The side that this machine takes for a question about a picture."""
    roofline = recorded_roofline()
    text = shape_from_headers([read_header(path)]).text
    host = roofline.host if roofline else None
    is_plain = plain_is_faster(text, host, n_prompt=PICTURE, n_answer=WRITTEN)
    return next(name for name, extra in SIDES.items() if extra != is_plain)


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    name, quants = ("0.5B", QUANTS[:1]) if arguments.quick else ("7B", QUANTS)
    rows, result = [], dict[str, Any]()
    path = Path()
    for quant in quants:
        with tempfile.TemporaryDirectory() as folder:
            path = synthetic_text(Path(folder), name, 2, quant)
            found = measured(path, arguments.threads, measure.rounds_of(arguments))
            choice = chosen(path)
        result[quant] = {"chosen": choice}
        for phase in ("prefill", "decode"):
            values = {side: [getattr(each, phase) for each in speeds] for side, speeds in found.items()}
            _, result[quant][phase] = measure.comparison(values, phase, ours="as in the file")
            spreads = [str(measure.Spread(tuple(each))) for each in values.values()]
            ratio = measure.ratios(values["as in the file"], values["llama.cpp's"])
            rows.append([quant, phase, *spreads, str(ratio), choice])
    head = ["quant", "phase", "llama.cpp's layouts, tokens/s", "as in the file, tokens/s", "file/llama.cpp", "chosen"]
    table = measure.table(head, rows)
    print(f"{processor_name()}, {arguments.threads} threads\n\n{table}")
    if arguments.write:
        write_between_markers(arguments.write, "cpu_kernels", table.splitlines())
    measure.last_line("cpu_kernels", arguments, path, result)


if __name__ == "__main__":
    main()
