"""Choose the quants whose predicted memory fits a budget, by the rules of `internvl pick`."""

from __future__ import annotations

from dataclasses import dataclass, field

from internvl_gguf.bench.jobs import MachineFacts
from internvl_gguf.bench.sweep import Sweep
from internvl_gguf.bench.targets import files_of
from internvl_gguf.config import EngineConfig
from internvl_gguf.errors import InsufficientMemoryError, InvalidRequestError
from internvl_gguf.hardware.cpu_tuning import HostSettings
from internvl_gguf.hardware.roofline import recorded_roofline
from internvl_gguf.models.listing import ModelListing
from internvl_gguf.planning import Candidate, MemoryBudget, Workload, nothing_fits, rank
from internvl_gguf.utils.sizes import parse_vram


def budget_of(sizes: str, facts: MachineFacts) -> MemoryBudget:
    """Return the memory budget for the sizes a user typed: of the GPUs, or of the host if there is none.

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
class FittingChooser:
    """Chooses the quants that fit completely on the GPUs of a budget, or on the host if there is none.

    Attributes:
        budget: bytes that may be used.
        sweep: the settings to run with; the first value of each counts.
        host: how the CPU is used.
    """

    budget: MemoryBudget
    sweep: Sweep
    host: HostSettings
    _too_large: list[tuple[Candidate, Workload]] = field(default_factory=list)

    @property
    def room(self) -> int:
        """Bytes of the budget on the devices that compute."""
        return sum(self.budget.gpus) or self.budget.host

    def choose(self, listing: ModelListing) -> list[str]:
        """Return the files of the quants that fit, in the order of the listing.

        Raises:
            HubError: the files are not known.
        """
        files = files_of(listing)
        workload = self._workload(listing)
        ranked = rank(listing.candidates, self.budget, workload, recorded_roofline())
        fitting = {found.candidate.file for found in ranked if found.is_full}
        self._too_large += [(each, workload) for each in listing.candidates if each.file not in fitting]
        return [file for file in files if file in fitting]

    def none_chosen(self) -> InsufficientMemoryError:
        """Return the error for the case that nothing fits, with the memory of the smallest quant."""
        smallest, workload = min(self._too_large, key=lambda found: found[0].size)
        return nothing_fits(smallest, self.budget, workload, recorded_roofline())

    def _workload(self, listing: ModelListing) -> Workload:
        run_config = self.sweep.run_configs(listing.shape.text.n_ctx_train or 2**27, self.host)[0]
        config = EngineConfig(**run_config.engine)
        return Workload.of(config, config.n_ctx or 1, max(run_config.n_threads, run_config.n_threads_batch))
