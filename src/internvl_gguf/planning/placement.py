"""Choose how to load a local model: the user's settings, else what fits, else smaller fallbacks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from internvl_gguf.config import DEFAULT_N_UBATCH, EncoderKind, EngineConfig
from internvl_gguf.errors import InsufficientMemoryError, LibraryError, ModelFileError
from internvl_gguf.hardware.roofline import recorded_roofline
from internvl_gguf.planning.candidates import Candidate, Encoder
from internvl_gguf.planning.plan_text import memory_table, placement_text
from internvl_gguf.planning.planner import Configuration, Planner
from internvl_gguf.planning.ranking import cost_of
from internvl_gguf.planning.workload import MemoryBudget, Workload
from internvl_gguf.tiling import MAX_TILES
from internvl_gguf.utils.sizes import format_size

if TYPE_CHECKING:
    from internvl_gguf.memory import ModelShape

# Fractions of the memory that did not fit on the GPUs; tried after a failure, before leaving the GPUs alone.
_GPU_FRACTIONS: Final = (0.85, 0.7, 0.5)
_MEMORY: Final = re.compile(r"\balloc|\broom\b|\bmemory\b", re.IGNORECASE)
_SMALL_UBATCH: Final = 128
_SMALL_CONTEXT: Final = 2048


def placements(
    name: str,
    shape: ModelShape,
    config: EngineConfig,
    n_ctx: int,
    n_threads: int,
    budget: MemoryBudget,
    host_ubatch: int = DEFAULT_N_UBATCH,
    budget_now: Callable[[], MemoryBudget] | None = None,
    encoder: EncoderKind = "llama.cpp",
    max_tiles: int = MAX_TILES,
) -> Iterator[Configuration]:
    """Yield ways to load a model, the best first; the next one is for after the one before has failed to load.

    Args:
        name: name of the model in errors.
        shape: shape of both halves, from their headers.
        config: the requested settings. Settings that the user fixed stay.
        n_ctx: positions of one conversation.
        n_threads: CPU threads.
        budget: free memory of this machine.
        host_ubatch: see `Workload.host_ubatch`.
        budget_now: returns the free memory after a failure, since other programs may have taken some; None takes
            `budget`.
        encoder: what is to encode pictures on the CPU; llama.cpp does where that does not fit or has failed.
        max_tiles: most tiles of a picture, the thumbnail not counted.

    Raises:
        InsufficientMemoryError: nothing fits, and `config.force` is not set.
    """
    if shape.vision is None:
        raise ValueError("a shape without a vision half")
    mmproj = Encoder("mmproj", "", shape.vision.weight_bytes, shape.vision)
    candidate = Candidate(
        name, name, "", sum(weight.n_bytes for weight in shape.text.weights), 0.0, "header", shape.text, (mmproj,)
    )
    workload = Workload.of(config, n_ctx, n_threads, host_ubatch, max_tiles=max_tiles)
    encoders: tuple[EncoderKind, ...] = ("llama.cpp",) if encoder == "llama.cpp" else (encoder, "llama.cpp")
    for context, kind in itertools.product(_contexts(workload.n_ctx, config), encoders):
        found = _placed(candidate, config, replace(workload, n_ctx=context, encoder=kind), budget)
        if found:
            break
    else:
        asked = _as_requested(candidate, config, workload, budget)
        found = asked[0] if asked else _planner(budget, workload).smallest(candidate)
        if not config.force:
            raise too_large_error(found)
    yield found
    yield from _smaller_fallbacks(found, candidate, config, budget_now or (lambda: budget))


def too_large_error(smallest: Configuration) -> InsufficientMemoryError:
    """Return the error for a model whose smallest configuration does not fit."""
    missing = f"{format_size(smallest.shortage)} of {'RAM' if smallest.headroom[0] < 0 else 'GPU memory'}"
    return InsufficientMemoryError(
        f"{smallest.candidate.model} does not fit this machine: {missing} are missing for a "
        f"context of {smallest.request.n_ctx:,}.",
        "Take a smaller quant or model (`internvl pick` lists what fits), a smaller context or fewer conversations. "
        "force=True loads it all the same.",
        table=memory_table(smallest),
    )


def with_memory_hint(
    error: LibraryError | ModelFileError, configuration: Configuration
) -> LibraryError | ModelFileError:
    """Return the error of a failed load, with a hint for the tried configuration if memory was the reason."""
    if not _MEMORY.search(error.message):
        return error
    request = configuration.request
    others = "a smaller quant or context (n_ctx), or fewer conversations"
    if configuration.gpu_layers or request.mmproj_on_gpu:
        hint = f"Put fewer layers on the GPU (n_gpu_layers), allow less of it (vram), or take {others}."
    else:
        hint = f"End other programs, or take {others}."
    return type(error)(error.message, hint)


def describe(configuration: Configuration) -> str:
    """Describe a configuration in a few words."""
    request = configuration.request
    where = f"{placement_text(configuration)}, " if configuration.budget.has_gpus else ""
    return f"{where}a context of {request.n_ctx:,} tokens, batches of {request.n_ubatch}"


def _contexts(n_ctx: int, config: EngineConfig) -> Iterator[int]:
    """Yield the context, and smaller ones if the user did not ask for that one."""
    yield n_ctx
    while config.n_ctx is None and n_ctx > _SMALL_CONTEXT:
        n_ctx = max(n_ctx // 2, _SMALL_CONTEXT)
        yield n_ctx


def _planner(budget: MemoryBudget, workload: Workload) -> Planner:
    return Planner(budget, workload, recorded_roofline(), cost_of("balanced"))


def _as_requested(
    candidate: Candidate, config: EngineConfig, workload: Workload, budget: MemoryBudget
) -> list[Configuration]:
    """Return configurations with the requested layers, encoder on a GPU first; none if their number was left open."""
    if config.n_gpu_layers == "auto" or not budget.gpus:
        return []
    most = candidate.text.n_layers + 1
    layers = most if config.n_gpu_layers == -1 else min(config.n_gpu_layers, most)
    planner = _planner(budget, workload)
    places = (True, False) if layers and budget.encoder_gpu is not None else (False,)
    return [planner.with_layers(candidate, layers, mmproj_on_gpu=on_gpu) for on_gpu in places]


def _placed(
    candidate: Candidate, config: EngineConfig, workload: Workload, budget: MemoryBudget
) -> Configuration | None:
    """Return the best configuration, or the requested one; None if it does not fit."""
    asked = _as_requested(candidate, config, workload, budget)
    if not asked:
        return _planner(budget, workload).best(candidate)
    return next((each for each in asked if each.fits), asked[0] if config.force else None)


def _smaller_fallbacks(
    tried: Configuration, candidate: Candidate, config: EngineConfig, budget_now: Callable[[], MemoryBudget]
) -> Iterator[Configuration]:
    """Yield configurations that take less than one that has failed."""
    budget, workload = tried.budget, replace(tried.workload, n_ubatch=tried.request.n_ubatch)
    layers, mmproj_on_gpu = tried.gpu_layers, tried.request.mmproj_on_gpu
    if workload.encoder != "llama.cpp":
        workload = replace(workload, encoder="llama.cpp")
        yield _planner(budget, workload).with_layers(candidate, layers, mmproj_on_gpu=mmproj_on_gpu)
    if config.n_gpu_layers == "auto" and (layers or mmproj_on_gpu):
        yield from _fallbacks_on_gpus(tried, candidate, workload, budget_now)
        layers, mmproj_on_gpu = 0, False
        budget = budget.smaller()[-1]
        yield _planner(budget, workload).with_layers(candidate, 0, mmproj_on_gpu=False)
    elif mmproj_on_gpu:
        mmproj_on_gpu = False
        yield _planner(budget, workload).with_layers(candidate, layers, mmproj_on_gpu=False)
    if tried.request.n_ubatch > _SMALL_UBATCH:
        workload = replace(workload, n_ubatch=_SMALL_UBATCH)
        yield _planner(budget, workload).with_layers(candidate, layers, mmproj_on_gpu=mmproj_on_gpu)
    for n_ctx in list(_contexts(workload.n_ctx, config))[1:]:
        workload = replace(workload, n_ctx=n_ctx)
        yield _planner(budget, workload).with_layers(candidate, layers, mmproj_on_gpu=mmproj_on_gpu)


def _fallbacks_on_gpus(
    tried: Configuration, candidate: Candidate, workload: Workload, budget_now: Callable[[], MemoryBudget]
) -> Iterator[Configuration]:
    """Yield configurations that take less of the GPUs than one that has failed, down to half of it.

    A GPU that refused an allocation has less memory than it reports; other programs may have taken some of another.
    """
    taken = {number: gpu.total for number, gpu in zip(tried.budget.gpu_numbers, tried.plan.gpus, strict=True)}
    least = sum(taken.values())
    for part in (1.0, *_GPU_FRACTIONS):
        now = budget_now()
        free = dict(zip(now.gpu_numbers, now.gpus, strict=True))
        room = [min(free.get(number, 0), int(part * total)) for number, total in taken.items()]
        if part == 1.0 and room == list(taken.values()):
            continue
        less = _planner(replace(tried.budget, host=now.host, gpus=tuple(room)), workload).best(candidate)
        if less and 0 < sum(gpu.total for gpu in less.plan.gpus) < least:
            least = sum(gpu.total for gpu in less.plan.gpus)
            yield less
