"""Fetching a model with a bar for each file, and telling what was chosen."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from internvl_gguf.cli.output import say
from internvl_gguf.gguf.filenames import RepoFile

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.planning.choice import Chooser

_WIDE = 80  # columns that a bar with its figures needs


def obtain(model: str, mmproj: str | None, chooser: Chooser) -> ModelFiles:
    """The files of a model, fetched if they are not here; tells on stderr what was chosen and how far it is.

    Args:
        model: how it was asked for.
        mmproj: a file, or a precision.
        chooser: takes a quant where none was named.

    Raises:
        ModelFileError, ModelPairError, HubError: as `resolve.resolve_model`.
    """
    from internvl_gguf.models.resolve import resolve_model

    with download_bars() as bars:
        files = resolve_model(model, mmproj, chooser=chooser, on_progress=bars.progress, on_wait=bars.say)
    if files.choice:
        say(files.choice)
    return files


class DownloadBars:
    """A bar with speed and remaining time for each file on stderr; nothing but lines where that is no terminal."""

    def __init__(self, bars: Progress | None) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def progress(self, file: RepoFile, done: int) -> None:
        """A file has so many bytes."""
        if self._bars is None:
            return
        if file.path not in self._tasks:
            name = PurePosixPath(file.path).name
            longest = max(12, self._bars.console.width - (48 if self._bars.console.width >= _WIDE else 18))
            label = name if len(name) <= longest else f"…{name[1 - longest :]}"
            self._tasks[file.path] = self._bars.add_task(label, total=file.size, completed=done)
        self._bars.update(self._tasks[file.path], completed=done)

    def say(self, line: str) -> None:
        """A line above the bars."""
        if self._bars is None:
            say(line)
        else:
            self._bars.console.print(line, markup=False, highlight=False)


@contextlib.contextmanager
def download_bars() -> Iterator[DownloadBars]:
    """Bars for as long as files are fetched; they appear with the first byte."""
    if not sys.stderr.isatty():
        yield DownloadBars(None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
    if console.width >= _WIDE:
        columns += [BarColumn(bar_width=None), DownloadColumn(binary_units=True), TransferSpeedColumn()]
    else:
        columns += [TaskProgressColumn()]
    with Progress(*columns, TimeRemainingColumn(compact=True), console=console) as bars:
        yield DownloadBars(bars)
