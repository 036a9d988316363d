"""Batches drawn in other processes, ahead of the training step."""

from __future__ import annotations

import os
from multiprocessing import get_context
from queue import Full
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def _draw_forever(make: Callable[[Random], Any], seed: int, queue: Any) -> None:
    parent, rng = os.getppid(), Random(seed)
    queue.cancel_join_thread()  # else a worker whose parent was killed waits for ever to hand over its last batches
    while os.getppid() == parent:
        batch = make(rng)
        while os.getppid() == parent:  # a parent that was killed takes nothing more
            try:
                queue.put(batch, timeout=5)
                break
            except Full:
                continue


class Feed:
    """Calls `make(rng)` in worker processes and hands out what it returns.

    Args:
        make: draws one batch; a picklable function.
        seed: worker i draws with the seed `seed * 1000 + i`.
        workers: processes; with 0 the batch is drawn in place.
    """

    def __init__(self, make: Callable[[Random], Any], seed: int, workers: int = 1) -> None:
        self._make, self._rng = make, Random(seed * 1000)
        context = get_context("spawn")
        self._queue = context.Queue(maxsize=12)
        self._workers = [
            context.Process(target=_draw_forever, args=(make, seed * 1000 + index, self._queue), daemon=True)
            for index in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def next(self) -> Any:
        """The next batch; waits until one is drawn."""
        return self._queue.get() if self._workers else self._make(self._rng)

    def close(self) -> None:
        """End the worker processes."""
        for worker in self._workers:
            worker.terminate()
            worker.join()
