"""Show the progress of a benchmark: on a terminal a bar with the remaining time, else a line per configuration."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from internvl_gguf.cli.downloads import download_bars
from internvl_gguf.cli.output import ProgressBars, progress_bars, say

if TYPE_CHECKING:
    from internvl_gguf.bench.benchmark_plan import PlannedRun
    from internvl_gguf.bench.pairs import FilePair
    from internvl_gguf.bench.results import Row
    from internvl_gguf.models.local_files import ModelFiles

_MINUTE: Final = 60
_HOUR: Final = 3600


class BenchProgress:
    """A `bench.runner.Watcher`.

    Args:
        bars: where it is shown.
        count: configurations there are.
    """

    def __init__(self, bars: ProgressBars, count: int) -> None:
        self._bars = bars
        self._count = count
        self._name = ""
        self._place = 0
        self._change = bars.add("", total=count)

    def begin(self, place: int, planned: PlannedRun) -> None:
        """Begin the configuration at this place of the order, from 0."""
        self._name, self._place = planned.name, place
        if not self._bars.are_shown:
            say(f"{place + 1} of {self._count}: {planned.name}")
        self._show("looking at its files", 0.0, None)

    def fetch(self, pair: FilePair) -> ModelFiles:
        """Return the files of a pair; missing ones are downloaded, with a bar for each."""
        if pair.is_here:
            return pair.fetch(lambda file, done: None, self.say)
        with self._bars.hidden(), download_bars() as downloads:
            return pair.fetch(downloads.progress, downloads.say)

    def stage(self, what: str, done: float, left: float | None) -> None:
        """Show what is measured now, the part of it that is done, and the remaining seconds of the whole benchmark."""
        self._show(f"{what}, {done:.0%}" if done else what, 0.0, left)

    def end(self, row: Row, seconds: float | None, left: float | None) -> None:
        """End the configuration."""
        self._show(row.status, 1.0, left)
        if row.status != "measured":
            self.say(f"{self._name}: {row.status}. {row.error}")
        elif not self._bars.are_shown:
            how = "kept from an earlier run" if seconds is None else f"measured in {duration(seconds)}"
            say(f"  {how}{f', {_left(left)}' if left else ''}")

    def say(self, line: str) -> None:
        """Show a line to the user, above the bar."""
        self._bars.say(line)

    def _show(self, what: str, done: float, left: float | None) -> None:
        self._change(label=f"{self._name}: {what}", completed=self._place + done, note=_left(left))


@contextlib.contextmanager
def bench_progress(count: int) -> Iterator[BenchProgress]:
    """Show progress while a benchmark runs."""
    with progress_bars("bar", "count", "note") as bars:
        yield BenchProgress(bars, count)


class LadderLine:
    """Show which quants are made before the measurements: a bar with the remaining time, or a line for each."""

    def __init__(self) -> None:
        self._shown = contextlib.ExitStack()
        self._change: Callable[..., None] = lambda **changes: None
        self._last = ""

    def tell(self, what: str, label: str, done: float) -> None:
        """Show the activity, the name of the file it works on, and the part of it that is done."""
        if what != self._last:
            self._begin(what)
        self._change(label=f"{what}: {label}" if label else what, completed=done)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._shown.close()

    def _begin(self, what: str) -> None:
        self.close()
        self._last = what
        bars = self._shown.enter_context(progress_bars("bar", "time left"))
        if not bars.are_shown:
            say(what)
        self._change = bars.add(what, total=1.0)


def duration(seconds: float) -> str:
    """Return a time in words: "0.43 s", "12 s", "3 min", "1 h 20 min"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / _MINUTE)
    if seconds < _HOUR:
        return f"{minutes} min"
    return f"{minutes // _MINUTE} h {minutes % _MINUTE} min"


def _left(seconds: float | None) -> str:
    """Return the remaining whole seconds; nothing if they are not known or none remain."""
    return f"about {duration(math.ceil(seconds))} left" if seconds else ""
