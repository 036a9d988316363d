"""The output of `internvl pick`: a table with the reason for the choice, one quant explained, or JSON."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from internvl_gguf.cli.output import print_json, print_lines, print_table, say
from internvl_gguf.cli.pick_table import loss_text, print_footnotes, range_text, ranking_table
from internvl_gguf.cli.pick_task import better_line, score_line, task_note, tiles_line
from internvl_gguf.config import DEFAULT_N_CTX
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.family import named_model
from internvl_gguf.gguf.filenames import ModelCopy, Quant, RepoFile, find_copy, nearest_names
from internvl_gguf.models.names import DEMO
from internvl_gguf.planning import (
    Candidate,
    Configuration,
    Planner,
    cost_of,
    device_names,
    duration_text,
    geometric_mean,
    memory_table,
    nothing_fits,
    placement_text,
    rank,
    reason,
    verdict,
    ways_to_fit,
    ways_to_shorten,
)
from internvl_gguf.planning.loss_scale import USABLE_LOSS
from internvl_gguf.utils.rpc_addresses import network_warning
from internvl_gguf.utils.sizes import counted, format_size

if TYPE_CHECKING:
    from internvl_gguf.cli.picks import Picks

_SHOWN = 8
_LONG = 60.0  # seconds of a question from which on it is said what shortens it


def print_picks(picks: Picks, ranked: list[Configuration], show_all: bool, json_output: bool) -> None:
    """Print the choice and the ranking; if nothing fits, the options that would help.

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
    several = len(picks.listings) > 1
    if not ranked:
        smallest = min(candidates, key=lambda candidate: candidate.size)
        _print_advice(advice, fits=False)
        raise nothing_fits(smallest, picks.budget, picks.workload, picks.roofline, of_several=several)
    shown = ranked if show_all else _of_each_model(ranked) if several and picks.task else ranked[:_SHOWN]
    print_lines(f"Best: {_name(ranked[0].candidate, several)}, {verdict(ranked[0])}")
    for more in (_faster(picks, ranked[0]), *_alternatives(picks, ranked)):
        if more:
            print_lines(more)
    print_lines(_headline(picks))
    print_lines(f"Why {reason(ranked, picks.preference, picks.task)}")
    _print_advice(advice, fits=True)
    print_lines()
    table = ranking_table(shown, several, picks.task if several else None)
    print_table(table.head, table.rows)
    print_footnotes(shown, several, table, more=len(ranked) - len(shown), too_large=len(candidates) - len(ranked))
    if picks.task:
        say(task_note(shown, picks.task))
        if finer := tiles_line(ranked[0], picks.task):
            print_lines(finer)
    print_lines(f"Run it:\n  {_command(ranked[0], picks)}", wrap=False)


def _of_each_model(ranked: Sequence[Configuration]) -> list[Configuration]:
    """Return the best quant of each model: scores are of models, so quants of one would fill the table alike."""
    first: dict[str, Configuration] = {}
    for each in ranked:
        first.setdefault(each.candidate.model, each)
    return list(first.values())


def _faster(picks: Picks, best: Configuration) -> str:
    """Return advice that shortens a slow question; "" if there is none or the question is fast."""
    if geometric_mean(best.answer_seconds) < _LONG:
        return ""
    smaller = _smaller_models(best.candidate.model, best.candidate.text.parameters) if len(picks.listings) == 1 else []
    ways = "; ".join(ways_to_shorten(best, smaller, picks.roofline))
    return f"Sooner: {ways}." if ways else ""


def _alternatives(picks: Picks, ranked: Sequence[Configuration]) -> tuple[str, ...]:
    """Return what was published of the best and what would score more for the task; else what a larger model takes."""
    if picks.task is None:
        return (_larger(ranked),)
    return score_line(ranked[0].candidate, picks.task), better_line(ranked, picks.task)


