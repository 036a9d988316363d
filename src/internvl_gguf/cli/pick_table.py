"""The table of `internvl pick`, as wide as the terminal, and the lines that explain it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from internvl_gguf.cli.output import narrowed, say
from internvl_gguf.cli.pick_task import points_text
from internvl_gguf.config import is_quantised
from internvl_gguf.planning.loss_scale import SCALE, loss_in_words
from internvl_gguf.planning.plan_text import short_duration_text, two_digits

if TYPE_CHECKING:
    from internvl_gguf.hardware.device_speed import Range
    from internvl_gguf.planning import Configuration, Task

_GIB: Final = 2**30
_PARTS: Final = ("REST", "VISION", "WEIGHTS", "KV")
_DETAILS: Final = ("FREE RAM", "MMPROJ", "HOST RAM", "BITS", "FILE")
_PLAIN_CACHE: Final = "f16"
_ESTIMATED: Final = "~"
_FAMILY: Final = "InternVL"  # the catalogue knows the models without it, too


@dataclass(frozen=True)
class RankingTable:
    """A table that fits the terminal.

    Attributes:
        head: titles of the columns.
        rows: cells.
    """

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    @property
    def has_estimates(self) -> bool:
        """Whether a size is marked as an estimate."""
        return any(_ESTIMATED in cell for row in self.rows for cell in row)


def ranking_table(shown: Sequence[Configuration], several: bool, task: Task | None = None) -> RankingTable:
    """Return the table of a ranking; parts of the memory are sums over all devices.

    Args:
        shown: the rows.
        several: whether they are of several models.
        task: the task whose published points are shown; None for none.
    """
    unit = _unit(shown)
    full = [
        _columns(each, several, lambda size: f"{size / unit:.2f}")
        | ({task.upper(): points_text(each.candidate, task)} if task else {})
        for each in shown
    ]
    head, rows = narrowed(tuple(full[0]), [tuple(row.values()) for row in full], _least_first(shown))
    if several and "QUESTION" not in head:
        rows = [(name.removeprefix(_FAMILY), *rest) for name, *rest in rows]
    return RankingTable(head, rows)


def _least_first(shown: Sequence[Configuration]) -> tuple[str, ...]:
    """Return the columns that are left out where the terminal is too narrow; the others are always there.

    A column in which all rows are alike tells less than the size of a file.
    """
    is_plain = all(each.request.kv_type == _PLAIN_CACHE for each in shown)
    cache = ("KV TYPE", *_DETAILS) if is_plain else (*_DETAILS, "KV TYPE")
    last = ("LAYERS", "QUESTION") if all(each.is_full for each in shown) else ("QUESTION", "LAYERS")
    return (*_PARTS, *cache, *last)


def _columns(found: Configuration, several: bool, number: Callable[[int], str]) -> dict[str, str]:
    candidate, plan = found.candidate, found.plan
    weights = sum(device.weights for device in plan.devices)
    cache = sum(device.kv_cache for device in plan.devices)
    vision = sum(device.mmproj_weights + device.mmproj_compute_buffer + device.embeddings for device in plan.devices)
    about = _ESTIMATED if candidate.source == "estimate" else ""
    columns = {"MODEL": f"{candidate.model}:{candidate.quant}"} if several else {"QUANT": candidate.quant}
    columns |= {"FILE": about + number(candidate.size), "BITS": f"{candidate.bits_per_weight:.2f}"}
    has_gpus = found.budget.has_gpus
    if has_gpus:
        columns |= {"LAYERS": f"{found.gpu_layers}/{found.n_layers}"}
    place = " GPU" if found.request.mmproj_on_gpu else " CPU" if has_gpus else ""
    columns |= {
        "KV TYPE": found.request.kv_type,
        "MMPROJ": f"{found.encoder.name}{place}",
        "WEIGHTS": number(weights),
        "KV": number(cache),
        "VISION": number(vision),
        "REST": number(plan.total - weights - cache - vision),
    }
    if has_gpus:
        columns |= {
            "VRAM": "+".join(about + number(gpu.total) for gpu in plan.gpus) or "-",
            "FREE": "+".join(number(room) for room in found.headroom[1:]) or "-",
            "HOST RAM": about + number(plan.host.total),
            "FREE RAM": number(found.headroom[0]),
        }
    else:
        columns |= {"RAM": about + number(plan.host.total), "FREE": number(found.headroom[0])}
    return columns | {
        "TOKENS/S": range_text(found.speed.decode),
        "QUESTION": short_duration_text(found.answer_seconds),
        "LOSS": loss_text(found, several),
    }


def print_footnotes(
    shown: Sequence[Configuration], several: bool, table: RankingTable | None = None, more: int = 0, too_large: int = 0
) -> None:
    """Print to stderr what the columns mean, and where the numbers come from.

    Args:
        shown: the rows.
        several: whether they are of several models.
        table: the rows as they are shown; None if no table is.
        more: quants that fit and are not shown.
        too_large: quants that do not fit.
    """
    if more:
        left = f"; {too_large} would not" if too_large else ""
        partly = ", some perhaps partly on the CPU" if shown[0].budget.has_gpus else ""
        say(f"{more} more would run{partly} (--all shows them){left}.")
    for line in (*_of_columns(shown, several, table), *_of_numbers(shown)):
        say(line)


def _of_columns(shown: Sequence[Configuration], several: bool, table: RankingTable | None) -> Iterator[str]:
    if table:
        unit = "GiB" if _unit(shown) == _GIB else "MiB"
        about = " Sizes marked ~ are estimates." if table.has_estimates else ""
        question = " A question: reading it with its pictures, and writing 200 tokens." * ("QUESTION" in table.head)
        bits = " BITS: of the whole file, a weight." * ("BITS" in table.head)
        yield f"Sizes in {unit}.{about}{bits}{question}"
    scale = "It does not compare models." if several else f"In nats, {SCALE}."
    yield f"LOSS: what quantising costs against the same model unquantised, a rough guide from Llama-3-8B. {scale}"
    if any(is_quantised(each.request.kv_type) for each in shown):
        yield (
            "LOSS with ?: 0.02 of it is for the q8_0 cache, measured on one small model (0.5B). Larger ones may lose "
            "less."
        )


def _of_numbers(shown: Sequence[Configuration]) -> Iterator[str]:
    if any(each.candidate.source == "listing" for each in shown):
        yield "Memory comes from the listed sizes of the files; --headers reads their headers for exact numbers."
    assumed = {text.removesuffix(", assumed") for each in shown for text in each.speed.assumed}
    if assumed:
        yield (
            f"Speeds assume {' and '.join(sorted(assumed))}, of which half to nine tenths are reached: "
            "hence the ranges. `internvl doctor --measure` measures this machine's."
        )


def _unit(shown: Sequence[Configuration]) -> int:
    """Return GiB as the unit, or MiB for very small models."""
    return _GIB if max(each.candidate.size for each in shown) >= _GIB // 4 else 2**20


def loss_text(found: Configuration, several: bool) -> str:
    """Return a loss in words, with its order of magnitude if all rows are of one model: "little 0.03"."""
    number = "" if several or not found.loss else f" {found.loss:.1g}"
    return f"{loss_in_words(found.loss)}{number}{' ?' if is_quantised(found.request.kv_type) else ''}"


def range_text(value: Range | None) -> str:
    """Return a range with two digits for each end; one number if both are the same."""
    if value is None:
        return "-"
    low, high = two_digits(value.low), two_digits(value.high)
    return low if low == high else f"{low}-{high}"
