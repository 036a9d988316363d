"""The engine of a session as it is measured: in this process, which is one of its own already."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_gguf.session import Session
    from internvl_gguf.session.in_process_runtime import InProcessRuntime


def local_runtime(session: Session) -> InProcessRuntime:
    """The runtime of a session that was opened without a worker.

    Raises:
        TypeError: it was opened with one.
    """
    from internvl_gguf.session.in_process_runtime import InProcessRuntime

    runtime = session.runtime
    if not isinstance(runtime, InProcessRuntime):
        raise TypeError("what is measured runs in this process")
    return runtime
