"""Estimate the time left of a benchmark from the times so far and the sizes of the files."""

from __future__ import annotations

from collections.abc import Sequence


class TimeLeft:
    """An estimate that gets better with each configuration.

    Half of a configuration's time counts as the same for all (the encoder, the number of tokens), half as proportional
    to the size of its files.

    Args:
        sizes: bytes of each configuration's files.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        mean = sum(sizes) / len(sizes) if sizes else 0
        self._costs = [mean + size for size in sizes]
        self._seconds = 0.0
        self._paid = 0.0
        self._open = set(range(len(sizes)))

    def finish(self, index: int, seconds: float | None) -> None:
        """Record that a configuration is finished.

        Args:
            index: of the configuration.
            seconds: its time; None if it was known before or failed, so that its time says nothing about the others.
        """
        self._open.discard(index)
        if seconds is not None:
            self._seconds += seconds
            self._paid += self._costs[index]

    def seconds(self, running: int | None = None, elapsed: float = 0.0) -> float | None:
        """Return the seconds that are left; None before anything was measured.

        Args:
            running: index of the configuration being measured.
            elapsed: seconds since it began.
        """
        if not self._paid:
            return None
        rate = self._seconds / self._paid
        return sum(max(0.0, rate * self._costs[index] - (elapsed if index == running else 0.0)) for index in self._open)
