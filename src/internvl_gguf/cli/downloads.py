"""Fetching a model with a bar for each file, and telling what was chosen."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from internvl_gguf.cli.output import say
from internvl_gguf.repo_files import DownloadProgress, RepoFile

if TYPE_CHECKING:
    from internvl_gguf.model_files import ModelFiles


def obtain(model: str, mmproj: str | None) -> ModelFiles:
    """The files of a model, fetched if they are not here; tells on stderr what was chosen and how far it is.

    Raises:
        ModelFileError, ModelPairError, HubError: as `resolve.resolve_model`.
    """
    from internvl_gguf.resolve import resolve_model

    with download_progress() as on_progress:
        files = resolve_model(model, mmproj, on_progress=on_progress, on_wait=say)
    if files.choice:
        say(files.choice)
    return files


@contextlib.contextmanager
def download_progress() -> Iterator[DownloadProgress]:
    """A bar with speed and remaining time for each file; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda file, done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
    ) as bars:
        tasks: dict[str, int] = {}

        def on_progress(file: RepoFile, done: int) -> None:
            if file.path not in tasks:
                name = PurePosixPath(file.path).name
                task = bars.add_task(name, total=file.size, completed=done)
                tasks[file.path] = task
            bars.update(tasks[file.path], completed=done)  # type: ignore[arg-type]

        yield on_progress
