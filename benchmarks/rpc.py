"""A model on RPC servers of this machine beside the same model on its CPU: speed, planned memory, numbers.

Method. Three sessions on the same files with the same settings, each in a worker process: on the CPU, with the text
model on one server, and with it on two servers that share its layers. The servers are those of `internvl rpc-server`,
over the same CPU, on loopback, with as many threads; one computes while the others wait. So this measures what the
protocol costs, and not what a second machine brings. A token is measured as in `worker_cost.py`; reading, by a text
that was never read before, up to the first token of the answer.

Besides, once: the time to load, in which the weights are sent; the log's buffers on each device against the plan's;
the KL divergence of the next token over pictures of `bench`'s set; and the network's share of a token by the formula of
the speed estimate, with round trip and bandwidth as the handshake measured them.

    python benchmarks/rpc.py [--model TEXT.gguf --mmproj MMPROJ.gguf] [--threads N] [--rounds N] [--pictures N]
                             [--quick]

It needs a llama.cpp with RPC, or INTERNVL_GGML_RPC (docs/rpc.md). The last line of the output is one JSON document.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import internvl_gguf
import measure
from internvl_gguf import SamplingParams, Session
from internvl_gguf.hardware.rpc.serving import ServerSettings, free_port, running_server
from internvl_gguf.memory.plan import layer_homes
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.planning.network_share import network_seconds, visits
from internvl_gguf.utils.rpc_addresses import RPCAddress
from measure import Settings
from worker_cost import QUICK_TOKENS, TOKENS, seconds_a_token

LOCAL, ONE, TWO = "this CPU", "one server", "two servers"
PICTURES, QUICK_PICTURES = 12, 2
READ = 1000  # tokens, about
MIB = 2**20
_BUFFER = re.compile(
    r"^(?!reserve_compute_meta)\w+: +(\S+) +(?:(model|output|compute|KV) )buffer size = +([0-9.]+) MiB"
)


def server(owned: ExitStack, threads: int) -> str:
    """Start a server; it ends with the stack."""
    address = RPCAddress("127.0.0.1", free_port("127.0.0.1", 0))
    report, _ = owned.enter_context(running_server(ServerSettings(address, (), threads)))
    return report.endpoint


class Log(logging.Handler):
    """The buffers that llama.cpp tells, by their device and part."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.sizes: dict[str, dict[str, float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if match := _BUFFER.match(record.getMessage()):
            name, part, size = match.groups()
            device = self.sizes.setdefault(name if name.startswith("RPC") else "CPU", {})
            device[part] = device.get(part, 0.0) + float(size)


def opened(files: ModelFiles, servers: Sequence[str], options: dict[str, Any]) -> tuple[Session, Log]:
    """Open a session, and note what llama.cpp logs meanwhile."""
    log, logger = Log(), logging.getLogger("internvl_gguf")
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    try:
        place = {"rpc": servers, "n_gpu_layers": -1} if servers else {"vram": "none", "n_gpu_layers": 0}
        return Session.open(files.text, files.mmproj, worker=True, **{**options, **place}), log
    finally:
        logger.removeHandler(log)
        logger.setLevel(logging.WARNING)


