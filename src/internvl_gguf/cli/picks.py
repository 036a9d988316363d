"""The models and limits that `internvl pick` chooses from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_gguf.tiling import MAX_TILES

if TYPE_CHECKING:
    from internvl_gguf.hardware.device_speed import Roofline
    from internvl_gguf.models.listing import ModelListing
    from internvl_gguf.planning import MemoryBudget, Preference, Task, Workload


@dataclass(frozen=True)
class Picks:
    """The request given to `internvl pick`.

    Attributes:
        listings: the models to choose from.
        budget: bytes that may be taken.
        memory: the same in words.
        roofline: how fast the devices are; None assumes typical ones.
        workload: what is to be done.
        preference: what counts.
        task: what the model is for; None if nothing was said.
        mmproj: the vision encoder that was named; None if none was.
        notices: about the machine, one line each.
        rpc: addresses of the RPC servers that are used, too.
    """

    listings: list[ModelListing]
    budget: MemoryBudget
    memory: str
    roofline: Roofline | None
    workload: Workload
    preference: Preference
    task: Task | None
    mmproj: str | None
    notices: tuple[str, ...]
    rpc: tuple[str, ...] = ()

    @property
    def usual_tiles(self) -> int:
        """Most tiles of a picture that a question to these models has where nothing is said."""
        return usual_tiles(self.listings)


def usual_tiles(listings: Sequence[ModelListing]) -> int:
    """Return the most tiles that the mmproj of the only model says; else those of the model card."""
    own = listings[0].max_tiles if len(listings) == 1 else None
    return MAX_TILES if own is None else own
