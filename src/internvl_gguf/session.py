"""A conversation with pictures: ask, stream, fork."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from internvl_gguf.config import AskOptions, EngineConfig, EngineOptions
from internvl_gguf.conversation import OFFICIAL_SYSTEM
from internvl_gguf.engine import Generation, TileProgress
from internvl_gguf.errors import InvalidRequestError, SessionStateError
from internvl_gguf.kv_ledger import total_length
from internvl_gguf.loading import LoadProgress, Runtime
from internvl_gguf.machine_choice import machine_chooser
from internvl_gguf.notices import Notice, log_notice
from internvl_gguf.preparation import Request, prepare_picture, prepare_request
from internvl_gguf.repo_files import DownloadProgress
from internvl_gguf.resolve import DEMO, resolve_model
from internvl_gguf.text_stream import TextStream
from internvl_gguf.tile_limits import TileLimits
from internvl_gguf.types import Chunk, Message, Reply, Timings, Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Session:
    """One conversation. Open with `Session.open`, close it or use it in a `with` statement.

    A session answers one question at a time; a second thread asking meanwhile is refused. Sessions in several threads
    are independent, forks of one session take turns.
    """

    def __init__(self, runtime: Runtime, system: str, limits: TileLimits, on_notice: Notice = log_notice) -> None:
        self._runtime: Runtime | None = runtime
        self._limits = limits
        self._on_notice = on_notice
        self._messages: list[Message] = [Message("system", system)] if system else []
        self._busy = threading.Lock()

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str] = DEMO,
        mmproj: str | os.PathLike[str] | None = None,
        *,
        system: str | None = None,
        max_tiles: int = TileLimits.max_tiles,
        min_tiles: int = TileLimits.min_tiles,
        thumbnail: bool = TileLimits.thumbnail,
        on_load: LoadProgress | None = None,
        on_download: DownloadProgress = lambda file, done: None,
        on_notice: Notice | None = None,
        **engine: Unpack[EngineOptions],
    ) -> Session:
        """Load a model and begin a conversation.

        Args:
            model: `demo`, a catalogue's name such as "InternVL3-14B-Instruct:Q4_K_XL", "owner/repo:QUANT", or the path
                of a text GGUF or of a folder. What is not here yet is fetched.
            mmproj: the vision encoder's GGUF, or a precision ("BF16") that the repository or folder has; left out, the
                one that suits this machine.
            system: text of the system message; None for the official one, "" for no system message.
            max_tiles: most tiles of a picture, the thumbnail not counted.
            min_tiles: fewest tiles of a picture.
            thumbnail: whether the whole picture follows several tiles in one more.
            on_load: called with the fraction of the text model that is loaded.
            on_download: called with each file and how many of its bytes are here.
            on_notice: called with one line whenever something was changed so that it works, such as pictures cut into
                fewer tiles; left out, the line is a warning in the log "internvl_gguf", which Python shows on stderr.
            **engine: fields of `config.EngineConfig`: n_ctx, n_gpu_layers, kv_type, flash_attn, n_threads, ...

        Raises:
            ModelFileError, ModelPairError: files missing, damaged, of another kind, or not of one model.
            HubError: files that cannot be fetched.
            InvalidRequestError: an option out of range or unknown.
            LibraryError: llama.cpp is not the build this package is made for, or refused.
        """
        unknown = set(engine) - EngineOptions.__annotations__.keys()
        if unknown:
            raise InvalidRequestError(
                f"Session.open has no option {sorted(unknown)[0]!r}.",
                f"The options are {', '.join(EngineOptions.__annotations__)}.",
            )
        limits = TileLimits(max_tiles, min_tiles, thumbnail)
        on_notice = on_notice or log_notice
        config = EngineConfig(**engine)
        files = resolve_model(model, mmproj, chooser=machine_chooser(config), on_progress=on_download)
        if files.choice:
            on_notice(files.choice)
        runtime = Runtime(files, config, on_load, on_notice)
        return cls(runtime, OFFICIAL_SYSTEM if system is None else system, limits, on_notice)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, the system message first."""
        return tuple(self._messages)

    @property
    def runtime(self) -> Runtime:
        """The loaded model.

        Raises:
            SessionStateError: the session is closed.
        """
        if self._runtime is None:
            raise SessionStateError("The session is closed.", "Open a new one with Session.open().")
        return self._runtime

    def ask(self, prompt: str, images: Sequence[Any] = (), **options: Unpack[AskOptions]) -> Reply:
        """Ask a question, about pictures or not, and wait for the whole answer.

        Args:
            prompt: the question; it may say where the pictures go with one `<image>` for each.
            images: paths, bytes, data URIs, PIL pictures, numpy arrays, or `Picture`s with their own tile limits.
            **options: see `config.AskOptions`.

        Raises:
            InvalidRequestError: options or a prompt that cannot be used.
            ContextOverflowError: they do not fit the context, even with pictures cut smaller; nothing was computed.
            PictureError: a picture that cannot be read.
            SessionStateError: the session is closed or answers another question.

        After an error, Ctrl-C included, the conversation is as it was before.
        """
        request = self._prepare(prompt, images, options)
        replies = [chunk.reply for chunk in self._answer(request, keep_partial=False) if chunk.reply]
        return replies[-1]

    def stream(self, prompt: str, images: Sequence[Any] = (), **options: Unpack[AskOptions]) -> Iterator[Chunk]:
        """Ask a question and receive the answer piece by piece; the last chunk carries the `Reply`.

        Arguments and errors are those of `ask`; the question is checked at once, the answer begins with the first
        `next`. Closing the iterator ends the answer, and what was received of it stays in the conversation.
        """
        return self._answer(self._prepare(prompt, images, options), keep_partial=True)

    def next_token_logprobs(
        self, prompt: str, images: Sequence[Any] = (), **options: Unpack[AskOptions]
    ) -> NDArray[np.float32]:
        """Natural-log probabilities of the first token of the answer, float32 [n_vocab].

        Arguments and errors are those of `ask`. The conversation stays as it is.
        """
        request = self._prepare(prompt, images, options)
        with self._exclusive():
            logits = self.runtime.engine.next_token_logits(request.spans).astype(np.float64)
        logits -= logits.max()
        return np.asarray(logits - np.log(np.exp(logits).sum()), dtype=np.float32)

    def embed_image(
        self,
        image: Any,
        *,
        max_tiles: int | None = None,
        min_tiles: int | None = None,
        thumbnail: bool | None = None,
    ) -> NDArray[np.float32]:
        """What the text model sees of a picture, float32 [tiles, tokens_per_tile, n_embd], thumbnail last.

        Raises:
            PictureError: a picture that cannot be read.
            InvalidRequestError: tile limits that no grid satisfies.
        """
        options: AskOptions = {}
        if max_tiles is not None:
            options["max_tiles"] = max_tiles
        if min_tiles is not None:
            options["min_tiles"] = min_tiles
        if thumbnail is not None:
            options["thumbnail"] = thumbnail
        with self._exclusive():
            picture = prepare_picture(self.runtime, self._limits, image, options)
            return np.stack(self.runtime.engine.embed(picture.tiles))

    def clear(self) -> None:
        """Forget the conversation; the system message stays."""
        with self._exclusive():
            self._messages = [message for message in self._messages if message.role == "system"]

    def fork(self) -> Session:
        """A second conversation that begins with everything said so far; both share the loaded model."""
        with self._exclusive():
            fork = Session(self.runtime.share(), "", self._limits, self._on_notice)
            fork._messages = list(self._messages)
            return fork

    def abort(self) -> None:
        """Stop the answer under way from another thread; it ends with finish_reason "aborted"."""
        self.runtime.engine.abort()

    def on_tiles(self, progress: TileProgress | None) -> None:
        """Be told (tiles encoded, tiles to encode) while pictures are encoded."""
        self.runtime.engine.on_tiles = progress

    def close(self) -> None:
        """End the conversation; the last session on a model frees it. Closing twice is harmless."""
        runtime, self._runtime = self._runtime, None
        if runtime:
            runtime.release()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        _ = self.runtime
        if not self._busy.acquire(blocking=False):
            raise SessionStateError(
                "The session is answering another question.",
                "Wait for that answer or close its stream; fork() the session to ask at the same time.",
            )
        try:
            yield
        finally:
            self._busy.release()

    def _prepare(self, prompt: str, images: Sequence[Any], options: AskOptions) -> Request:
        request = prepare_request(self.runtime, self._limits, self._messages, prompt, images, options)
        for line in request.notices:
            self._on_notice(line)
        return request

    def _answer(self, request: Request, *, keep_partial: bool) -> Iterator[Chunk]:
        with self._exclusive():
            if len(self._messages) != request.history_length:
                raise SessionStateError(
                    "The conversation went on after this stream was made.", "Read a stream before asking again."
                )
            generation = self.runtime.engine.generate(request.spans, request.sampling)
            stream = TextStream(request.sampling.stop)
            clock = _Clock(request)
            text = ""
            try:
                for token in generation:
                    clock.tick()
                    piece = stream.feed(self.runtime.engine.model.piece(token))
                    if stream.stopped:
                        generation.stop("stop")
                    text += piece
                    if piece:
                        yield Chunk(piece)
                rest = stream.finish()
                text += rest
                reply = self._reply(request, generation, clock, text)
                self._remember(request, generation, text, stream.stopped)
            except BaseException:
                generation.close()
                if keep_partial and text:
                    self._remember(request, generation, text, stopped=True)
                raise
        yield Chunk(rest, reply)

    def _remember(self, request: Request, generation: Generation, text: str, stopped: bool) -> None:
        """Add the question and its answer to the conversation.

        The sampled tokens are kept only where they are the whole answer and nothing but it: a stop string or an
        iterator closed early leaves tokens nobody was shown.
        """
        tokens = None if stopped else tuple(generation.tokens)
        self._messages += [request.message, Message("assistant", text, tokens=tokens)]

    def _reply(self, request: Request, generation: Generation, clock: _Clock, text: str) -> Reply:
        report = generation.report
        pictures = [picture for message in self._messages for picture in message.pictures]
        pictures += request.message.pictures
        count = len(generation.tokens)
        usage = Usage(
            prompt_tokens=total_length(request.spans),
            cached_tokens=report.cached_tokens if report else 0,
            completion_tokens=count,
            images=len(pictures),
            tiles=sum(len(picture.tiles) for picture in pictures),
            tiles_encoded=report.tiles_encoded if report else 0,
        )
        timings = Timings(
            preprocess=request.preprocess_seconds,
            encode=report.encode_seconds if report else 0.0,
            prefill=report.prefill_seconds if report else 0.0,
            time_to_first_token=clock.first_token,
            decode=clock.decode,
            decode_tokens_per_second=(count - 1) / clock.decode if count > 1 and clock.decode else 0.0,
        )
        return Reply(text, generation.finish_reason or "stop", usage, timings, request.notices)


class _Clock:
    """Times the first and the last token of an answer, in seconds."""

    def __init__(self, request: Request) -> None:
        self._started = request.started
        self._first: float | None = None
        self._last = 0.0

    def tick(self) -> None:
        self._last = time.perf_counter()
        if self._first is None:
            self._first = self._last

    @property
    def first_token(self) -> float:
        return 0.0 if self._first is None else self._first - self._started

    @property
    def decode(self) -> float:
        return 0.0 if self._first is None else self._last - self._first
