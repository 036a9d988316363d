"""Loading a model for a session: its files are found, and loaded in this process or in a worker process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from internvl_gguf.config import USUAL_PICTURES, AskOptions, EngineConfig, EngineOptions, PictureOptions
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.models.resolve import resolve_model
from internvl_gguf.planning.auto_quant import machine_chooser
from internvl_gguf.utils import arguments
from internvl_gguf.utils.foreign_names import of_engine

if TYPE_CHECKING:
    from internvl_gguf.gguf.filenames import DownloadProgress
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.session.model_runtime import LoadProgress, ModelRuntime
    from internvl_gguf.utils.notices import Notice


def find_and_open(
    model: str | os.PathLike[str],
    mmproj: str | os.PathLike[str] | None,
    engine: EngineOptions,
    on_load: LoadProgress | None,
    on_download: DownloadProgress,
    on_notice: Notice,
    worker: bool,
    worker_timeout: float,
    pictures: PictureOptions = USUAL_PICTURES,
) -> ModelRuntime:
    """Find the files of a model, fetch missing ones, and load them; arguments and errors as in `Session.open`."""
    unknown = set(engine) - EngineOptions.__annotations__.keys()
    if unknown:
        raise of_engine(AskOptions.__annotations__).unknown(min(unknown), EngineOptions.__annotations__)
    arguments.functions(on_load=on_load, on_download=on_download, on_notice=on_notice)
    if not 0 <= arguments.number("worker_timeout", worker_timeout) < float("inf"):
        raise InvalidRequestError(f"worker_timeout is {worker_timeout!r}.", "Give seconds, or 0 to wait for ever.")
    worker = arguments.switch("worker", worker)
    config = EngineConfig(**engine)
    files = resolve_model(model, mmproj, chooser=machine_chooser(config, pictures), on_progress=on_download)
    if files.choice:
        on_notice(files.choice)
    return open_runtime(
        files, config, on_load, on_notice, worker=worker, worker_timeout=worker_timeout, pictures=pictures
    )


def open_runtime(
    files: ModelFiles,
    config: EngineConfig,
    on_load: LoadProgress | None,
    on_notice: Notice,
    *,
    worker: bool,
    worker_timeout: float,
    pictures: PictureOptions = USUAL_PICTURES,
) -> ModelRuntime:
    """Load a model.

    Args:
        files, config, on_load, on_notice, pictures: as in `InProcessRuntime`.
        worker: whether it runs in a process of its own. With RPC servers it always does: the native library ends the
            process where one goes away.
        worker_timeout: as in `WorkerRuntime`.

    Raises:
        As `InProcessRuntime`.
    """
    # Imported here, so that a process with a worker does not load llama.cpp.
    if worker or config.servers:
        from internvl_gguf.session.worker.worker_runtime import WorkerRuntime

        return WorkerRuntime(files, config, on_load, on_notice, timeout=worker_timeout, pictures=pictures)
    from internvl_gguf.session.in_process_runtime import InProcessRuntime

    return InProcessRuntime(files, config, on_load, on_notice, pictures)
