"""The quants that by the plan of their memory fit a budget, as `internvl pick` finds them."""

from __future__ import annotations

from dataclasses import dataclass, field

from internvl_gguf.bench.jobs import MachineFacts
from internvl_gguf.bench.settings import Sweep
from internvl_gguf.bench.targets import files_of
from internvl_gguf.config import EngineConfig
from internvl_gguf.errors import InsufficientMemoryError, InvalidRequestError
from internvl_gguf.hardware.cpu_tuning import HostSettings
from internvl_gguf.hardware.roofline import recorded_roofline
from internvl_gguf.models.listing import ModelListing
from internvl_gguf.planning import Candidate, MemoryBudget, Workload, nothing_fits, rank
from internvl_gguf.utils.sizes import parse_vram


def budget_of(sizes: str, facts: MachineFacts) -> MemoryBudget:
    """The budget that a person's sizes mean on a machine: of its GPUs, or of the host where there is none.

    Raises:
        InvalidRequestError: no sizes, or more than there are GPUs.
    """
    given = parse_vram(sizes) or ()
    if not given or len(given) > max(1, len(facts.gpus)):
        what = f"{len(facts.gpus)} GPUs" if len(facts.gpus) > 1 else "one device to compute on"
        raise InvalidRequestError(f"--fits is {sizes!r}; this machine has {what}.", 'Write a size, as "12GiB".')
    if not facts.gpus:
        return MemoryBudget(given[0])
    each = given * len(facts.gpus) if len(given) == 1 else (*given, *[0] * (len(facts.gpus) - len(given)))
    return MemoryBudget(facts.host, tuple(map(min, each, facts.gpus)), facts.is_unified)


@dataclass
class Fitting:
    """Chooses what computes as a whole on the GPUs of a budget, or on the host where there is none.

    Attributes:
        budget: bytes that may be taken.
        sweep: how the quants will be run; the first value of each setting counts.
        host: how they will use the CPU.
    """

    budget: MemoryBudget
    sweep: Sweep
    host: HostSettings
    _too_large: list[tuple[Candidate, Workload]] = field(default_factory=list)

    @property
    def room(self) -> int:
        """Bytes there are where it computes."""
        return sum(self.budget.gpus) or self.budget.host

    def choose(self, listing: ModelListing) -> list[str]:
        """The files of the quants that fit, in the order of the listing.

        Raises:
            HubError: nobody knows the files.
        """
        files = files_of(listing)
        workload = self._workload(listing)
        ranked = rank(listing.candidates, self.budget, workload, recorded_roofline())
        fitting = {found.candidate.file for found in ranked if found.is_full}
        self._too_large += [(each, workload) for each in listing.candidates if each.file not in fitting]
        return [file for file in files if file in fitting]

    def none_chosen(self) -> InsufficientMemoryError:
        """The error where nothing fits, with what the smallest takes."""
        smallest, workload = min(self._too_large, key=lambda found: found[0].size)
        return nothing_fits(smallest, self.budget, workload, recorded_roofline())

    def _workload(self, listing: ModelListing) -> Workload:
        point = self.sweep.points(listing.shape.text.n_ctx_train or 2**27, self.host)[0]
        config = EngineConfig(**point.engine)
        return Workload.of(config, config.n_ctx or 1, max(point.n_threads, point.n_threads_batch))
