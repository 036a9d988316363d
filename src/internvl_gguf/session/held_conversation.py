"""A conversation and its model, without any question: its messages, its pictures, its end."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from internvl_gguf.config import SamplingParams
from internvl_gguf.errors import InvalidRequestError, SessionStateError
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.session import cut_pictures, restore
from internvl_gguf.session.candidate_answers import CandidateProgress
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM, check_turns, with_system, without_last_question
from internvl_gguf.session.saved_file import write_saved
from internvl_gguf.session.session_lock import SessionLock
from internvl_gguf.types import Message, MessagePicture
from internvl_gguf.utils import arguments
from internvl_gguf.utils.notices import Notice, log_notice
from internvl_gguf.utils.owned import Owned, disown_after_fork, inherited

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from internvl_gguf.engine import TileProgress
    from internvl_gguf.structured import Tool


class HeldConversation(Owned):
    """A conversation that a loaded model holds: its messages, its pictures, and the lock of whoever works on it.

    `Session` asks in it; this class only tells of it and changes it.
    """

    def __init__(
        self,
        runtime: ModelRuntime | None = None,
        system: str = "",
        limits: TileLimits | None = None,
        on_notice: Notice = log_notice,
        **opening: object,
    ) -> None:
        if runtime is None or isinstance(runtime, str | os.PathLike) or limits is None or opening:
            raise InvalidRequestError("A Session is not made by its class.", 'Write Session.open("demo", ...).')
        self._runtime: ModelRuntime | None = runtime
        self._encoder_identity = runtime.encoder_identity
        self._limits = limits
        self._on_notice = on_notice
        self._messages = with_system([], system)
        # Those of the last question: the KV of the conversation begins with them.
        self._tools: tuple[Tool, ...] = ()
        self._sampling = SamplingParams()
        self._lock = SessionLock()
        self._on_tiles: TileProgress | None = None
        self._on_candidates: CandidateProgress | None = None
        self._is_inherited = False
        self._is_parallel_open = False
        disown_after_fork(self)

    def __repr__(self) -> str:
        if self._runtime is None:
            return "<Session, closed>"
        model, n_ctx = self._runtime.files.text.name, self._runtime.engine.n_ctx
        return f"<Session of {model}, n_ctx={n_ctx:,}>"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, the system message first."""
        return tuple(self._messages)

    @property
    def limits(self) -> TileLimits:
        """The tile limits of pictures whose question or `Picture` sets none."""
        return self._limits

    @property
    def runtime(self) -> ModelRuntime:
        """The loaded model.

        Raises:
            SessionStateError: the session is closed, or it is the parent's of a forked process.
        """
        if self._is_inherited:
            raise inherited()
        if self._runtime is None:
            raise SessionStateError("The session is closed.", "Open a new one with Session.open().")
        return self._runtime

    def revive(self) -> None:
        """Load the model again if its worker process has died; every question does that by itself.

        Raises:
            InternVLError: it cannot be loaded again.
            SessionStateError: the session is closed.
        """
        runtime = self.runtime
        runtime.revive()
        if runtime.encoder_identity != self._encoder_identity:  # for example, on another device than before
            self._messages = restore.adapt_messages(runtime, self._messages)
            self._encoder_identity = runtime.encoder_identity

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the conversation to a file: its text, its pictures and its KV, so that nothing is computed again.

        The file is written atomically. Its size is that of the KV (192 KiB a position for the 14B) and of the tiles.

        Raises:
            SavedSessionError: it cannot be written.
            SessionStateError: the session is closed or answers a question.
        """
        file = Path(arguments.path("path", path))
        with self._exclusive():
            self.revive()
            saved = restore.session_to_save(self.runtime, self._messages, self._tools, self._sampling, self._limits)
            write_saved(file, saved)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text's tokens, without any of the chat template.

        Raises:
            InvalidRequestError: it is no text.
        """
        self.revive()
        return self.runtime.engine.model.tokenize(arguments.text("text", text))

    def token_text(self, token: int) -> str:
        """Return the text of a token; bytes that are only a part of a character are shown as U+FFFD.

        Raises:
            InvalidRequestError: an id outside the vocabulary.
        """
        self.revive()
        vocabulary = self.runtime.engine.model
        number = arguments.whole("token", token)
        if not 0 <= number < vocabulary.n_vocab:
            raise arguments.wrong("token", token, f"Give an id from 0 to {vocabulary.n_vocab - 1}.")
        return vocabulary.piece(number).decode("utf-8", "replace")

    def embed_image(
        self,
        image: Any,
        *,
        max_tiles: int | None = None,
        min_tiles: int | None = None,
        thumbnail: bool | None = None,
    ) -> NDArray[np.float32]:
        """Return the embeddings that the text model gets of a picture, float32 [tiles, tokens_per_tile, n_embd].

        The thumbnail, if any, comes last.

        Raises:
            PictureError: a picture that cannot be read.
            InvalidRequestError: tile limits that no grid satisfies.
        """
        given = {"max_tiles": max_tiles, "min_tiles": min_tiles, "thumbnail": thumbnail}
        with self._exclusive():
            self.revive()
            picture = cut_pictures.prepare_picture(self.runtime, self._limits, image, given)
            return np.stack(self.runtime.engine.embed(picture.tiles, self._on_tiles, lambda: self._lock.is_aborted))

    def picture(
        self, image: Any, grid: tuple[int, int] | None = None, *, has_thumbnail: bool = False
    ) -> MessagePicture:
        """Return a picture as messages hold it, cut for this model.

        Args:
            image: as in `ask`.
            grid: (columns, rows) that it was cut by before, perhaps for another model; None cuts it as a question does.
            has_thumbnail: whether the whole picture followed in one more tile then.

        Raises:
            PictureError: a picture that cannot be read.
        """
        if grid is None:
            return cut_pictures.prepare_picture(self.runtime, self._limits, image, {})
        return cut_pictures.recut_picture(self.runtime, image, grid, has_thumbnail)

    def kv_bytes(self, positions: int) -> int | None:
        """Return the bytes of the KV that `save` writes for so many positions; None while the model is not loaded."""
        from internvl_gguf.memory import kv_bytes_per_position

        if not self.runtime.is_alive:
            return None
        configuration = self.runtime.configuration
        return positions * kv_bytes_per_position(configuration.candidate.text, configuration.request.kv_type)

    def clear(self) -> None:
        """Forget the conversation; the system message stays."""
        with self._exclusive():
            self._messages = [message for message in self._messages if message.role == "system"]

    def undo(self) -> Message | None:
        """Forget the last question and its answer.

        Nothing that stays is computed again. The question's pictures may be given as `images` again, already cut.

        Returns:
            The question; None if none was asked.
        """
        with self._exclusive():
            self._messages, question = without_last_question(self._messages)
            return question

    def set_system(self, text: str | None) -> None:
        """Replace the system message of the conversation.

        Everything after it is read again at the next question; pictures are not encoded again.

        Args:
            text: None for the official one, "" for no system message.
        """
        system = arguments.text_or_none("text", text)
        with self._exclusive():
            self._messages = with_system(self._messages, OFFICIAL_SYSTEM if system is None else system)

    def continue_with(self, messages: Iterable[Message], saved: str | os.PathLike[str] | None = None) -> None:
        """Continue a conversation held elsewhere: with another quant, another model or in another process.

        It replaces the conversation of this session, system message included. Nothing is computed before the next
        question, which reads what is not in the KV cache.

        Args:
            messages: at most one system message, then questions and answers in turn.
            saved: a file that `save` wrote of the conversation. Its KV is restored, so that nothing is read again, if
                it is of this model, quant, build and cache type; otherwise, or if it cannot be read, it is ignored.

        Raises:
            InvalidRequestError: messages out of turn, or pictures cut for an encoder with tiles of another size.
        """
        file = None if saved is None else Path(arguments.path("saved", saved))
        with self._exclusive():
            self.revive()
            taken = restore.adapt_messages(self.runtime, check_turns(messages))
            if file is not None:
                restore.restore_matching_kv(file, self.runtime)
            self._messages = taken

    def abort(self) -> None:
        """Stop the running operation, from another thread: an answer ends with finish_reason "aborted"."""
        _ = self.runtime
        self._lock.abort()

    def on_tiles(self, progress: TileProgress | None) -> None:
        """Set the function called with (tiles encoded, tiles to encode) while pictures of later questions are encoded.

        It is called in whichever thread works for the model at that moment.
        """
        arguments.functions(progress=progress)
        self._on_tiles = progress

    def on_candidates(self, progress: CandidateProgress | None) -> None:
        """Set the function called while several answers to a question are written (`best_of`).

        Args:
            progress: called with the answers that have ended, all answers, and the tokens of all so far.
        """
        arguments.functions(progress=progress)
        self._on_candidates = progress

    def close(self) -> None:
        """End the conversation; the last session on a model frees it. Closing twice is harmless."""
        runtime, self._runtime = self._runtime, None
        if runtime:
            runtime.release()

    def disown(self) -> None:
        """See `Owned.disown`: a forked child cannot use the session, and closing it there does nothing."""
        self._runtime, self._is_inherited = None, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exclusive(self) -> AbstractContextManager[None]:
        _ = self.runtime
        return self._lock.hold()
