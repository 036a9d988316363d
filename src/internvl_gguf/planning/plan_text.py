"""Describe plans in words and tables: where a configuration computes, why it was chosen, what memory it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.config import is_quantised
from internvl_gguf.hardware.device_speed import Range
from internvl_gguf.planning.loss_scale import NO_LOSS, USABLE_LOSS, loss_in_words
from internvl_gguf.planning.planner import Configuration, geometric_mean
from internvl_gguf.planning.workload import Preference, Workload
from internvl_gguf.utils.sizes import format_size, rounded_size

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


_QUALITY: Final = {
    "nothing": "as exact as the published weights",
    "hardly any": "hardly different from unquantised",
    "very little": "hardly worse than unquantised",
    "little": "a little worse than unquantised",
    "some": "somewhat worse than unquantised",
    "much": "much worse than unquantised",
    "very much": "far worse than unquantised",
}
_NOTICEABLE: Final = 0.8  # a loss is said to be less where it is at most this part of another
_MINUTES: Final = 120.0  # seconds from which on they are told as minutes


def quality_text(found: Configuration) -> str:
    """Say what quantising does to the answers: "a little worse than unquantised"."""
    return _QUALITY[loss_in_words(found.loss)]


def duration_text(seconds: Range) -> str:
    """Say how long something takes, with the digits that an estimate is worth: "7 to 31 s", "3 to 14 minutes"."""
    if seconds.high < 1:
        return "less than 1 s"
    if geometric_mean(seconds) < _MINUTES:
        low, high = (f"{end:.0f}" if end >= 9.5 else f"{end:.1f}" for end in (seconds.low, seconds.high))
        return f"about {low} s" if low == high else f"{low} to {high} s"
    low, high = (f"{max(end / 60, 1):.0f}" for end in (seconds.low, seconds.high))
    return f"about {low} minutes" if low == high else f"{low} to {high} minutes"


def question_text(workload: Workload) -> str:
    """Say what the question is whose time is told: "a question about 2 pictures"."""
    if not workload.pictures:
        return "a question"
    number = "a picture" if workload.pictures == 1 else f"{workload.pictures} pictures"
    return f"a question about {number}"


def verdict(best: Configuration) -> str:
    """Say in one sentence how good a configuration is and how long a question takes."""
    return f"{quality_text(best)}; {question_text(best.workload)} takes {duration_text(best.answer_seconds)}."


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
    """Say in one sentence where the first of a ranking runs, and why it precedes the next that would lose less."""
    best = ranked[0]
    room = min(best.headroom[1:], default=best.headroom[0])
    text = f"{best.candidate.quant}: {placement_text(best)}, {rounded_size(max(room, 0))} left"
    if is_quantised(best.request.kv_type):
        text += f", with a {best.request.kv_type} KV cache"
    return f"{text}; {_why(best, ranked[1:], preference)}."


def _why(best: Configuration, others: Sequence[Configuration], preference: Preference) -> str:
    if preference == "speed":
        return f"the fastest of those that lose less than {USABLE_LOSS}"
    if preference == "quality":
        return "the most exact that fits, of the largest model"
    alike = [other for other in others if other.candidate.model == best.candidate.model]
    if best.budget.has_gpus and not best.is_full:
        whole = any(other.is_full for other in alike)
        return f"no quant fits the GPU whole{f' without losing more than {USABLE_LOSS}' if whole else ''}"
    if best.loss < NO_LOSS:
        return "nothing that could be noticed is lost"
    noticeable = min(best.loss - NO_LOSS / 2, best.loss * _NOTICEABLE)
    better = next((other for other in alike if other.loss < noticeable), None)
    if better is None:
        return "no other quant that fits loses noticeably less"
    loses = f"{better.candidate.quant} would lose less ({better.loss:.1g} instead of {best.loss:.1g})"
    times = geometric_mean(better.answer_seconds) / geometric_mean(best.answer_seconds)
    slower = f"take about {times:.1f} times as long"
    if better.is_full:
        return f"{loses}, but {slower}"
    return f"{loses}, but part of it would run on the CPU{f' and {slower}' if times > 1.05 else ''}"


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
