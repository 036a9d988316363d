"""What `internvl pick --for TASK` says of published scores: a column, the notes below, and what would score more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from internvl_gguf.models.published_scores import benchmarks_of, tiles_of
from internvl_gguf.planning import duration_text
from internvl_gguf.utils.sizes import counted

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


def task_note(shown: Sequence[Configuration], task: Task) -> str:
    """Say what the points of the rows are."""
    fewest, most = tiles_of(task)
    cut = counted(most, "tile") if fewest == most else f"{fewest} to {most} tiles"
    what = "frame" if task == "video" else "picture"
    texts = [points_text(each.candidate, task) for each in shown]
    borrowed = f" {_BORROWED}: of the model after more training." * any(text.endswith(_BORROWED) for text in texts)
    unknown = f" {UNKNOWN}: no figures, so behind the others." * (UNKNOWN in texts)
    thought = " InternVL3.5's MMMU: with thinking, in answers ten times as long." * (task == "reasoning")
    points = f"{task.upper()}: points published for BF16, with {cut} a {what}; a quant may lose some."
    return f"{points}{borrowed}{unknown}{thought}"


def tiles_line(best: Configuration, task: Task) -> str:
    """Say how to plan for pictures cut as finely as those of the scores; "" where they are, or there are none."""
    max_tiles, (_, most) = best.workload.max_tiles, tiles_of(task)
    if most <= max_tiles or task not in best.candidate.scores.points:
        return ""
    return (
        f"Scores with up to {most} tiles a picture, here {max_tiles}: --max-tiles {most} plans and asks with as many."
    )
