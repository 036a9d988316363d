"""Show progress on stderr: bars or one line on a terminal, lines or nothing elsewhere. rich is loaded late."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import typer

from internvl_gguf.cli.output.lines import is_terminal, say
from internvl_gguf.utils.safe_text import can_show, safe_text

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID
    from rich.status import Status

Figure = Literal["bar", "wide bar", "count", "bytes", "speed", "percent", "time left", "short time left", "note"]
"""What stands behind the label of a bar; "note" is a text that the caller gives."""

_CLEAR: Final = "\r\x1b[K"
_SPINNER: Final = "⠋"


class ProgressBars:
    """Bars with labels, and lines above them; only the lines where no bars can be shown.

    Attributes:
        are_shown: whether there are bars.
    """

    def __init__(self, bars: Progress | None) -> None:
        self._bars = bars
        self.are_shown = bars is not None

    def add(self, label: str, total: float | None = None, completed: int = 0) -> Callable[..., None]:
        """Add a bar.

        Args:
            label: what stands before it.
            total: when it is full; None where that is not known.
            completed: how full it is.

        Returns:
            Changes it: takes `label`, `total`, `completed`, `advance` and `note` by name.
        """
        if self._bars is None:
            return lambda **changes: None
        task = self._bars.add_task(safe_text(label), total=total, completed=completed, note="")
        return lambda **changes: self._change(task, **changes)

    def say(self, line: str) -> None:
        """Show a line to the user, above the bars."""
        if self._bars is None:
            say(line)
        else:
            self._bars.console.print(safe_text(line), markup=False, highlight=False)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bars while something else is on the terminal."""
        if self._bars is not None:
            self._bars.stop()
        try:
            yield
        finally:
            if self._bars is not None:
                self._bars.start()

    def _change(
        self,
        task: TaskID,
        *,
        label: str | None = None,
        total: float | None = None,
        completed: float | None = None,
        advance: float | None = None,
        note: str | None = None,
    ) -> None:
        if self._bars is not None:
            description = None if label is None else safe_text(label)
            notes: dict[str, Any] = {} if note is None else {"note": note}
            self._bars.update(task, description=description, total=total, completed=completed, advance=advance, **notes)


@contextmanager
def progress_bars(*figures: Figure, transient: bool = True, beside_answers: bool = True) -> Iterator[ProgressBars]:
    """Show bars on stderr, if it is a terminal, until the work ends.

    Args:
        figures: what stands behind each label.
        transient: whether the bars go when all is done.
        beside_answers: whether there are bars where answers come to the same terminal, too.
    """
    if not is_terminal(err=True) or (is_terminal() and not beside_answers):
        yield ProgressBars(None)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(*_columns(figures), console=Console(stderr=True), transient=transient) as bars:
        yield ProgressBars(bars)


class StatusLine:
    """A line with a spinner; nothing where stderr is no terminal."""

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def show(self, text: str) -> None:
        """Show what takes time now."""
        if self._status:
            self._status.update(safe_text(text))

    def say(self, line: str) -> None:
        """Show a line to the user, above the status line."""
        self.stop()
        say(line)
        if self._status:
            self._status.start()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the line while something else is on the terminal."""
        self.stop()
        yield
        if self._status:
            self._status.start()

    def stop(self) -> None:
        """Remove the line, so that others can write to the terminal."""
        if self._status:
            self._status.stop()


@contextmanager
def status_line(text: str) -> Iterator[StatusLine]:
    """Show a line on stderr that tells what takes time, until the work ends."""
    if not is_terminal(err=True):
        yield StatusLine(None)
        return
    from rich.console import Console

    spinner = "dots" if can_show(sys.stderr, _SPINNER) else "line"
    with Console(stderr=True).status(safe_text(text), spinner=spinner) as status:
        yield StatusLine(status)


@contextmanager
def replaced_line() -> Iterator[Callable[[str], None]]:
    """Return a function that replaces the line on stderr by another; it does nothing if stderr is not a terminal.

    Nothing moves by itself, so that it takes no time from what is measured meanwhile.
    """
    if not is_terminal(err=True):
        yield lambda line: None
        return
    try:
        yield lambda line: typer.echo(f"{_CLEAR}{safe_text(line)}", err=True, nl=False)
    finally:
        typer.echo(_CLEAR, err=True, nl=False)


def _columns(figures: Sequence[Figure]) -> list[ProgressColumn]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    made: dict[Figure, Callable[[], ProgressColumn]] = {
        "bar": BarColumn,
        "wide bar": lambda: BarColumn(bar_width=None),
        "count": MofNCompleteColumn,
        "bytes": lambda: DownloadColumn(binary_units=True),
        "speed": TransferSpeedColumn,
        "percent": TaskProgressColumn,
        "time left": TimeRemainingColumn,
        "short time left": lambda: TimeRemainingColumn(compact=True),
        "note": lambda: TextColumn("{task.fields[note]}", markup=False),
    }
    return [TextColumn("{task.description}", markup=False), *(made[figure]() for figure in figures)]
