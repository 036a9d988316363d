"""A plan in words and tables: why a quant is the best, what would fit, why something does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.memory import MemoryPlan
from internvl_gguf.planning.search import QUANTISED, Configuration
from internvl_gguf.planning.workload import Budget
from internvl_gguf.sizes import format_size

_PART_NAMES: Final = {
    "weights": "weights",
    "kv_cache": "KV cache",
    "mmproj_weights": "vision encoder",
    "compute_buffer": "compute buffer",
    "mmproj_compute_buffer": "encoder's buffer",
    "embeddings": "embeddings",
    "output_buffer": "logits",
    "work_buffer": "work buffer",
    "overhead": "process, driver",
}


def placement_text(found: Configuration) -> str:
    """Where a configuration computes, in words: "all 49 layers and the encoder on the GPU"."""
    if not found.budget.gpus:
        return "on the CPU"
    gpu = "the GPU" if len(found.budget.gpus) == 1 else f"{len(found.budget.gpus)} GPUs"
    encoder = "the encoder" if found.request.mmproj_on_gpu else "the encoder on the CPU"
    if found.gpu_layers == 0:
        return f"the encoder alone on {gpu}" if found.request.mmproj_on_gpu else f"nothing on {gpu}"
    layers = (
        f"all {found.n_layers} layers"
        if found.gpu_layers == found.n_layers
        else (f"{found.gpu_layers} of {found.n_layers} layers")
    )
    if found.request.mmproj_on_gpu:
        return f"{layers} and {encoder} on {gpu}"
    return f"{layers} on {gpu}, {encoder}"


def reason(ranked: Sequence[Configuration]) -> str:
    """One sentence: why the first of a ranking is the best."""
    best = ranked[0]
    others = [other for other in ranked[1:] if other.candidate.model == best.candidate.model]
    room = min(best.headroom[1:], default=best.headroom[0])
    text = f"{best.candidate.quant}: {placement_text(best)}, {format_size(max(room, 0))} left"
    if best.request.kv_type in QUANTISED:
        text += f", with a {best.request.kv_type} KV cache"
    better = max((other for other in others if other.loss < best.loss), key=lambda other: other.loss, default=None)
    if best.budget.gpus and not best.is_full:
        whole = [other for other in others if other.is_full]
        if not whole:
            return f"{text}; no quant lies on the GPU whole."
        return f"{text}; those that lie on it whole lose too much ({whole[0].candidate.quant}: {whole[0].loss:.2f})."
    if better is None:
        return f"{text}; no other quant that fits is expected to lose less."
    if not better.is_full:
        return f"{text}; {better.candidate.quant} would lose less and leave layers on the CPU."
    if better.request.kv_type in QUANTISED and best.request.kv_type not in QUANTISED:
        return f"{text}; larger ones would need a {better.request.kv_type} KV cache."
    return f"{text}; {better.candidate.quant} would lose less and be slower."


def memory_table(plan: MemoryPlan, budget: Budget) -> str:
    """Each device's memory by part, with what there is of it, as lines of text."""
    limits = (budget.host, *budget.gpus)
    parts = [part for part in _PART_NAMES if any(getattr(device, part) for device in plan.devices)]
    width = max(len(_PART_NAMES[part]) for part in parts)
    names = ("RAM", *(f"GPU{index}" for index in range(len(plan.gpus))))
    columns = list(zip(names, plan.devices, limits, strict=True))
    lines = [f"{'':{width}}" + "".join(f"{name:>12}" for name, _, _ in columns)]
    for part in parts:
        sizes = "".join(f"{format_size(getattr(device, part)):>12}" for _, device, _ in columns)
        lines.append(f"{_PART_NAMES[part]:{width}}{sizes}")
    lines.append(f"{'together':{width}}" + "".join(f"{format_size(device.total):>12}" for _, device, _ in columns))
    lines.append(f"{'there is':{width}}" + "".join(f"{format_size(limit):>12}" for _, _, limit in columns))
    return "\n".join(lines)
