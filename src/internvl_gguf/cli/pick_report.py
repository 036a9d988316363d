"""What `internvl pick` prints: a table, a sentence why, one quant explained, or JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from internvl_gguf.cli.output import columns, print_json, print_lines, print_table, say
from internvl_gguf.config import DEFAULT_N_CTX
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.filenames import ModelCopy, Quant, RepoFile, find_copy, nearest_names
from internvl_gguf.hardware.roofline import recorded_roofline
from internvl_gguf.models.names import DEMO
from internvl_gguf.planning import (
    USABLE_LOSS,
    Candidate,
    Configuration,
    Planner,
    cost_of,
    memory_table,
    nothing_fits,
    placement_text,
    rank,
    reason,
    ways_to_fit,
)
from internvl_gguf.tiling import MAX_TILES
from internvl_gguf.utils.sizes import format_size

if TYPE_CHECKING:
    from internvl_gguf.cli.picks import Picks
    from internvl_gguf.hardware.device_speed import Range

_GIB = 2**30
_SHOWN = 8
_LEAST_FIRST = ("REST", "VISION", "WEIGHTS", "KV", "FREE RAM", "BITS", "MMPROJ", "RAM", "FILE")


def print_picks(picks: Picks, ranked: list[Configuration], show_all: bool, json_output: bool) -> None:
    """The ranking; where nothing fits, what would.

    Raises:
        InsufficientMemoryError: nothing fits.
    """
    candidates = [candidate for listing in picks.listings for candidate in listing.candidates]
    is_whole = bool(ranked) and ranked[0].is_full and ranked[0].loss <= USABLE_LOSS
    is_as_asked = bool(ranked) and picks.preference != "balanced"  # advice is for what lies on the GPUs whole
    advice = [] if is_whole or is_as_asked else _advice(picks, candidates, whole=bool(ranked))
    if json_output:
        print_json(_document(picks, candidates, ranked, advice))
        if not ranked:
            raise typer.Exit(1)
        return
    if not ranked:
        smallest = min(candidates, key=lambda candidate: candidate.size)
        _print_advice(advice, fits=False)
        raise nothing_fits(smallest, picks.budget, picks.workload, recorded_roofline())
    print_lines(_headline(picks))
    several = len(picks.listings) > 1
    shown = ranked if show_all else ranked[:_SHOWN]
    print_lines(f"Best: {ranked[0].candidate.model + ':' if several else ''}{reason(ranked, picks.preference)}")
    _print_advice(advice, fits=True)
    print_lines()
    print_table(*_table(shown, several))
    print_lines(f"Run it:\n  {_command(ranked[0])}", wrap=False)
    _print_footnotes(shown, len(ranked), len(candidates))


def explain(picks: Picks, wanted: str, json_output: bool) -> None:
    """One quant: what it takes by part, what that leaves, and where it stands among the others.

    Raises:
        InvalidRequestError: no such quant.
    """
    candidates = [candidate for listing in picks.listings for candidate in listing.candidates]
    candidate = _find(candidates, wanted)
    roofline = recorded_roofline()
    ranked = rank(candidates, picks.budget, picks.workload, roofline, picks.preference)
    found = next((each for each in ranked if each.candidate == candidate), None)
    if json_output:
        print_json(_row(found) if found else {"quant": candidate.quant, "model": candidate.model, "fits": False})
        return
    print_lines(_headline(picks))
    if found is None:
        found = Planner(picks.budget, picks.workload, roofline, cost_of(picks.preference)).smallest(candidate)
        print_lines(
            f"{candidate.quant} does not fit: {format_size(found.shortage)} are missing in the way that takes least."
        )
        print_lines(memory_table(found), wrap=False)
        return
    place = ranked.index(found) + 1
    several = len(picks.listings) > 1
    name = f"{candidate.model}:{candidate.quant}" if several else candidate.quant
    print_lines(f"{name}, {place} of {len(ranked)} that fit: {placement_text(found)}, KV {found.request.kv_type}.")
    if place > 1:
        best = ranked[0]
        model = f"{best.candidate.model}:" if several else ""
        print_lines(f"The best is {model}{reason(ranked, picks.preference)}")
        print_lines(
            f"It is expected to lose {_loss(best)} and to take {_range(best.answer_seconds)} s for an answer; this one "
            f"{_loss(found)} and {_range(found.answer_seconds)} s."
        )
    print_lines(
        f"{format_size(candidate.size)}, {candidate.bits_per_weight:.2f} bits a weight; expected to lose "
        f"{_loss(found)} (mean KL divergence from the published weights, from published measurements of another model)."
    )
    speed = found.speed
    print_lines(
        f"About {_range(speed.decode)} tokens/s, {_range(speed.prefill)} read; a picture of "
        f"{found.workload.tiles_per_picture} tiles takes {_range(speed.picture_seconds)} s."
    )
    print_lines()
    print_lines(memory_table(found), wrap=False)
    _print_footnotes([found], 1, 1)


def _headline(picks: Picks) -> str:
    budget, workload = picks.budget, picks.workload
    ours = "this machine's " if picks.ram_is_ours else ""
    ram = f"{ours}{format_size(budget.host)} of RAM"
    gpus = " + ".join(format_size(gpu) for gpu in budget.gpus)
    memory = f"{gpus} of VRAM and {ram}" if gpus else f"{ram}, no GPU"
    vision = picks.listings[0].shape.vision
    positions = workload.picture_positions(vision.tokens_per_tile if vision else 0)
    number = "1 picture" if workload.pictures == 1 else f"{workload.pictures} pictures"
    pictures = f" with {number} ({workload.tiles} tiles, {positions:,} positions)" if workload.pictures else ""
    several = f", {workload.n_parallel} at once" if workload.n_parallel > 1 else ""
    return f"For {memory}: a context of {workload.n_ctx:,}{pictures}{several}."


def _table(shown: Sequence[Configuration], several: bool) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows; parts of the memory are those of all devices together."""
    unit = _unit(shown)
    rows = _narrowed([_columns(each, several, lambda size: f"{size / unit:.2f}") for each in shown])
    return tuple(rows[0]), [tuple(row.values()) for row in rows]


