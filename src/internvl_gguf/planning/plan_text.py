"""Describe plans in words and tables: where a configuration computes, why it was chosen, what memory it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.config import is_quantised
from internvl_gguf.planning.planner import Configuration, geometric_mean
from internvl_gguf.planning.ranking import NO_LOSS, USABLE_LOSS
from internvl_gguf.planning.workload import Preference
from internvl_gguf.utils.sizes import format_size

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
    """Say where a configuration computes: "all 49 layers and the encoder on the GPU"."""
    used, machine = found.budget.gpus, found.budget.machine_gpus or len(found.budget.gpus)
    if not used:
        return "on the CPU, the GPU left alone" if found.budget.has_gpus else "on the CPU"
    gpus = (
        "the GPU" if machine == 1 else f"{len(used)} GPUs" if len(used) == machine else f"{len(used)} of {machine} GPUs"
    )
    if found.gpu_layers == 0:
        return f"the encoder alone on {gpus}" if found.request.mmproj_on_gpu else f"nothing on {gpus}"
    whole = found.gpu_layers == found.n_layers
    layers = f"all {found.n_layers} layers" if whole else f"{found.gpu_layers} of {found.n_layers} layers"
    if found.request.mmproj_on_gpu:
        return f"{layers} and the encoder on {gpus}"
    return f"{layers} on {gpus}, the encoder on the CPU"


def reason(ranked: Sequence[Configuration], preference: Preference = "balanced") -> str:
    """Say in one sentence what the first of a ranking is, and why it precedes the next that would lose less."""
    best = ranked[0]
    room = min(best.headroom[1:], default=best.headroom[0])
    text = f"{best.candidate.quant}: {placement_text(best)}, {format_size(max(room, 0))} left"
    if is_quantised(best.request.kv_type):
        text += f", with a {best.request.kv_type} KV cache"
    return f"{text}; {_why(best, ranked[1:], preference)}."


def _why(best: Configuration, others: Sequence[Configuration], preference: Preference) -> str:
    if preference == "speed":
        return f"the fastest of those that lose less than {USABLE_LOSS}"
    if preference == "quality":
        return f"what loses least, less than {NO_LOSS} counting as nothing and a larger model as better"
    alike = [other for other in others if other.candidate.model == best.candidate.model]
    if best.budget.has_gpus and not best.is_full:
        whole = any(other.is_full for other in alike)
        return f"no quant lies on the GPU whole{f' without losing more than {USABLE_LOSS}' if whole else ''}"
    better = next((other for other in alike if other.loss < best.loss - NO_LOSS / 2), None)
    if better is None:
        return "no other quant of it that fits is expected to lose less"
    loses = f"{better.candidate.quant} would lose {better.loss:.3f} instead of {best.loss:.3f}"
    if not better.is_full:
        return f"{loses} and leave layers on the CPU"
    seconds, instead = geometric_mean(better.answer_seconds), geometric_mean(best.answer_seconds)
    waits = f"{seconds:.0f} s for an answer instead of {instead:.0f}"
    return f"{loses} and take about {waits}"


def memory_table(found: Configuration) -> str:
    """Return a table of each device's memory by part, with the budget, as lines of text."""
    plan, budget = found.plan, found.budget
    limits = (budget.host, *budget.gpus)
    parts = [part for part in _PART_NAMES if any(getattr(device, part) for device in plan.devices)]
    width = max(len(_PART_NAMES[part]) for part in parts)
    names = ("RAM", *(f"GPU{number}" for number in budget.gpu_numbers))
    columns = list(zip(names, plan.devices, limits, strict=True))
    lines = [f"{'':{width}}" + "".join(f"{name:>12}" for name, _, _ in columns)]
    for part in parts:
        sizes = "".join(f"{format_size(getattr(device, part)):>12}" for _, device, _ in columns)
        lines.append(f"{_PART_NAMES[part]:{width}}{sizes}")
    lines.append(f"{'together':{width}}" + "".join(f"{format_size(device.total):>12}" for _, device, _ in columns))
    lines.append(f"{'there is':{width}}" + "".join(f"{format_size(limit):>12}" for _, _, limit in columns))
    return "\n".join(lines)
