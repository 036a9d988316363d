"""One chart of a report: what it is called, what it says, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: short, for identifiers.
        title: one line.
        description: what it shows, for a caption and for those who do not see it.
        height: inches, at any width.
        draw: draws it into the axes of an otherwise empty figure.
    """

    name: str
    title: str
    description: str
    height: float
    draw: Callable[[Axes], None]
