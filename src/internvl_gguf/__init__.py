"""A local runtime for InternVL in GGUF that shows the model what it was trained on.

    from internvl_gguf import Session

    with Session.open("demo") as session:
        print(session.ask("What is it?", images=["photo.jpg"]).text)

Importing this loads next to nothing: each name is imported when it is first touched.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from internvl_gguf import boxes, tiling
    from internvl_gguf._version import __version__
    from internvl_gguf.config import SamplingParams
    from internvl_gguf.critics.critic import Critic
    from internvl_gguf.errors import (
        BenchmarkError,
        CatalogError,
        ContextOverflowError,
        HistoryError,
        HubError,
        InsufficientMemoryError,
        InternVLError,
        InvalidAnswerError,
        InvalidRequestError,
        LibraryError,
        MissingEncoderError,
        ModelFileError,
        ModelPairError,
        NotNumbersError,
        PictureError,
        RPCServerError,
        SavedSessionError,
        SessionStateError,
        ToolError,
        VideoError,
        WorkerDiedError,
    )
    from internvl_gguf.models.critic_description import CriticDescription
    from internvl_gguf.session import Session
    from internvl_gguf.session.cascade import Cascade
    from internvl_gguf.types import (
        Box,
        Chunk,
        Message,
        Picture,
        Question,
        Reply,
        Timings,
        ToolCall,
        ToolResult,
        Usage,
        Video,
    )

__all__ = [
    "BenchmarkError",
    "Box",
    "Cascade",
    "CatalogError",
    "Chunk",
    "ContextOverflowError",
    "Critic",
    "CriticDescription",
    "HistoryError",
    "HubError",
    "InsufficientMemoryError",
    "InternVLError",
    "InvalidAnswerError",
    "InvalidRequestError",
    "LibraryError",
    "Message",
    "MissingEncoderError",
    "ModelFileError",
    "ModelPairError",
    "NotNumbersError",
    "Picture",
    "PictureError",
    "Question",
    "RPCServerError",
    "Reply",
    "SamplingParams",
    "SavedSessionError",
    "Session",
    "SessionStateError",
    "Timings",
    "ToolCall",
    "ToolError",
    "ToolResult",
    "Usage",
    "Video",
    "VideoError",
    "WorkerDiedError",
    "__version__",
    "boxes",
    "tiling",
]

_HOMES: Final = {
    "BenchmarkError": "errors",
    "Box": "types",
    "Cascade": "session.cascade",
    "CatalogError": "errors",
    "Chunk": "types",
    "ContextOverflowError": "errors",
    "Critic": "critics.critic",
    "CriticDescription": "models.critic_description",
    "HistoryError": "errors",
    "HubError": "errors",
    "InsufficientMemoryError": "errors",
    "InternVLError": "errors",
    "InvalidAnswerError": "errors",
    "InvalidRequestError": "errors",
    "LibraryError": "errors",
    "Message": "types",
    "ModelFileError": "errors",
    "MissingEncoderError": "errors",
    "ModelPairError": "errors",
    "NotNumbersError": "errors",
    "Picture": "types",
    "PictureError": "errors",
    "Question": "types",
    "RPCServerError": "errors",
    "Reply": "types",
    "SamplingParams": "config",
    "SavedSessionError": "errors",
    "Session": "session.session",
    "SessionStateError": "errors",
    "Timings": "types",
    "ToolCall": "types",
    "ToolResult": "types",
    "ToolError": "errors",
    "Usage": "types",
    "Video": "types",
    "VideoError": "errors",
    "WorkerDiedError": "errors",
    "__version__": "_version",
}
"""The module of each name. They are imported when they are first touched, which keeps `internvl --help` quick."""


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in ("boxes", "tiling"):
        return importlib.import_module(f"internvl_gguf.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"internvl_gguf.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
