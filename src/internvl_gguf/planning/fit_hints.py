"""Suggest options that would make a model fit, where nothing fits or not as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from internvl_gguf.config import is_quantised
from internvl_gguf.hardware.device_speed import Roofline
from internvl_gguf.memory.memory_request import CELL_STEP
from internvl_gguf.planning.candidates import Candidate
from internvl_gguf.planning.loss_scale import USABLE_LOSS
from internvl_gguf.planning.plan_text import duration_text
from internvl_gguf.planning.planner import Configuration, geometric_mean
from internvl_gguf.planning.ranking import rank
from internvl_gguf.planning.workload import TEXT_ROOM, MemoryBudget, Workload
from internvl_gguf.utils.sizes import format_size

_SMALLEST_CONTEXT: Final = 2048
_FEW_TILES: Final = 4
_SHORTER: Final = 0.7  # parts of the time from which on it is worth a word


def ways_to_fit(
    candidates: Sequence[Candidate],
    smaller_models: Sequence[Sequence[Candidate]],
    budget: MemoryBudget,
    workload: Workload,
    roofline: Roofline | None,
    *,
    whole: bool,
) -> Iterator[str]:
    """Yield options to type so that a quant fits without losing much, one line each.

    Args:
        candidates: the quants of the requested model.
        smaller_models: the quants of smaller models of its family, the largest model first.
        budget: bytes that may be taken.
        workload: the requested workload.
        roofline: how fast the devices are.
        whole: whether the whole model is to lie on the GPUs.
    """

    several = len({candidate.model for candidate in candidates}) > 1

    def name(found: Configuration) -> str:
        return f"{found.candidate.model}:{found.candidate.quant}" if several else found.candidate.quant

    def best(quants: Sequence[Candidate], changed: Workload) -> Configuration | None:
        found = rank(_usable(quants, changed), budget, changed, roofline)
        return found[0] if found and (found[0].is_full or not whole) else None

    if workload.kv_type is not None and not is_quantised(workload.kv_type):
        found = best(candidates, replace(workload, kv_type="q8_0"))
        if found:
            yield f"--kv q8_0: {name(found)}"
    for smaller in _smaller_contexts(workload, candidates):
        found = best(candidates, smaller)
        if found:
            tiles = f" --max-tiles {smaller.max_tiles}" if smaller.max_tiles != workload.max_tiles else ""
            yield f"--context {smaller.n_ctx}{tiles}: {name(found)}"
            break
    for quants in smaller_models:
        found = best(quants, workload)
        if found:
            size = format_size(found.candidate.size)
            about = "about " if found.candidate.source == "estimate" else ""
            yield f"a smaller model, {found.candidate.model}: {found.candidate.quant}, {about}{size}"
            break


def ways_to_shorten(
    slow: Configuration, smaller_models: Sequence[Sequence[Candidate]], roofline: Roofline | None
) -> Iterator[str]:
    """Yield what makes a question take clearly less long, as parts of a sentence.

    Args:
        slow: the configuration whose questions take long.
        smaller_models: the quants of smaller models of its family, the largest model first.
        roofline: how fast the devices are.
    """
    budget, workload, seconds = slow.budget, slow.workload, geometric_mean(slow.answer_seconds)
    if workload.pictures and workload.max_tiles > _FEW_TILES:
        fewer = replace(workload, max_tiles=_FEW_TILES)
        found = rank([slow.candidate], budget, fewer, roofline)
        if found and geometric_mean(found[0].answer_seconds) < _SHORTER * seconds:
            yield f"--max-tiles {_FEW_TILES} (coarser pictures) {duration_text(found[0].answer_seconds)}"
    for quants in smaller_models:
        found = rank(_usable(quants, workload), budget, workload, roofline)
        if found and geometric_mean(found[0].answer_seconds) < _SHORTER * seconds:
            name = f"{found[0].candidate.model}:{found[0].candidate.quant}"
            yield f"the smaller {name} {duration_text(found[0].answer_seconds)}"
            break


def _usable(quants: Sequence[Candidate], workload: Workload) -> list[Candidate]:
    """Return the quants that lose little enough, of models trained for a context so long."""
    return [
        quant
        for quant in quants
        if quant.loss <= USABLE_LOSS and workload.n_ctx <= (quant.text.n_ctx_train or workload.n_ctx)
    ]


def _smaller_contexts(workload: Workload, candidates: Sequence[Candidate]) -> Iterator[Workload]:
    """Yield workloads with a half, a quarter, ... of the context, and as many tiles as leave positions for text."""
    tokens = candidates[0].encoders[0].shape.tokens_per_tile if candidates else 0
    n_ctx = workload.n_ctx // 2 // CELL_STEP * CELL_STEP
    while n_ctx >= _SMALLEST_CONTEXT:
        for max_tiles in range(workload.max_tiles, 0, -1):
            smaller = replace(workload, n_ctx=n_ctx, max_tiles=max_tiles)
            if smaller.picture_positions(tokens) + TEXT_ROOM // 2 <= n_ctx:
                yield smaller
                break
        n_ctx = n_ctx // 2 // CELL_STEP * CELL_STEP
