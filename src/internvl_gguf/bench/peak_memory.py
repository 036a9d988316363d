"""Measure the peak memory of a configuration in its own process, beside the prediction (docs/memory.md)."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from internvl_gguf.bench.local_runtime import local_runtime
from internvl_gguf.bench.results import MemoryResult
from internvl_gguf.bench.speed import StageProgress, ask_about_picture, fill
from internvl_gguf.memory import predict_memory
from internvl_gguf.planning.machine_memory import machine_budget

if TYPE_CHECKING:
    from internvl_gguf.session import Session
    from internvl_gguf.session.in_process_runtime import InProcessRuntime

_STATUS: Final = Path("/proc/self/status")
_PEAK_LINE: Final = "VmHWM:"
_SEED: Final = 2
_HOST: Final = "CPU"


class MemoryMeter:
    """Measures one configuration. Construct it before anything is loaded, since it records the free GPU memory.

    The memory of RPC servers is not measured, only that of this machine.
    """

    def __init__(self) -> None:
        self._free = _free_gpu_memory()

    def measure(self, session: Session, on_progress: StageProgress) -> MemoryResult:
        """Give the session the work that needs the most memory, and return the peak beside the prediction for it.

        That work is a question about a picture, and a context filled to its last position. The predicted host memory
        includes the mapped pages of the file that are no counted weights (`MemoryPlan.page_cache`), as the peak does.
        """
        runtime = local_runtime(session)
        on_progress("fill the context", 0.0)
        _, tiles = ask_about_picture(session)
        _fill_context(runtime, lambda done: on_progress("fill the context", done))
        peak = {_HOST: peak_resident()}
        free = _free_gpu_memory()
        used = runtime.configuration.budget.gpu_numbers
        for number, gpu in enumerate(machine_budget().gpus):
            if number in used and gpu.name in self._free:
                peak[f"GPU{number}"] = max(0, self._free[gpu.name] - free[gpu.name])
        return MemoryResult(planned_bytes(runtime, tiles), peak)


def planned_bytes(runtime: InProcessRuntime, tiles: int) -> dict[str, int]:
    """Return the predicted bytes of each device, with one picture of `tiles` tiles."""
    found = runtime.configuration
    request = replace(found.request, pictures=1, tiles=tiles)
    plan = predict_memory(found.candidate.shape(found.encoder), request)
    gpus = zip(found.budget.gpu_numbers, plan.gpus, strict=True)
    return {_HOST: plan.host.total + plan.page_cache, **{f"GPU{number}": device.total for number, device in gpus}}


def _free_gpu_memory() -> dict[str, int]:
    """Return the free bytes of each GPU of this machine, by its name."""
    return {gpu.name: gpu.free_bytes for gpu in machine_budget().gpus if not gpu.is_remote}


def peak_resident() -> int:
    """Return the largest resident set of this process so far, in bytes, mapped files included."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if _STATUS.exists():  # what getrusage says on Linux can be of the process that started this one
        line = next(line for line in _STATUS.read_text("ascii").splitlines() if line.startswith(_PEAK_LINE))
        return 1024 * int(line.removeprefix(_PEAK_LINE).split()[0])
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _fill_context(runtime: InProcessRuntime, on_progress: Callable[[float], None]) -> None:
    """Read random tokens up to the last position, and decode the token that goes there."""
    engine = runtime.engine
    context = engine.context
    draw = random.Random(_SEED)
    tokens = [draw.randrange(engine.model.n_vocab) for _ in range(context.n_ctx)]
    engine.forget()
    fill(context, tokens[:-1], lambda done: on_progress(done / len(tokens)))
    context.decode_token(tokens[-1], len(tokens) - 1, 0)
    context.likeliest_token()
    context.cut(0, 0)
