"""Published scores of a model by task, which `rank` weighs beside loss and seconds where a task is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Task = Literal["ocr", "charts", "reasoning", "video", "grounding"]

POINTS_PER_COST: Final = 5.0
"""Points, of 100, that are worth as much as a doubling of the seconds, or a loss of 0.1."""


@dataclass(frozen=True)
class TaskScores:
    """Scores that were published of an unquantised model.

    Attributes:
        of: the model that was measured, which may be another stage of the same model's training; "" if none was.
        points: points of 100 by task; tasks for which a figure was not seen are left out.
    """

    of: str = ""
    points: Mapping[Task, float] = field(default_factory=dict, hash=False)


NO_SCORES: Final = TaskScores()
"""The scores of a model of which none were found."""
