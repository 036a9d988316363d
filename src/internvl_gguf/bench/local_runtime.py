"""A session that runs in this process, and access to its engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from internvl_gguf.config import USUAL_PICTURES, EngineConfig, EngineOptions
from internvl_gguf.models.resolve import resolve_model

if TYPE_CHECKING:
    from internvl_gguf.session import Session
    from internvl_gguf.session.in_process_runtime import InProcessRuntime
    from internvl_gguf.utils.notices import Notice


def open_here(text: Path, mmproj: Path, on_notice: Notice, **engine: Unpack[EngineOptions]) -> Session:
    """Load a model in this process, on RPC servers, too: for a process that may end when one of them is lost.

    Args:
        text, mmproj: its files.
        on_notice: called with one line if it is loaded in another way than asked for.
        **engine: fields of `EngineConfig`.

    Raises:
        As `Session.open`.
    """
    from internvl_gguf.images.tile_limits import TileLimits
    from internvl_gguf.session import Session
    from internvl_gguf.session.in_process_runtime import InProcessRuntime
    from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM
    from internvl_gguf.tiling import TileRange

    runtime = InProcessRuntime(resolve_model(text, mmproj), EngineConfig(**engine), on_notice=on_notice)
    return Session(runtime, OFFICIAL_SYSTEM, TileLimits.of(USUAL_PICTURES, TileRange.of(runtime.vision)), on_notice)


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
