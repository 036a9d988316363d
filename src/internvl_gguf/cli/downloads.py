"""Fetch a model with a bar for each file, and tell what was chosen; name it so that it is found again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from internvl_gguf.cli.output import Figure, ProgressBars, columns, progress_bars, say
from internvl_gguf.gguf.filenames import RepoFile, sort_out
from internvl_gguf.models.names import DEMO
from internvl_gguf.utils.paths import expanded

if TYPE_CHECKING:
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.planning.choice import Chooser

_WIDE = 80  # columns that a bar with its figures needs


def obtain(model: str, mmproj: str | None, chooser: Chooser) -> ModelFiles:
    """Return the files of a model, fetched if they are not here; stderr shows the choice and the progress.

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
    """A bar with speed and remaining time for each file; only lines where no bars can be shown."""

    def __init__(self, bars: ProgressBars) -> None:
        self._bars = bars
        self._changes: dict[str, Callable[..., None]] = {}
        self.say = bars.say

    def progress(self, file: RepoFile, done: int) -> None:
        """Show how many bytes of a file have arrived."""
        if file.path not in self._changes:
            width = columns(err=True)
            longest = max(12, width - (48 if width >= _WIDE else 18))
            name = PurePosixPath(file.path).name
            label = name if len(name) <= longest else f"…{name[1 - longest :]}"
            self._changes[file.path] = self._bars.add(label, total=file.size, completed=done)
        self._changes[file.path](completed=done)


@contextlib.contextmanager
def download_bars() -> Iterator[DownloadBars]:
    """Show bars while files are fetched; they appear with the first byte."""
    wide: tuple[Figure, ...] = ("wide bar", "bytes", "speed")
    figures = wide if columns(err=True) >= _WIDE else ("percent",)
    with progress_bars(*figures, "short time left", transient=False) as bars:
        yield DownloadBars(bars)


def full_name(files: ModelFiles) -> str:
    """Return a name by which a model is found again: with its quant, paths absolute."""
    if files.name.lower() == DEMO:
        return DEMO
    path = expanded(files.name)
    if path.is_file():
        return str(path.absolute())
    name, _, quant = files.name.rpartition(":") if ":" in files.name else (files.name, "", "")
    if path.is_dir() or expanded(name).is_dir():
        return str(files.text.absolute())
    texts = sort_out([RepoFile(files.text.name)]).texts
    return files.name if quant or not texts or texts[0].quant is None else f"{name}:{texts[0].quant}"
