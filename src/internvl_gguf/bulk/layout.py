"""How workers share a machine: GPUs, CPU threads and memory, planned before any of them loads a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

from internvl_gguf.config import EngineConfig, EngineOptions, PictureOptions
from internvl_gguf.errors import InsufficientMemoryError, InvalidRequestError
from internvl_gguf.utils.options import options_of
from internvl_gguf.utils.sizes import counted, format_size, parse_vram

if TYPE_CHECKING:
    from internvl_gguf.bulk.answerer import Answering
    from internvl_gguf.planning.machine_memory import MachineBudget
    from internvl_gguf.planning.planner import Configuration
    from internvl_gguf.planning.workload import MemoryBudget
    from internvl_gguf.utils.notices import Notice

Workers = int | Literal["auto"]
"""A number of workers, or "auto" for as many as suit the machine."""

MAX_WORKERS: Final = 64
_HINT: Final = f"Use 1 to {MAX_WORKERS} workers, or auto."


def read_workers(text: str) -> Workers:
    """Return a number of workers from what was typed.

    Raises:
        InvalidRequestError: it is none.
    """
    if text.strip().lower() == "auto":
        return "auto"
    if not text.strip().isdecimal() or not 1 <= int(text) <= MAX_WORKERS:
        raise InvalidRequestError(f"--workers is {text[:80]}.", _HINT)
    return int(text)


@dataclass(frozen=True)
class Layout:
    """How workers share a machine. It can be pickled.

    Attributes:
        engines: for each worker the options of the engine that it has in place of the common ones; of a number that is
            to be measured, those of one worker.
        most: the largest number of workers that is worth measuring; 1 where the number is settled.
        n_threads: CPU threads that all workers share.
    """

    engines: tuple[EngineOptions, ...]
    most: int = 1
    n_threads: int = 1


def shared_threads(n_threads: int, workers: int) -> list[EngineOptions]:
    """Return the options with which workers share CPU threads, at least one each.

    A worker has a fixed number of them: by the system's counters the threads of its neighbours are those of other
    programs, for which an engine gives up cores (`engine.free_cores`).
    """
    each, more = divmod(n_threads, workers)
    return [{"n_threads": max(1, each + (index < more))} for index in range(workers)]


def lay_out(answering: Answering, workers: Workers, on_notice: Notice) -> Layout:
    """Find out how workers share this machine.

    Loads llama.cpp, whose drivers of GPUs take memory for as long as their process lives: call it in one of its own.

    Each of several workers has to be loaded as well as one alone would be with its GPUs: with no smaller context, and
    no fewer layers on a GPU.

    Args:
        answering: how lines are answered.
        workers: how many are wanted; "auto" is one for each GPU, or for as many as hold the whole model. Without a GPU
            the number is to be measured.
        on_notice: called with facts about the machine that the user should know.

    Raises:
        InsufficientMemoryError: there is no memory for so many.
        InvalidRequestError: several are wanted on RPC servers, or memory of more GPUs than there are.
        ModelFileError: files that are damaged.
    """
    from internvl_gguf.hardware.cpu_tuning import host_settings
    from internvl_gguf.planning.machine_memory import machine_budget

    config = engine_config(answering.opening)
    if config.servers and workers not in (1, "auto"):
        raise InvalidRequestError(
            f"{workers} workers cannot share the servers of --rpc: a server has one client at a time.",
            "Leave --workers out; the servers make one model together.",
        )
    threads = host_settings(config.n_threads).most_threads
    if config.servers:
        return Layout(({},), n_threads=threads)
    is_on_cpu = config.n_gpu_layers == 0 or config.vram == "none"
    machine = machine_budget(parse_vram(config.vram), gpus=[] if is_on_cpu else None)
    for notice in machine.notices:
        on_notice(notice)
    plans = _Plans(answering, config, machine)
    if not plans.gpus:
        return _on_cpu(plans, workers, threads)
    count = plans.most(plans.groups(plans.whole_models)) if workers == "auto" else workers
    if count <= 1:
        return Layout(({},), n_threads=threads)
    plans.check(count, plans.groups(count))
    return Layout(
        tuple(
            {**of_threads, "vram": plans.vram(group)}
            for of_threads, group in zip(shared_threads(threads, count), plans.groups(count), strict=True)
        ),
        n_threads=threads,
    )


def engine_config(opening: Mapping[str, Any]) -> EngineConfig:
    """Return how a model is run that a session is opened with such arguments."""
    return EngineConfig(**{name: opening[name] for name in options_of(EngineConfig) if name in opening})


def _on_cpu(plans: _Plans, workers: Workers, threads: int) -> Layout:
    groups: list[dict[int, int]] = [{}] * (threads if workers == "auto" else workers)
    if workers == "auto":
        return Layout(({},), min(threads, max(1, plans.most(groups))), threads)
    if workers == 1:
        return Layout(({},), n_threads=threads)
    plans.check(workers, groups)
    return Layout(tuple(shared_threads(threads, workers)), n_threads=threads)


class _Plans:
    """The memory that workers take of this machine.

    Attributes:
        gpus: bytes that may be taken of each local GPU, by its number on the machine.
    """

    def __init__(self, answering: Answering, config: EngineConfig, machine: MachineBudget) -> None:
        self._files = answering.files
        self._config = config
        self._machine = machine
        of_session = {name: answering.opening[name] for name in options_of(PictureOptions) if name in answering.opening}
        self._pictures = PictureOptions(**of_session)
        self._known: dict[tuple[tuple[int, int], ...], Configuration | None] = {}
        rooms = zip(machine.budget.gpu_numbers, machine.budget.gpus, strict=True)
        self.gpus = {number: room for number, room in rooms if room > 0 and not machine.gpus[number].is_remote}

    @property
    def whole_models(self) -> int:
        """How many models the GPUs hold whole, each on as many as the smallest of them have to be; at least 1."""
        smallest_first = sorted(self.gpus, key=lambda number: self.gpus[number])
        for count in range(1, len(smallest_first) + 1):
            found = self._best({number: self.gpus[number] for number in smallest_first[:count]})
            if found and found.is_full:
                return len(smallest_first) // count
        return 1

    def groups(self, workers: int) -> list[dict[int, int]]:
        """Return the GPUs of each worker, with bytes that it may take of them: several for one, or one for several."""
        numbers = list(self.gpus)
        if workers <= len(numbers):
            ends = [len(numbers) * index // workers for index in range(workers + 1)]
            parts = [numbers[begin:end] for begin, end in pairwise(ends)]
            return [{number: self.gpus[number] for number in part} for part in parts]
        owners = [numbers[index % len(numbers)] for index in range(workers)]
        return [{number: self.gpus[number] // owners.count(number)} for number in owners]

    def vram(self, group: Mapping[int, int]) -> list[int]:
        """Return the option that gives a worker its GPUs alone."""
        return [group.get(number, 0) for number in range(len(self._machine.gpus))]

    def check(self, workers: int, groups: Sequence[Mapping[int, int]]) -> None:
        """Check that there is memory for workers with these GPUs.

        Raises:
            InsufficientMemoryError: there is not.
        """
        if self._config.force:
            return
        most = self.most(groups)
        if workers <= most or most == 0:  # where one alone does not fit, loading it says why
            return
        needed = self._needed(groups)
        raise InsufficientMemoryError(
            f"There is no memory for {counted(workers, 'worker')}: they need {format_size(needed)} of RAM, and "
            f"{format_size(self._machine.budget.host)} are free."
            if needed > self._machine.budget.host
            else f"There is no GPU memory for {counted(workers, 'worker')} on {counted(len(self.gpus), 'GPU')}.",
            f"Use --workers {most}, fewer questions at once (--parallel), or a smaller context (--n-ctx).",
        )

    def most(self, groups: Sequence[Mapping[int, int]]) -> int:
        """Return the largest number of workers that fit, up to the number of these; 0 if none does."""
        for workers in range(len(groups), 0, -1):
            tried = self.groups(workers) if self.gpus else [{}] * workers
            if self._are_well(tried) and self._needed(tried) <= self._machine.budget.host:
                return workers
        return 0

    def _are_well(self, groups: Sequence[Mapping[int, int]]) -> bool:
        """Return whether each worker is loaded as well as one that has its GPUs alone."""
        from internvl_gguf.session.memory_room import placement_quality

        for group in {tuple(group.items()): group for group in groups}.values():
            alone = self._best({number: self.gpus[number] for number in group})
            shared = self._best(group)
            if alone is None or shared is None or placement_quality(alone) != placement_quality(shared):
                return False
        return True

    def _needed(self, groups: Sequence[Mapping[int, int]]) -> int:
        """Return the bytes of host memory that workers take together; weights mapped from the file count once."""
        from internvl_gguf.memory.plan import PROCESS_BYTES

        total, mapped = 0, 0
        for group in groups:
            found = self._best(group)
            if found is None:
                continue
            is_mapped = not found.request.reorders and not group
            weights = found.plan.host.weights if is_mapped else 0
            host = found.plan.total if self._machine.budget.is_unified else found.plan.host.total
            total += host - weights + PROCESS_BYTES
            mapped = max(mapped, weights)
        return total + mapped

    def _best(self, group: Mapping[int, int]) -> Configuration | None:
        """Return how a model is loaded that has these GPUs, and the host, to itself."""
        from internvl_gguf.session.memory_room import best_configuration

        key = tuple(group.items())
        if key not in self._known:
            self._known[key] = best_configuration(self._files, self._config, self._budget(group), self._pictures)
        return self._known[key]

    def _budget(self, group: Mapping[int, int]) -> MemoryBudget:
        budget = self._machine.budget
        rooms = tuple(group.get(number, 0) for number in budget.gpu_numbers)
        return replace(budget, gpus=rooms).with_gpus([index for index, room in enumerate(rooms) if room])