def _narrowed(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Without the columns that matter least, as far as the terminal is too narrow for them."""
    fewer = rows
    for name in ("", *_LEAST_FIRST):
        fewer = [{title: value for title, value in row.items() if title != name} for row in fewer]
        # A column has two blanks at its right, and the table one at its left.
        if sum(max(len(title), *(len(row[title]) for row in fewer)) + 2 for title in fewer[0]) + 1 <= columns():
            return fewer
    return rows  # so narrow that each row gets a paragraph, which has room for all


def _columns(found: Configuration, several: bool, number: Callable[[int], str]) -> dict[str, str]:
    candidate, plan = found.candidate, found.plan
    weights = sum(device.weights for device in plan.devices)
    cache = sum(device.kv_cache for device in plan.devices)
    vision = sum(device.mmproj_weights + device.mmproj_compute_buffer + device.embeddings for device in plan.devices)
    columns = {"MODEL": f"{candidate.model}:{candidate.quant}"} if several else {"QUANT": candidate.quant}
    columns |= {"FILE": number(candidate.size), "BITS": f"{candidate.bits_per_weight:.2f}"}
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
            "VRAM": "+".join(number(gpu.total) for gpu in plan.gpus) or "-",
            "FREE": "+".join(number(room) for room in found.headroom[1:]) or "-",
        }
    return columns | {
        "RAM": number(plan.host.total),
        "FREE RAM": number(found.headroom[0]),
        "TOKENS/S": _range(found.speed.decode),
        "PICTURE": f"{_range(found.speed.picture_seconds)} s",
        "LOSS": _loss(found),
    }


def _print_footnotes(shown: Sequence[Configuration], fitting: int, candidates: int) -> None:
    if fitting > len(shown):
        say(f"{fitting - len(shown)} more fit, whole or in part on the CPU (--all); {candidates - fitting} do not.")
    unit = "GiB" if _unit(shown) == _GIB else "MiB"
    cache = " and 0.02 for a q8_0 cache" if any(each.request.kv_type == "q8_0" for each in shown) else ""
    say(f"Sizes in {unit}. LOSS: the mean KL divergence published for such quants of another model{cache}.")
    sources = {each.candidate.source for each in shown}
    if "listing" in sources:
        say("Memory comes from the listed sizes of the files; --headers reads their headers for exact numbers.")
    if "estimate" in sources:
        say("Nobody has listed the files of some of these: their sizes are estimates.")
    assumed = {text.removesuffix(", assumed") for each in shown for text in each.speed.assumed}
    if assumed:
        say(f"Speeds assume {' and '.join(sorted(assumed))}.")
        say("`internvl doctor --measure` measures this machine's.")


def _print_advice(advice: Sequence[str], *, fits: bool) -> None:
    if advice:
        say("What would fit whole:" if fits else "What would fit:")
        for line in advice:
            say(f"  {line}")


def _advice(picks: Picks, candidates: Sequence[Candidate], *, whole: bool) -> list[str]:
    from internvl_gguf.models.listing import family

    largest = max(candidate.text.parameters for candidate in candidates)
    smaller = [each for each in family() if each.shape.text.parameters < 0.9 * largest]
    smaller.sort(key=lambda each: -each.shape.text.parameters)
    others = [each.candidates for each in smaller] if len(picks.listings) == 1 else []
    ways = ways_to_fit(candidates, others, picks.budget, picks.workload, recorded_roofline(), whole=whole)
    return list(ways)


def _find(candidates: Sequence[Candidate], wanted: str) -> Candidate:
    """The quant that a person means, as QUANT or MODEL:QUANT.

    Raises:
        InvalidRequestError: there is none, or several models have it.
    """
    model, colon, quant = wanted.rpartition(":")
    meant = [each for each in candidates if not colon or each.model.lower() == model.lower()]
    copies = {
        ModelCopy(Quant.parse(each.quant), (RepoFile(f"{each.model}/{each.file or each.quant}", each.size),)): each
        for each in meant
    }
    found = find_copy(tuple(copies), quant)
    alike = [each for each in meant if found and each.quant == copies[found].quant]
    if len({each.model for each in alike}) > 1:
        raise InvalidRequestError(
            f"Several models have {quant}.", f"Name one: {', '.join(f'{each.model}:{each.quant}' for each in alike)}."
        )
    if found is None:
        near = ", ".join(nearest_names(tuple(copies), quant))
        raise InvalidRequestError(
            f"There is no quant {wanted!r}{f', the nearest are {near}' if near else ''}.",
            f"There are {', '.join(dict.fromkeys(each.quant for each in meant or candidates))}.",
        )
    return copies[found]


def _command(found: Configuration) -> str:
    """What to type to run a configuration."""
    request, workload = found.request, found.workload
    words = ["internvl", "ask", f"{found.candidate.model}:{found.candidate.quant}", '"What is it?"', "-i", "PICTURE"]
    if found.candidate.model == DEMO:
        words[2] = DEMO
    if request.n_ctx != DEFAULT_N_CTX:
        words += ["--n-ctx", str(request.n_ctx)]
    if request.kv_type != "f16":
        words += ["--kv-type", request.kv_type]
    if workload.max_tiles != MAX_TILES:
        words += ["--max-tiles", str(workload.max_tiles)]
    if found.budget.has_gpus and not found.budget.gpus:
        words += ["--vram", "none"]
    return " ".join(words)


def _document(
    picks: Picks, candidates: Sequence[Candidate], ranked: Sequence[Configuration], advice: Sequence[str]
) -> dict[str, Any]:
    fitting = {each.candidate for each in ranked}
    return {
        "models": [listing.name for listing in picks.listings],
        "budget": {"ram": picks.budget.host, "vram": list(picks.budget.gpus)},
        "workload": asdict(picks.workload),
        "preference": picks.preference,
        "best": f"{ranked[0].candidate.model}:{ranked[0].candidate.quant}" if ranked else None,
        "reason": reason(ranked, picks.preference) if ranked else None,
        "picks": [_row(each) for each in ranked],
        "too_large": [{"model": each.model, "quant": each.quant} for each in candidates if each not in fitting],
        "advice": list(advice),
        "notices": [*picks.notices, *(notice for listing in picks.listings for notice in listing.notices)],
    }


def _row(found: Configuration) -> dict[str, Any]:
    candidate, request, plan, speed = found.candidate, found.request, found.plan, found.speed
    names = ("CPU", *(f"GPU{number}" for number in found.budget.gpu_numbers))
    return {
        "model": candidate.model,
        "quant": candidate.quant,
        "file": candidate.file,
        "bytes": candidate.size,
        "bits_per_weight": candidate.bits_per_weight,
        "parameters": candidate.text.parameters,
        "source": candidate.source,
        "expected_kl_divergence": found.loss,
        "fits": found.fits,
        "whole": found.is_full,
        "gpu_layers": found.gpu_layers,
        "layers": found.n_layers,
        "tensor_split": list(request.gpus) if len(request.gpus) > 1 else [],
        "n_ctx": request.n_ctx,
        "n_parallel": request.n_parallel,
        "n_ubatch": request.n_ubatch,
        "kv_type": request.kv_type,
        "flash_attn": request.flash_attn,
        "mmproj": {
            "name": found.encoder.name,
            "file": found.encoder.file,
            "bytes": found.encoder.size,
            "on_gpu": request.mmproj_on_gpu,
        },
        "memory": {
            "source": plan.source,
            "total": plan.total,
            "devices": [
                {**asdict(device), "device": name, "headroom": room}
                for name, device, room in zip(names, plan.devices, found.headroom, strict=True)
            ],
            "kv_bytes_per_position": plan.kv_bytes_per_position,
            "picture_positions": plan.picture_positions,
            "picture_kv": plan.picture_kv,
        },
        "speed": {
            "measured": speed.measured,
            "assumed": list(speed.assumed),
            "decode_tokens_per_second": asdict(speed.decode),
            "prefill_tokens_per_second": asdict(speed.prefill),
            "tile_seconds": asdict(speed.tile_seconds) if speed.tile_seconds else None,
            "picture_seconds": asdict(speed.picture_seconds) if speed.picture_seconds else None,
            "answer_seconds": asdict(found.answer_seconds),
        },
    }


def _unit(shown: Sequence[Configuration]) -> int:
    """GiB, but MiB for models so small that a GiB tells nothing."""
    return _GIB if max(each.candidate.size for each in shown) >= _GIB // 4 else 2**20


def _loss(found: Configuration) -> str:
    return f"{found.loss:.3f}" if found.loss else "0"


def _range(value: Range | None) -> str:
    """Two digits of each end; one number where both are the same."""
    if value is None:
        return "-"
    low, high = (_digits(end) for end in (value.low, value.high))
    return low if low == high else f"{low}-{high}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 9.5 else f"{value:.1f}"
