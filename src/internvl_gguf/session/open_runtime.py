"""Loading a model where it is wanted: in this process, or in one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_gguf.config import EngineConfig
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.session.model_runtime import LoadProgress, ModelRuntime
    from internvl_gguf.utils.notices import Notice


def open_runtime(
    files: ModelFiles,
    config: EngineConfig,
    on_load: LoadProgress | None,
    on_notice: Notice,
    *,
    worker: bool,
    worker_timeout: float,
) -> ModelRuntime:
    """Load a model.

    Args:
        files, config, on_load, on_notice: as `session.runtime.Runtime`.
        worker: in a process of its own.
        worker_timeout: as `worker.WorkerRuntime`.

    Raises:
        As `session.runtime.Runtime`.
    """
    # Only what is needed: a process with a worker does not load llama.cpp.
    if worker:
        from internvl_gguf.session.worker.runtime import WorkerRuntime

        return WorkerRuntime(files, config, on_load, on_notice, timeout=worker_timeout)
    from internvl_gguf.session.runtime import Runtime

    return Runtime(files, config, on_load, on_notice)
