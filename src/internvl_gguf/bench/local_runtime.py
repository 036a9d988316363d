"""Access to the engine of a session that runs in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_gguf.session import Session
    from internvl_gguf.session.in_process_runtime import InProcessRuntime


def local_runtime(session: Session) -> InProcessRuntime:
    """Return the runtime of a session that was opened without a worker process.

    Raises:
        TypeError: the session has a worker process.
    """
    from internvl_gguf.session.in_process_runtime import InProcessRuntime

    runtime = session.runtime
    if not isinstance(runtime, InProcessRuntime):
        raise TypeError("what is measured runs in this process")
    return runtime