def _larger(ranked: Sequence[Configuration]) -> str:
    """Return what the next larger model would take; "" if none fits."""
    best = ranked[0]
    larger = [each for each in ranked if each.candidate.text.parameters > 1.2 * best.candidate.text.parameters]
    if not larger:
        return ""
    found = min(larger, key=lambda each: (each.candidate.text.parameters, ranked.index(each)))
    if not best.budget.has_gpus and geometric_mean(best.answer_seconds) < geometric_mean(found.answer_seconds):
        return (
            f"Larger models fit, but a question to {_name(found.candidate, True)} would take "
            f"{duration_text(found.answer_seconds)} on the CPU; --quality picks the largest."
        )
    where = "" if found.is_full else ", part of it on the CPU"
    return f"The larger {_name(found.candidate, True)} would take {duration_text(found.answer_seconds)}{where}."


def _name(candidate: Candidate, several: bool) -> str:
    return f"{candidate.model}:{candidate.quant}" if several else candidate.quant


def explain(picks: Picks, wanted: str, json_output: bool) -> None:
    """Print one quant: its memory part by part, the memory left, and its rank among the others.

    Raises:
        InvalidRequestError: no such quant.
    """
    candidates = [candidate for listing in picks.listings for candidate in listing.candidates]
    candidate = _find(candidates, wanted)
    ranked = rank(candidates, picks.budget, picks.workload, picks.roofline, picks.preference, picks.task)
    found = next((each for each in ranked if each.candidate == candidate), None)
    if json_output:
        print_json(_row(found) if found else {"quant": candidate.quant, "model": candidate.model, "fits": False})
        return
    print_lines(_headline(picks))
    if found is None:
        found = Planner(picks.budget, picks.workload, picks.roofline, cost_of(picks.preference)).smallest(candidate)
        print_lines(
            f"{candidate.quant} does not fit: {format_size(found.shortage)} are missing in the way that takes least."
        )
        print_lines(memory_table(found), wrap=False)
        return
    place = ranked.index(found) + 1
    several = len(picks.listings) > 1
    name = _name(candidate, several)
    print_lines(f"{name}, {verdict(found)}")
    which = "the only one that fits" if len(ranked) == 1 else f"number {place} of the {len(ranked)} that fit"
    print_lines(f"It is {which}: {placement_text(found)}, KV cache in {found.request.kv_type}.")
    if place > 1:
        best = ranked[0]
        model = f"{best.candidate.model}:" if several else ""
        print_lines(f"The best is {_name(best.candidate, several)}, {verdict(best)}")
        print_lines(f"Why {model}{reason(ranked, picks.preference, picks.task)}")
    if picks.task:
        print_lines(score_line(candidate, picks.task))
    print_lines(
        f"{format_size(candidate.size)}, {candidate.bits_per_weight:.2f} bits of it a weight; loss: "
        f"{loss_text(found, several=False)} (mean KL divergence from the unquantised weights, a rough guide from "
        "another model)."
    )
    speed = found.speed
    print_lines(
        f"About {range_text(speed.decode)} tokens/s written, {range_text(speed.prefill)} read; a "
        f"{'frame' if found.workload.are_frames else 'picture'} of {counted(found.workload.tiles_per_picture, 'tile')} "
        f"takes {range_text(speed.picture_seconds)} s."
    )
    print_lines()
    print_lines(memory_table(found), wrap=False)
    print_footnotes([found], several=False)


def _headline(picks: Picks) -> str:
    workload = picks.workload
    vision = picks.listings[0].shape.vision
    positions = workload.picture_positions(vision.tokens_per_tile if vision else 0)
    pictures = (
        f" with {workload.pictures_text} ({counted(workload.tiles, 'tile')}, {positions:,} tokens)"
        if workload.pictures
        else ""
    )
    several = f", {workload.n_parallel} at once" if workload.n_parallel > 1 else ""
    return f"For {picks.memory}: a context of {workload.n_ctx:,} tokens{pictures}{several}."


def _print_advice(advice: Sequence[str], *, fits: bool) -> None:
    if advice:
        say("What would fit whole:" if fits else "What would fit:")
        for line in advice:
            say(f"  {line}")


