"""What `internvl pick --for TASK` says of published scores: a column, the note below, and what would score more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from internvl_gguf.models.published_scores import benchmarks_of
from internvl_gguf.planning import duration_text

if TYPE_CHECKING:
    from internvl_gguf.planning import Candidate, Configuration, Task

UNKNOWN: Final = "?"
_BORROWED: Final = "*"
_MORE: Final = 1.0  # points from which on another model is worth a word


def points_text(candidate: Candidate, task: Task) -> str:
    """Return the points of a row: "84.4", "84.4*" if they are of a model trained further, "?" if unknown."""
    points = candidate.scores.points.get(task)
    if points is None:
        return UNKNOWN
    return f"{points:.1f}{_BORROWED if candidate.scores.of != candidate.model else ''}"


def score_line(candidate: Candidate, task: Task) -> str:
    """Say what was published of a model for a task."""
    points = candidate.scores.points.get(task)
    if points is None:
        return f"For {task}: no figure of {candidate.model} was found ({benchmarks_of(task)})."
    of = candidate.scores.of
    whose = "" if of == candidate.model else f" of {of}, the same model after more training"
    mean = "the mean of " if " and " in benchmarks_of(task) else ""
    return f"For {task}: {points:.1f} of 100 points, {mean}{benchmarks_of(task)} as published{whose}."


def better_line(ranked: Sequence[Configuration], task: Task) -> str:
    """Say what would score clearly more than the best and why it does not come first; "" if nothing that fits does."""
    best = ranked[0]
    known = [(points, each) for each in ranked if (points := each.candidate.scores.points.get(task)) is not None]
    least = best.candidate.scores.points.get(task, 0.0) + _MORE
    if not known or max(points for points, _ in known) < least:
        return ""
    top = max(points for points, _ in known)
    points, found = next((points, each) for points, each in known if points == top)
    where = "" if found.is_full else ", part of it on the CPU"
    name = f"{found.candidate.model}:{found.candidate.quant}"
    return f"{name} has {points:.1f} points, but would take {duration_text(found.answer_seconds)}{where}."


def task_notes(shown: Sequence[Configuration], candidates: Sequence[Candidate], task: Task) -> Iterator[str]:
    """Yield what the points are, and which models have none.

    Args:
        shown: the rows.
        candidates: all quants that were looked at.
        task: the task.
    """
    yield (
        f"{task.upper()}: {benchmarks_of(task)}, of 100. Published for the model in BF16, with 6 to 24 tiles and "
        "VLMEvalKit's prompts: a quant, other limits and other prompts score otherwise."
    )
    borrowed = {each.candidate.scores.of for each in shown if points_text(each.candidate, task).endswith(_BORROWED)}
    if borrowed:
        yield f"{_BORROWED}: of {', '.join(sorted(borrowed))}, the same model after more training."
    if task == "reasoning":
        yield "InternVL3.5's MMMU was measured in thinking mode, whose answers are some ten times as long."
    unknown = dict.fromkeys(each.model for each in candidates if task not in each.scores.points)
    if unknown:
        names = ", ".join(unknown)
        yield f"{UNKNOWN}: no figures were found of {names}; not counted as zero, but ranked behind those with figures."
