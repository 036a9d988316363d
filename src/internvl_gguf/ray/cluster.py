"""The actors that a cluster has room for, and their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from internvl_gguf.errors import InvalidRequestError


@dataclass(frozen=True)
class Actors:
    """Actors that answer, each with a model of its own.

    Attributes:
        count: how many.
        num_gpus: GPUs of each, which Ray gives to no other.
        num_cpus: CPUs of each by Ray's count. It is 1 whatever the model uses: what reads pictures needs some, too.
    """

    count: int
    num_gpus: float
    num_cpus: float = 1

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `Dataset.map_batches`.

        Ray spreads actors over the machines. One that is lost, with its machine or alone, it makes again elsewhere, and
        what that was asked is asked again: both are what Ray Data does unless told otherwise.
        """
        import ray.data

        return {
            "compute": ray.data.ActorPoolStrategy(size=self.count),
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
        }


def library() -> Any:
    """Return the module `ray`, with `ray.data`.

    Raises:
        InvalidRequestError: it is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InvalidRequestError(
            "This needs Ray, which is not installed.", "On every machine: pip install 'internvl-gguf[ray]'"
        ) from error
    return ray


def actors_of(concurrency: int | None = None, num_gpus: float | None = None) -> Actors:
    """Return the actors that suit the cluster that Ray is connected to: one for each GPU, else one for each machine.

    Args:
        concurrency: how many actors; None for as many.
        num_gpus: GPUs of each; None for 1 where the cluster has GPUs.

    Raises:
        InvalidRequestError: there is no machine, or a number that cannot be used.
    """
    if concurrency is not None and concurrency < 1:
        raise InvalidRequestError(f"concurrency is {concurrency}.", "Give the number of actors, 1 or more.")
    if num_gpus is not None and num_gpus < 0:
        raise InvalidRequestError(f"num_gpus is {num_gpus}.", "Give the GPUs of each actor, 0 for none.")
    ray = library()
    if not ray.is_initialized():
        ray.init()
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not machines:
        raise InvalidRequestError("The cluster has no machine with a free CPU.", "Start one, as with `ray start`.")
    gpus = sum(machine.get("GPU", 0) for machine in machines)
    each = num_gpus if num_gpus is not None else float(gpus >= 1)
    count = concurrency or (int(gpus // each) if each else len(machines)) or 1
    return Actors(count, each)
