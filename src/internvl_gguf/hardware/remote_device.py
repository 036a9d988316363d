"""A device of another machine, as far as the speed of a model depends on it: the network between, and its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from internvl_gguf.hardware.device_speed import Range

_SLOWER: Final = 2.0
"""How much longer than measured a transfer may take: the measurement is short, and nothing else was sent meanwhile."""


@dataclass(frozen=True)
class RemoteDevice:
    """A device that a ggml RPC server offers.

    Attributes:
        kind: "cpu" or "gpu"; what stands behind it is assumed by that.
        round_trip: seconds from a request to its answer.
        bandwidth: bytes/s, as measured with a small transfer.
    """

    kind: Literal["cpu", "gpu"]
    round_trip: float
    bandwidth: float

    def seconds(self, round_trips: float, n_bytes: float) -> Range:
        """Return seconds for waiting so many times for an answer, and for sending so many bytes, either way."""
        waited = self.round_trip * round_trips + n_bytes / self.bandwidth
        return Range(waited, waited * _SLOWER)


UNKNOWN_REMOTE: Final = RemoteDevice("gpu", 0.5e-3, 110e6)
"""The device that is assumed where none was asked: a GPU behind a gigabit network."""
