"""Fetching a model with a bar for each file, and telling what was chosen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from internvl_gguf.cli.output import Figure, ProgressBars, columns, progress_bars, say
from internvl_gguf.gguf.filenames import RepoFile

if TYPE_CHECKING:
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
    """A bar with speed and remaining time for each file; nothing but lines where there are no bars."""

    def __init__(self, bars: ProgressBars) -> None:
        self._bars = bars
        self._changes: dict[str, Callable[..., None]] = {}
        self.say = bars.say

    def progress(self, file: RepoFile, done: int) -> None:
        """A file has so many bytes."""
        if file.path not in self._changes:
            width = columns(err=True)
            longest = max(12, width - (48 if width >= _WIDE else 18))
            name = PurePosixPath(file.path).name
            label = name if len(name) <= longest else f"…{name[1 - longest :]}"
            self._changes[file.path] = self._bars.add(label, total=file.size, completed=done)
        self._changes[file.path](completed=done)


@contextlib.contextmanager
def download_bars() -> Iterator[DownloadBars]:
    """Bars for as long as files are fetched; they appear with the first byte."""
    wide: tuple[Figure, ...] = ("wide bar", "bytes", "speed")
    figures = wide if columns(err=True) >= _WIDE else ("percent",)
    with progress_bars(*figures, "short time left", transient=False) as bars:
        yield DownloadBars(bars)
