"""Describe plans in words and tables: where a configuration computes, why it was chosen, what memory it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.config import is_quantised
from internvl_gguf.hardware.device_speed import Range
from internvl_gguf.planning.loss_scale import LITTLE_LOSS, NO_LOSS, USABLE_LOSS, loss_in_words
from internvl_gguf.planning.planner import Configuration, geometric_mean
from internvl_gguf.planning.task_scores import Task
from internvl_gguf.planning.workload import MemoryBudget, Preference, Workload
from internvl_gguf.utils.sizes import counted, format_size, rounded_size

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
    low, high, unit = _duration(seconds)
    unit = "minutes" if unit == "min" else unit
    return f"about {low} {unit}" if low == high else f"{low} to {high} {unit}"


def short_duration_text(seconds: Range) -> str:
    """Say the same for a table: "7.3-31 s", "3-14 min"."""
    if seconds.high < 1:
        return "< 1 s"
    low, high, unit = _duration(seconds)
    return f"{low} {unit}" if low == high else f"{low}-{high} {unit}"


def two_digits(value: float) -> str:
    """Return a number with the two digits that an estimate is worth: "7.3", "37", "1,700"."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 9.5 else f"{value:.1f}"


def _duration(seconds: Range) -> tuple[str, str, str]:
    if geometric_mean(seconds) < _MINUTES:
        return two_digits(seconds.low), two_digits(seconds.high), "s"
    low, high = (two_digits(max(round(end / 60), 1)).removesuffix(".0") for end in (seconds.low, seconds.high))
    return low, high, "min"


def question_text(workload: Workload) -> str:
    """Say what the question is whose time is told: "a question about 2 pictures"."""
    if not workload.pictures:
        return "a question"
    about = "a picture" if workload.pictures == 1 and not workload.are_frames else workload.pictures_text
    return f"a question about {about}"


def verdict(best: Configuration) -> str:
    """Say in one sentence how good a configuration is and how long a question takes."""
    return f"{quality_text(best)}; {question_text(best.workload)} takes {duration_text(best.answer_seconds)}."


def placement_text(found: Configuration) -> str:
    """Say where a configuration computes: "all 49 layers and the encoder on the GPU"."""
    used, machine = found.budget.gpus, found.budget.machine_gpus or len(found.budget.gpus)
    if not used:
        alone = "the GPU" if found.budget.has_local_gpus else "the RPC server"
        return f"on the CPU, {alone} left alone" if found.budget.has_gpus else "on the CPU"
    one = "the RPC server" if found.budget.is_remote(0) else "the GPU"
    gpus = one if machine == 1 else _all_gpus(found.budget) if len(used) == machine else _some_gpus(found.budget)
    if found.gpu_layers == 0:
        return f"the encoder alone on {gpus}" if found.request.mmproj_on_gpu else f"nothing on {gpus}"
    whole = found.gpu_layers == found.n_layers
    layers = f"all {found.n_layers} layers" if whole else f"{found.gpu_layers} of {found.n_layers} layers"
    experts = f", but the experts of {counted(found.host_experts, 'layer')} in RAM" if found.host_experts else ""
    if found.request.mmproj_on_gpu:
        return f"{layers} and the encoder on {gpus}{experts}"
    return f"{layers} on {gpus}{experts}, the encoder on the CPU"


def device_names(budget: MemoryBudget) -> tuple[str, ...]:
    """Return the names of the GPUs of a budget: "GPU0", or "RPC0" for that of a server, by their number."""
    return tuple(
        f"{'RPC' if budget.is_remote(index) else 'GPU'}{number}" for index, number in enumerate(budget.gpu_numbers)
    )


def _all_gpus(budget: MemoryBudget) -> str:
    """Count the GPUs where all are used: "2 GPUs", "2 devices of RPC servers", "1 of an RPC server and 1 GPU"."""
    local = len(budget.local_gpus)
    remote = len(budget.gpus) - local
    if not remote:
        return f"{local} GPUs"
    if local:
        return f"{remote} of {'an RPC server' if remote == 1 else 'RPC servers'} and {counted(local, 'GPU')}"
    return f"{remote} devices of RPC servers"


def _some_gpus(budget: MemoryBudget) -> str:
    """Name the GPUs that are used where others are left alone."""
    names = " and ".join(device_names(budget))
    others = "the other" if budget.machine_gpus == len(budget.gpus) + 1 else "the others"
    return f"{names}, {others} left alone"


def _room_text(found: Configuration) -> str:
    """Say how much memory is left where the weights lie: "1.2 GiB left", "3.2 GiB left on GPU0, 6.2 GiB on GPU1"."""
    gpus = found.headroom[1:]
    if len(gpus) < 2:
        return f"{rounded_size(max((gpus or found.headroom)[0], 0))} left"
    first, *others = (
        f"{rounded_size(max(room, 0))}{{}} on {name}"
        for room, name in zip(gpus, device_names(found.budget), strict=True)
    )
    return ", ".join((first.format(" left"), *(other.format("") for other in others)))


def reason(ranked: Sequence[Configuration], preference: Preference = "balanced", task: Task | None = None) -> str:
    """Say in one sentence where the first of a ranking runs, and why it precedes the next that would lose less."""
    best = ranked[0]
    text = f"{best.candidate.quant}: {placement_text(best)}, {_room_text(best)}"
    if is_quantised(best.request.kv_type):
        text += f", with a {best.request.kv_type} KV cache"
    return f"{text}; {_why(best, ranked[1:], preference, task)}."


def _why(best: Configuration, others: Sequence[Configuration], preference: Preference, task: Task | None) -> str:
    several = len({each.candidate.model for each in (best, *others)}) > 1
    if preference == "speed":
        small = ", which are mostly of a small model" if several else ""
        small += "; points do not count with --speed" if task else ""
        return f"the fastest of those that lose at most {LITTLE_LOSS}{small}"
    if preference == "quality":
        most = "points" if task else "weights"
        return f"{f'the least lost for the most {most}' if several else 'the most exact that fits'}, however slow"
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
    names = ("RAM", *device_names(budget))
    columns = list(zip(names, plan.devices, limits, strict=True))
    lines = [f"{'':{width}}" + "".join(f"{name:>12}" for name, _, _ in columns)]
    for part in parts:
        sizes = "".join(f"{format_size(getattr(device, part)):>12}" for _, device, _ in columns)
        lines.append(f"{_PART_NAMES[part]:{width}}{sizes}")
    lines.append(f"{'together':{width}}" + "".join(f"{format_size(device.total):>12}" for _, device, _ in columns))
    lines.append(f"{'there is':{width}}" + "".join(f"{format_size(limit):>12}" for _, _, limit in columns))
    return "\n".join(lines)
