"""The models and limits that `internvl pick` chooses from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_gguf.models.listing import ModelListing
    from internvl_gguf.planning import MemoryBudget, Preference, Workload


@dataclass(frozen=True)
class Picks:
    """The request given to `internvl pick`.

    Attributes:
        listings: the models to choose from.
        budget: bytes that may be taken.
        ram_is_ours: whether the host memory is this machine's, for want of another figure.
        workload: what is to be done.
        preference: what counts.
        notices: about the machine, one line each.
    """

    listings: list[ModelListing]
    budget: MemoryBudget
    ram_is_ours: bool
    workload: Workload
    preference: Preference
    notices: tuple[str, ...]
