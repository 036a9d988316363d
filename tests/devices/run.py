"""The demo model on given devices, in a process of its own: what it answered, what was planned, what was logged.

The process reads its request from stdin and prints its result, JSON both. It has a process of its own since llama.cpp
keeps devices for as long as a process lives, and ends it where a device is lost.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import internvl_gguf
from internvl_gguf import Session
from internvl_gguf.memory import predict_memory
from tests.devices.servers import environment

_BUFFER = re.compile(r"^(\w+): +(\S+) +(?:(model|output|compute|KV) )buffer size = +([0-9.]+) MiB")
_NEW_MODEL = "llama_model_loader: loaded meta data"
_LAYER = re.compile(r"layer +\d+ assigned to device (\S+?),")
_ENCODER = re.compile(r"CLIP using (\S+) backend")
MIB = 2**20


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Attributes:
        answers: to the questions.
        logprobs: of the next token of each question, float32 [questions, n_vocab].
        notices: what the person was told.
        gpus: names of the GPUs that were used, in the order of the plan.
        layers: device of each layer and of the output matrix, by the log.
        encoder: device of the vision encoder, by the log.
        gpu_layers: layers on GPUs, by the plan.
        planned, logged: bytes by device ("CPU", or a GPU's name) and part; the encoder's buffer is that of one tile.
    """

    answers: list[str]
    logprobs: NDArray[np.float32]
    notices: list[str]
    gpus: list[str]
    layers: list[str]
    encoder: str
    gpu_layers: int
    planned: dict[str, dict[str, int]]
    logged: dict[str, dict[str, int]] = field(default_factory=dict)


def run(options: dict[str, Any], *, servers: Sequence[str] = (), vulkan: str = "", questions: int = 1) -> Result:
    """Open the demo model with these options and ask questions about pictures.

    Args:
        options: of `Session.open`.
        servers: RPC servers to use.
        vulkan: numbers of the Vulkan devices to use, with commas; "" for none.
        questions: how many to ask, 12 at most.
    """
    done = start({"options": options, "questions": questions}, servers=servers, vulkan=vulkan)
    output, errors = done.communicate()
    if done.returncode != 0:
        raise AssertionError(f"status {done.returncode} with {options}:\n{errors}")
    answer = json.loads(output.splitlines()[-1])
    return Result(**answer | {"logprobs": np.array(answer["logprobs"], np.float32)})


def start(request: dict[str, Any], *, servers: Sequence[str] = (), vulkan: str = "") -> subprocess.Popen[str]:
    """Start such a process; its request is written, its end is the caller's to wait for."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.devices.run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(servers, vulkan=vulkan, program="tests.devices.run"),
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return process


class _Log(logging.Handler):
    """The lines of llama.cpp."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if line.startswith(_NEW_MODEL):  # what comes before it was another one, or another try
            self.lines.clear()
        self.lines.append(line)


def main() -> None:
    """Answer the request on stdin."""
    request = json.loads(sys.stdin.readline())
    log = _Log()
    logger = logging.getLogger("internvl_gguf.llama")
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    told: list[str] = []
    options = {"n_threads": 1, "embedding_disk_bytes": 0, "n_ctx": 2048, **request["options"]}
    with Session.open("demo", on_notice=told.append, **options) as session:
        if "pause" in request:  # for whoever wants to do something to a server now
            print("open", flush=True)
            sys.stdin.readline()
        answers, logprobs = [], []
        for prompt, picture in exam_questions(request["questions"]):
            logprobs.append(session.next_token_logprobs(prompt, [picture]).tolist())
            answers.append(session.ask(prompt, [picture]).text)
            session.clear()
        found = session.runtime.configuration
        gpus = session.runtime._used_gpus  # type: ignore[attr-defined]
        names = ["CPU", *(gpu.name for gpu in gpus)]
        by_buffer = {gpu.buffer: gpu.name for gpu in gpus}
        encoder = next(name for line in log.lines for name in _ENCODER.findall(line))
        one_tile = replace(found.request, tiles_per_batch=1)
        plan = predict_memory(found.candidate.shape(found.encoder), one_tile)
        result = Result(
            answers=answers,
            logprobs=logprobs,  # type: ignore[arg-type]  # a list for JSON
            notices=told,
            gpus=[gpu.name for gpu in gpus],
            layers=[name for line in log.lines for name in _LAYER.findall(line)],
            encoder=by_buffer.get(encoder, encoder),
            gpu_layers=found.gpu_layers,
            planned={
                name: {
                    "compute": device.compute_buffer,
                    "KV": device.kv_cache,
                    "encoder": device.mmproj_compute_buffer,
                    "model": device.weights,
                }
                for name, device in zip(names, plan.devices, strict=True)
            },
            logged=logged_buffers(log.lines, by_buffer),
        )
    print(json.dumps(vars(result)))


def exam_questions(count: int) -> list[tuple[str, Path]]:
    """Questions about pictures that the package carries for `bench`, of every kind."""
    folder = Path(internvl_gguf.__file__).parent / "bench/data/exam"
    lines = (folder / "questions.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines[:: len(lines) // 12][:count]]
    return [(record["prompt"], folder / record["image"]) for record in records]


def logged_buffers(lines: Sequence[str], names: dict[str, str]) -> dict[str, dict[str, int]]:
    """Buffers by device and part; what lies in pinned or reordered memory is the host's."""
    sizes: dict[str, dict[str, int]] = {}
    for line in lines:
        match = _BUFFER.match(line)
        if not match:
            continue
        function, buffer, part, size = match.groups()
        part = "encoder" if function == "reserve_compute_meta" else part
        device = sizes.setdefault(names.get(buffer, "CPU"), {})
        device[part] = device.get(part, 0) + round(float(size) * MIB)
    return sizes


if __name__ == "__main__":
    main()