def _smaller_models(name: str, parameters: int) -> list[Sequence[Candidate]]:
    """Return the quants of smaller models of a model's release, the largest model first; of all if it names none."""
    from internvl_gguf.models.listing import family

    own = named_model(name)
    smaller = [
        each
        for each in family()
        if each.shape.text.parameters < 0.9 * parameters and (own is None or own.series == _series(each.name))
    ]
    smaller.sort(key=lambda each: -each.shape.text.parameters)
    return [each.candidates for each in smaller]


def _series(name: str) -> str | None:
    named = named_model(name)
    return named.series if named else None


def _advice(picks: Picks, candidates: Sequence[Candidate], *, whole: bool) -> list[str]:
    largest = max(candidate.text.parameters for candidate in candidates)
    others = _smaller_models(picks.listings[0].name, largest) if len(picks.listings) == 1 else []
    ways = ways_to_fit(candidates, others, picks.budget, picks.workload, picks.roofline, whole=whole)
    return list(ways)


def _find(candidates: Sequence[Candidate], wanted: str) -> Candidate:
    """Return the quant that the user named as QUANT or MODEL:QUANT.

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
            f"There is no quant {wanted!r}{f'; the nearest: {near}' if near else ''}.",
            f"There are {', '.join(dict.fromkeys(each.quant for each in meant or candidates))}.",
        )
    return copies[found]


def _command(found: Configuration, picks: Picks) -> str:
    """Return the command that runs a configuration."""
    request, workload = found.request, found.workload
    model, quant = found.candidate.model, found.candidate.quant
    is_one_file = model == DEMO or model.lower().endswith(".gguf")
    name = shlex.quote(model if is_one_file else f"{model}:{quant}")
    shown = ["--video", "CLIP", "--frames", str(workload.pictures)] if workload.are_frames else ["-i", "PICTURE"]
    words = ["internvl", "ask", name, '"What happens?"' if workload.are_frames else '"What is it?"', *shown]
    if picks.mmproj:
        words += ["--mmproj", shlex.quote(picks.mmproj)]
    if request.n_ctx != DEFAULT_N_CTX:
        words += ["--n-ctx", str(request.n_ctx)]
    if request.kv_type != "f16":
        words += ["--kv-type", request.kv_type]
    if workload.max_tiles != (1 if workload.are_frames else picks.usual_tiles):
        words += ["--max-tiles", str(workload.max_tiles)]
    if found.budget.has_gpus and not found.budget.gpus:
        words += ["--vram", "none"]
    if picks.rpc and found.budget.gpus:
        words += ["--rpc", ",".join(picks.rpc)]
        words += ["--rpc-insecure-network"] if network_warning(picks.rpc) else []
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
        "task": picks.task,
        "best": f"{ranked[0].candidate.model}:{ranked[0].candidate.quant}" if ranked else None,
        "reason": reason(ranked, picks.preference, picks.task) if ranked else None,
        "picks": [_row(each) for each in ranked],
        "too_large": [{"model": each.model, "quant": each.quant} for each in candidates if each not in fitting],
        "advice": list(advice),
        "notices": [*picks.notices, *(notice for listing in picks.listings for notice in listing.notices)],
    }


def _row(found: Configuration) -> dict[str, Any]:
    candidate, request, plan, speed = found.candidate, found.request, found.plan, found.speed
    names = ("CPU", *device_names(found.budget))
    return {
        "model": candidate.model,
        "quant": candidate.quant,
        "file": candidate.file,
        "bytes": candidate.size,
        "bits_per_weight": candidate.bits_per_weight,
        "parameters": candidate.text.parameters,
        "source": candidate.source,
        "expected_kl_divergence": found.loss,
        "published": {"of": candidate.scores.of or None, "points": dict(candidate.scores.points)},
        "fits": found.fits,
        "whole": found.is_full,
        "gpu_layers": found.gpu_layers,
        "layers": found.n_layers,
        "host_experts": found.host_experts,
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