def ask_all(session: Session, tokens: int, turn: int) -> tuple[float, float]:
    """Seconds of a token of an answer, and of a token of a text that is read."""
    session.clear()
    token = seconds_a_token(session, tokens, turn)
    session.clear()
    text = f"Round {turn}: " + "there is a red circle on a white page, and " * (READ // 10)
    started = time.perf_counter()
    usage = session.ask(text, sampling=SamplingParams(max_tokens=1)).usage
    return token, (time.perf_counter() - started) / (usage.prompt_tokens - usage.cached_tokens)


def logprobs(session: Session, count: int) -> np.ndarray:
    """Of the next token of questions about pictures, float64 [questions, n_vocab]."""
    folder = Path(internvl_gguf.__file__).parent / "bench/data/exam"
    lines = (folder / "questions.jsonl").read_text("utf-8").splitlines()
    found = []
    for record in map(json.loads, lines[:: len(lines) // count][:count]):
        session.clear()
        found.append(session.next_token_logprobs(record["prompt"], [folder / record["image"]]))
    return np.stack(found).astype(np.float64)


def divergence(reference: np.ndarray, other: np.ndarray) -> list[float]:
    """Mean and largest KL divergence, in nats."""
    each = (np.exp(reference) * (reference - other)).sum(axis=1)
    return [float(each.mean()), float(each.max())]


def memory_rows(session: Session, log: Log, servers: Sequence[str]) -> list[dict[str, Any]]:
    """Planned and logged MiB of each device: weights, KV cache, compute buffer."""
    names = ["CPU", *(f"RPC0[{each}]" for each in servers)]
    rows = []
    for name, device in zip(names, session.runtime.configuration.plan.devices, strict=True):
        logged = log.sizes.get(name, {})
        planned = {"model": device.weights, "KV": device.kv_cache, "compute": device.compute_buffer}
        for part, size in planned.items():
            rows.append({"device": name, "part": part, "planned": size / MIB, "logged": logged.get(part, 0.0)})
    return rows


def network_milliseconds(session: Session, servers: Sequence[str]) -> dict[str, Any]:
    """The network's share of a token by the formula, at the beginning of a context."""
    found = session.runtime.configuration
    text = found.candidate.text
    known = found.budget.remote or ()
    each = visits(layer_homes(text.n_layers, found.request), known)
    seconds = network_seconds(each, text, tokens=1, attended=256, flash_attn=True, is_new_graph=False)
    links = [{"round_trip": one.round_trip, "bandwidth": one.bandwidth} for one in known if one]
    return {"low": 1e3 * seconds.low, "high": 1e3 * seconds.high, "links": links, "servers": len(servers)}


def main() -> None:
    parser = measure.parser(__doc__, rounds=7, mmproj=True)
    parser.add_argument("--pictures", type=int, help="for the KL divergence; a large encoder takes a minute for one")
    arguments = parser.parse_args()
    files = measure.model_files(arguments)
    settings = Settings(arguments.threads, 4096)
    options: dict[str, Any] = {**settings.engine_options(), "embedding_disk_bytes": 0, "encoder": "llama.cpp"}
    tokens, pictures = (QUICK_TOKENS, QUICK_PICTURES) if arguments.quick else (TOKENS, PICTURES)
    pictures = arguments.pictures or pictures
    result: dict[str, Any] = {}
    with ExitStack() as owned:
        endpoints = {LOCAL: [], ONE: [server(owned, arguments.threads)]}
        endpoints[TWO] = [server(owned, arguments.threads) for _ in range(2)]
        sessions: dict[str, Session] = {}
        loads, numbers = {}, {}
        for name, servers in endpoints.items():
            started = time.perf_counter()
            sessions[name], log = opened(files, servers, options)
            owned.callback(sessions[name].close)
            loads[name] = time.perf_counter() - started
            numbers[name] = logprobs(sessions[name], pictures)
            result[name] = {"load_seconds": loads[name], "memory": memory_rows(sessions[name], log, servers)}
            if servers:
                result[name] |= {
                    "kl": divergence(numbers[LOCAL], numbers[name]),
                    "network_ms": network_milliseconds(sessions[name], servers),
                }
        sides = {name: partial(ask_all, session, tokens) for name, session in sessions.items()}
        found = measure.interleaved(sides, measure.rounds_of(arguments))
    rows = []
    for index, (key, label) in enumerate((("token_ms", "a token, ms"), ("read_ms", "a token read, ms"))):
        milliseconds = {name: [1e3 * each[index] for each in values] for name, values in found.items()}
        more, compared = measure.comparison(milliseconds, label, ours=LOCAL)
        rows += more
        result[key] = compared
    print(measure.table(["", "side", "median (range)", f"{LOCAL} by it"], rows))
    head = ["side", "device", "part", "planned, MiB", "logged, MiB"]
    memory = [
        [name, row["device"].partition("[")[0], row["part"], f"{row['planned']:.2f}", f"{row['logged']:.2f}"]
        for name in endpoints
        for row in result[name]["memory"]
    ]
    print(measure.table(head, memory))
    for name in (ONE, TWO):
        mean, largest = result[name]["kl"]
        share = result[name]["network_ms"]
        print(f"{name}: loaded in {loads[name]:.1f} s; this CPU in {loads[LOCAL]:.1f} s.")
        print(f"  KL divergence of the next token: {mean:.1e}, at most {largest:.1e}.")
        print(f"  By the formula {share['low']:.2f} to {share['high']:.2f} ms of a token on the network.")
    measure.last_line("rpc", arguments, files.text, result)


if __name__ == "__main__":
    main()
