"""The protocol of a session as the history and the chat use it, whether its model is here or with a server."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from typing import Any, Protocol, Unpack, runtime_checkable

from internvl_gguf.config import AskOptions
from internvl_gguf.types import Chunk, Message, MessagePicture


@runtime_checkable
class AnySession(Protocol):
    """A conversation with a model. `Session`, whose model is on this machine, says more about each part."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, the system message first."""
        ...

    def stream(self, prompt: str, images: Any = (), **options: Unpack[AskOptions]) -> Generator[Chunk, None, None]:
        """Ask a question and receive the answer piece by piece; the last chunk carries the `Reply`."""
        ...

    def undo(self) -> Message | None:
        """Forget the last question and its answer, and return the question; None if none was asked."""
        ...

    def clear(self) -> None:
        """Forget the conversation; the system message stays."""
        ...

    def set_system(self, text: str | None) -> None:
        """Replace the system message: "" for none, None for the one that the model has by itself."""
        ...

    def continue_with(self, messages: Iterable[Message], saved: str | os.PathLike[str] | None = None) -> None:
        """Continue a conversation held elsewhere, its pictures made by `picture`; `saved` may hold its KV."""
        ...

    def picture(
        self, image: Any, grid: tuple[int, int] | None = None, *, has_thumbnail: bool = False
    ) -> MessagePicture:
        """Return a picture as messages of this session hold it; `grid` is how it was cut before.

        Raises:
            PictureError: a picture that cannot be read.
        """
        ...

    def frame_room(self, prompt: str, images: Any = (), **options: Unpack[AskOptions]) -> int:
        """Return how many frames of a clip the context has room for, beside the conversation and a question."""
        ...

    def kv_bytes(self, positions: int) -> int | None:
        """Return the bytes of the KV that `save` writes for so many positions; None if there is nothing to save."""
        ...

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the conversation with its KV; only where `kv_bytes` says that there is something to save."""
        ...

    def revive(self) -> None:
        """Make the model usable again if its process has died."""
        ...

    def abort(self) -> None:
        """Stop the running answer, from another thread: it ends with finish_reason "aborted"."""
        ...

    def close(self) -> None:
        """End the conversation."""
        ...
