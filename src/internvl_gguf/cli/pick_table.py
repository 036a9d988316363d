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
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.hardware.device_speed import Range
    from internvl_gguf.planning import Configuration, Task

_GIB: Final = 2**30
_PARTS: Final = ("REST", "VISION", "WEIGHTS", "KV")
_DETAILS: Final = ("FREE RAM", "MMPROJ", "HOST RAM", "BITS", "FILE")
_TELLING: Final = ("LAYERS", "TOKENS/S", "QUESTION", "HOST RAM", "LOSS", "FILE")  # what is missed first
_PLAIN_CACHE: Final = "f16"
_ESTIMATED: Final = "~"
_FAMILY: Final = "InternVL"  # the catalogue knows the models without it, too


@dataclass(frozen=True)
class RankingTable:
    """A table that fits the terminal.

    Attributes:
        head: titles of the columns.
        rows: cells.
        left_out: titles of the columns for which the terminal is too narrow.
    """

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left_out: tuple[str, ...] = ()

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
    all_of, cells = tuple(full[0]), [tuple(row.values()) for row in full]
    head, rows = narrowed(all_of, cells, _least_first(shown, several))
    if several and head != all_of:
        short: list[tuple[str, ...]] = [(name.removeprefix(_FAMILY), *rest) for name, *rest in cells]
        head, rows = narrowed(all_of, short, _least_first(shown, several))
    return RankingTable(head, rows, tuple(title for title in all_of if title not in head))


def _least_first(shown: Sequence[Configuration], several: bool) -> tuple[str, ...]:
    """Return the columns that are left out where the terminal is too narrow; the others are always there.

    A column in which all rows are alike tells less than the size of a file. Several models are compared by the time of
    a question, which has the tokens/s in it, and not by a loss, which is against each model itself.
    """
    is_plain = all(each.request.kv_type == _PLAIN_CACHE for each in shown)
    cache = ("KV TYPE", *_DETAILS) if is_plain else (*_DETAILS, "KV TYPE")
    is_full = all(each.is_full for each in shown)
    order = ("LAYERS", "TOKENS/S", "LOSS") if several else ("LAYERS", "QUESTION")
    last = order if is_full else (*order[1:], order[0])
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
        # Of layers whose experts lie in host memory the rest alone is on the GPU.
        whole = found.gpu_layers - found.host_experts
        parts = f"{whole}+{found.host_experts}" if found.host_experts else f"{whole}"
        columns |= {"LAYERS": f"{parts}/{found.n_layers}"}
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
        say(f"{more} more would run{partly} (--all){left}.")
    for line in (*_of_columns(shown, several, table), *_of_numbers(shown, several)):
        say(line)


def _of_columns(shown: Sequence[Configuration], several: bool, table: RankingTable | None) -> Iterator[str]:
    if table:
        unit = "GiB" if _unit(shown) == _GIB else "MiB"
        if table.left_out:
            few = [title for title in _TELLING if title in table.left_out]
            names = f" ({', '.join(few)}{', …' if len(few) < len(table.left_out) else ''})" if few else ""
            left = counted(len(table.left_out), "more column")
            yield f"{left}{names}: widen the window; --json has all."
        about = "; ~: estimates" if table.has_estimates else ""
        question = " QUESTION: reading it, and writing 200 tokens." * ("QUESTION" in table.head)
        experts = any(each.host_experts for each in shown) and "LAYERS" in table.head
        question += " LAYERS behind +: their experts are in RAM." * experts
        bits = " BITS: of the whole file, a weight." * ("BITS" in table.head)
        yield f"Sizes in {unit}{about}.{bits}{question}"
    if table is None or "LOSS" in table.head:
        scale = "It does not compare models." if several else f"In nats, {SCALE}."
        cache = any(is_quantised(each.request.kv_type) for each in shown)
        doubt = " With ?, 0.02 of it is for the q8_0 cache, measured on one small model (0.5B)." * cache
        yield f"LOSS: against the same model unquantised, a rough guide from Llama-3-8B. {scale}{doubt}"


def _of_numbers(shown: Sequence[Configuration], several: bool) -> Iterator[str]:
    if not several and any(each.candidate.source == "listing" for each in shown):
        yield "Memory comes from the listed sizes of the files; --headers reads their headers for exact numbers."
    assumed = {text.removesuffix(", assumed") for each in shown for text in each.speed.assumed}
    if assumed:
        yield (f"Speeds assume {' and '.join(sorted(assumed))}; `internvl doctor --measure` measures this machine's.")


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
