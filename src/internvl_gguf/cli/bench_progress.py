"""How far a benchmark is: a bar with the time that is left on a terminal, a line for each configuration elsewhere."""

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
        """The configuration at this place of the order, from 0, is next."""
        self._name, self._place = planned.name, place
        if not self._bars.are_shown:
            say(f"{place + 1} of {self._count}: {planned.name}")
        self._show("looking at its files", 0.0, None)

    def fetch(self, pair: FilePair) -> ModelFiles:
        """The files of a pair, fetched with a bar for each if they are not here."""
        if pair.is_here:
            return pair.fetch(lambda file, done: None, self.say)
        with self._bars.hidden(), download_bars() as downloads:
            return pair.fetch(downloads.progress, downloads.say)

    def stage(self, what: str, done: float, left: float | None) -> None:
        """What of it is measured, which part of that is done, and the seconds left for everything."""
        self._show(f"{what}, {done:.0%}" if done else what, 0.0, left)

    def end(self, row: Row, seconds: float | None, left: float | None) -> None:
        """It is over."""
        self._show(row.status, 1.0, left)
        if row.status != "measured":
            self.say(f"{self._name}: {row.status}. {row.error}")
        elif not self._bars.are_shown:
            how = "known" if seconds is None else f"measured in {duration(seconds)}"
            say(f"  {how}{f', {_left(left)}' if left else ''}")

    def say(self, line: str) -> None:
        """A line for the user, above the bar."""
        self._bars.say(line)

    def _show(self, what: str, done: float, left: float | None) -> None:
        self._change(label=f"{self._name}: {what}", completed=self._place + done, note=_left(left))


@contextlib.contextmanager
def bench_progress(count: int) -> Iterator[BenchProgress]:
    """Progress for as long as a benchmark runs."""
    with progress_bars("bar", "count", "note") as bars:
        yield BenchProgress(bars, count)


class LadderLine:
    """Tells what is made before anything is measured: a bar with the time that is left, or a line for each thing."""

    def __init__(self) -> None:
        self._shown = contextlib.ExitStack()
        self._change: Callable[..., None] = lambda **changes: None
        self._last = ""

    def tell(self, what: str, label: str, done: float) -> None:
        """What is done, the name of what it is at, and which part of it is done."""
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
    """A time as people say it: "0.43 s", "12 s", "3 min", "1 h 20 min"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / _MINUTE)
    if seconds < _HOUR:
        return f"{minutes} min"
    return f"{minutes // _MINUTE} h {minutes % _MINUTE} min"


def _left(seconds: float | None) -> str:
    """Whole seconds; nothing where they are not known, or over."""
    return f"about {duration(math.ceil(seconds))} left" if seconds else ""
