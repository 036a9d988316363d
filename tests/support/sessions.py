"""What is behind a session's public face: the engine in this process, or the worker's process."""

from __future__ import annotations

from internvl_gguf import Session
from internvl_gguf.engine import Engine
from internvl_gguf.session.worker.worker_runtime import WorkerRuntime


def engine_of(session: Session) -> Engine:
    """The engine of a session whose model is loaded in this process."""
    engine = session.runtime.engine
    assert isinstance(engine, Engine)
    return engine


def worker_pid(session: Session) -> int:
    """The process of a session's worker."""
    assert isinstance(session.runtime, WorkerRuntime)
    pid = session.runtime.pid
    assert pid is not None
    return pid
