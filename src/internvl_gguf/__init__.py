"""A local runtime for InternVL3 in GGUF that shows the model what it was trained on.

    from internvl_gguf import Session

    with Session.open("demo") as session:
        print(session.ask("What is it?", images=["photo.jpg"]).text)

Importing this loads neither llama.cpp nor numpy nor Pillow; `Session` does when it is first touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from internvl_gguf import tiling
from internvl_gguf._version import __version__
from internvl_gguf.config import SamplingParams
from internvl_gguf.errors import (
    CatalogError,
    ContextOverflowError,
    HubError,
    InsufficientMemoryError,
    InternVLError,
    InvalidRequestError,
    LibraryError,
    ModelFileError,
    ModelPairError,
    PictureError,
    SavedSessionError,
    SessionStateError,
)
from internvl_gguf.types import Chunk, Message, Picture, Question, Reply, Timings, Usage

if TYPE_CHECKING:
    from internvl_gguf.session import Session

__all__ = [
    "CatalogError",
    "Chunk",
    "ContextOverflowError",
    "HubError",
    "InsufficientMemoryError",
    "InternVLError",
    "InvalidRequestError",
    "LibraryError",
    "Message",
    "ModelFileError",
    "ModelPairError",
    "Picture",
    "PictureError",
    "Question",
    "Reply",
    "SamplingParams",
    "SavedSessionError",
    "Session",
    "SessionStateError",
    "Timings",
    "Usage",
    "__version__",
    "tiling",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name == "Session":
        from internvl_gguf.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
