"""A conversation with pictures: ask, stream, batch, fork, save."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np

from internvl_gguf.config import DEFAULT_WORKER_TIMEOUT, AskOptions, EngineConfig, EngineOptions
from internvl_gguf.errors import InternVLError, InvalidRequestError, SessionStateError
from internvl_gguf.gguf.filenames import DownloadProgress
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.models.resolve import DEMO, resolve_model
from internvl_gguf.planning.auto_quant import machine_chooser
from internvl_gguf.session.answer import Answering
from internvl_gguf.session.batch import BatchModel, Outcome, answer_all, as_question
from internvl_gguf.session.model_runtime import LoadProgress, ModelRuntime
from internvl_gguf.session.open_runtime import open_runtime
from internvl_gguf.session.prepare import Request, checked_options, prepare_picture, prepare_request
from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM, check_turns, with_system, without_last_question
from internvl_gguf.session.restore import adapted, files_of, refuse_other_options, take_up, take_up_kv, to_save
from internvl_gguf.session.saved_file import read_saved, write_saved
from internvl_gguf.session.turn_lock import OneAtATime
from internvl_gguf.types import Chunk, Message, Question, Reply
from internvl_gguf.utils import arguments
from internvl_gguf.utils.notices import Notice, log_notice
from internvl_gguf.utils.owned import Owned, forsake_in_children, inherited

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from internvl_gguf.engine import TileProgress


class Session(Owned):
    """One conversation. Open with `Session.open`, close it or use it in a `with` statement.

    A session answers one question at a time; a second thread asking meanwhile is refused. Sessions in several threads
    are independent; forks of one session share the model, and with `n_parallel` above 1 are answered together.
    """

    def __init__(self, runtime: ModelRuntime, system: str, limits: TileLimits, on_notice: Notice = log_notice) -> None:
        self._runtime: ModelRuntime | None = runtime
        self._encoder_identity = runtime.encoder_identity
        self._limits = limits
        self._on_notice = on_notice
        self._messages = with_system([], system)
        self._turn = OneAtATime()
        self._on_tiles: TileProgress | None = None
        self._is_inherited = False
        forsake_in_children(self)

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
        worker: bool = False,
        worker_timeout: float = DEFAULT_WORKER_TIMEOUT,
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
            worker: run the model in a process of its own. Where that dies (killed, crashed, out of memory), the
                question under way ends in a `WorkerDiedError`, the conversation is what it was before it, and a new
                process answers the next question.
            worker_timeout: seconds without a sign of life after which such a process is ended; 0 waits for ever.
            **engine: fields of `config.EngineConfig`: n_ctx, n_gpu_layers, kv_type, flash_attn, n_threads, ...

        Raises:
            ModelFileError, ModelPairError: files missing, damaged, of another kind, or not of one model.
            HubError: files that cannot be fetched.
            InvalidRequestError: an option out of range or unknown.
            LibraryError: llama.cpp is not the build this package is made for, or refused; with a worker also where its
                process died while the model was loaded.
        """
        unknown = set(engine) - EngineOptions.__annotations__.keys()
        if unknown:
            raise InvalidRequestError(
                f"Session.open has no option {sorted(unknown)[0]!r}.",
                f"The options are {', '.join(EngineOptions.__annotations__)}.",
            )
        _check_timeout(worker_timeout)
        limits = TileLimits(max_tiles, min_tiles, thumbnail)
        arguments.functions(on_load=on_load, on_download=on_download, on_notice=on_notice)
        arguments.text_or_none("system", system)
        worker = arguments.switch("worker", worker)
        on_notice = on_notice or log_notice
        config = EngineConfig(**engine)
        files = resolve_model(model, mmproj, chooser=machine_chooser(config), on_progress=on_download)
        if files.choice:
            on_notice(files.choice)
        runtime = open_runtime(files, config, on_load, on_notice, worker=worker, worker_timeout=worker_timeout)
        return cls(runtime, OFFICIAL_SYSTEM if system is None else system, limits, on_notice)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation to a file: its words, its pictures and its KV, so that nothing is computed again.

        The file is replaced as a whole or not at all. Its size is that of the KV (192 KiB a position for the 14B) and
        of the tiles.

        Raises:
            SavedSessionError: it cannot be written.
            SessionStateError: the session is closed or answers a question.
        """
        file = Path(arguments.path("path", path))
        with self._exclusive():
            self.revive()
            write_saved(file, to_save(self.runtime, self._messages, self._limits))

    @classmethod
    def restore(
        cls,
        path: str | os.PathLike[str],
        model: str | os.PathLike[str] | None = None,
        mmproj: str | os.PathLike[str] | None = None,
        *,
        recompute: bool = False,
        on_load: LoadProgress | None = None,
        on_notice: Notice | None = None,
        worker: bool = False,
        worker_timeout: float = DEFAULT_WORKER_TIMEOUT,
        **engine: Unpack[EngineOptions],
    ) -> Session:
        """Go on with a saved conversation where it was; no position of it is computed again.

        Args:
            path: what `save` wrote. Take files you trust only: a checksum does not tell who made one.
            model, mmproj: as in `open`; left out, the files it was saved with.
            recompute: where the model, its quant, the library or the cache is another one, read the conversation again
                at the next question instead of refusing it.
            on_load, on_notice, worker, worker_timeout: as in `open`.
            **engine: options of the engine, as in `open`; left out, the context, KV type and flash attention it was
                saved with. The system message and how pictures are cut are the conversation's own.

        Raises:
            InvalidRequestError: an option that is the conversation's own, or none.
            SavedSessionError: no such file, a damaged one, or one of another model, quant, build or cache.
            As `open`.
        """
        file = Path(arguments.path("path", path))
        refuse_other_options(engine)
        recompute = arguments.switch("recompute", recompute)
        saved = read_saved(file)
        if model is None:
            model, its_mmproj = files_of(file, saved)
            mmproj = mmproj or its_mmproj
        kept: EngineOptions = {
            "n_ctx": saved.n_ctx,
            "kv_type": saved.identity.kv_type,
        }
        if "kv_type" not in engine:  # another one may need flash attention, so that "auto" decides anew
            kept["flash_attn"] = saved.identity.flash_attn
        max_tiles, min_tiles, thumbnail = saved.limits
        session = cls.open(
            model,
            mmproj,
            system="",
            max_tiles=max_tiles,
            min_tiles=min_tiles,
            thumbnail=thumbnail,
            on_load=on_load,
            on_notice=on_notice,
            worker=worker,
            worker_timeout=worker_timeout,
            **cast("EngineOptions", {**kept, **engine}),
        )
        try:
            session._messages = take_up(file, saved, session.runtime, recompute=recompute)
        except BaseException:
            session.close()
            raise
        return session

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, the system message first."""
        return tuple(self._messages)

    @property
    def limits(self) -> TileLimits:
        """How pictures are cut whose question does not say otherwise."""
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
        """Load the model again if it ran in a process of its own that has died; every question does that by itself.

        Raises:
            InternVLError: it cannot be loaded again.
            SessionStateError: the session is closed.
        """
        runtime = self.runtime
        runtime.revive()
        if runtime.encoder_identity != self._encoder_identity:  # on another device than before, say
            self._messages = adapted(runtime, self._messages)
            self._encoder_identity = runtime.encoder_identity

    def ask(self, prompt: str, images: Iterable[Any] = (), **options: Unpack[AskOptions]) -> Reply:
        """Ask a question, about pictures or not, and wait for the whole answer.

        Args:
            prompt: the question; it may say where the pictures go with one `<image>` for each.
            images: paths, bytes, data URIs, PIL pictures, numpy arrays, `Picture`s with their own tile limits, or
                pictures of earlier messages, which stay as they are cut; in a list, or one after another.
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

    def stream(
        self, prompt: str, images: Iterable[Any] = (), **options: Unpack[AskOptions]
    ) -> Generator[Chunk, None, None]:
        """Ask a question and receive the answer piece by piece; the last chunk carries the `Reply`.

        Arguments and errors are those of `ask`; the question is checked at once, the answer begins with the first
        `next`. Closing the iterator ends the answer, and what was received of it stays in the conversation; after an
        error the conversation is as it was before.
        """
        return self._answer(self._prepare(prompt, images, options), keep_partial=True)

    def batch(
        self,
        questions: Iterable[Question | str],
        *,
        on_result: Callable[[int, Outcome], None] | None = None,
        **options: Unpack[AskOptions],
    ) -> list[Outcome]:
        """Ask many questions independently of one another, `n_parallel` of `Session.open` at a time.

        Each is asked as if it came next in the conversation, which stays as it is. What questions begin with in common
        (this conversation, a picture) is computed once; the pictures of the next ones are read and cut meanwhile.

        Args:
            questions: each a `Question`, or only its text. They are taken as they are needed.
            on_result: called with the number of a question and its outcome as soon as it is over, in the order in
                which they end.
            **options: see `config.AskOptions`; for every question that does not say otherwise.

        Returns:
            For each question, in order, its `Reply`, or the error that it alone ended in.

        Raises:
            SessionStateError: the session is closed or answers another question.
            LibraryError: the model's process has died and cannot be started again.
            InvalidRequestError: questions that are no list, or options of all of them that cannot be used.
        """
        runtime = self.runtime
        arguments.items("questions", questions, "Give a list of Questions or of texts.")
        shared = checked_options(options)
        arguments.functions(on_result=on_result)

        def prepare(question: Question) -> Request:
            if not isinstance(question, Question):
                raise arguments.wrong("A question", question, "Give a Question or its text.")
            history = self._messages
            if question.system is not None:
                history = with_system(history, arguments.text("system", question.system))
            asked = cast("AskOptions", {**shared, **checked_options(question.options)})
            return prepare_request(runtime, self._limits, history, question.prompt, question.images, asked)

        def begin(request: Request) -> Answering:
            if self._turn.is_aborted:
                raise SessionStateError("The batch was stopped by abort().", "Ask again.")
            for line in request.notices:
                self._on_notice(line)
            return self._begin(request)

        asked = map(as_question, questions)
        outcomes: dict[int, Outcome] = {}
        model = BatchModel(runtime.engine, prepare, begin, self.revive)
        with self._exclusive(), closing(answer_all(model, asked)) as answers:
            self.revive()
            for index, outcome in answers:
                outcomes[index] = outcome
                if on_result:
                    on_result(index, outcome)
        return [outcomes[index] for index in sorted(outcomes)]

    def next_token_logprobs(
        self, prompt: str, images: Iterable[Any] = (), **options: Unpack[AskOptions]
    ) -> NDArray[np.float32]:
        """Natural-log probabilities of the first token of the answer, float32 [n_vocab].

        Arguments and errors are those of `ask`. The conversation stays as it is.
        """
        request = self._prepare(prompt, images, options)
        with self._exclusive():
            handle = self.runtime.engine.submit_logits(request.spans, self._on_tiles)
            self._turn.watch(handle)
            logits = handle.result().astype(np.float64)
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
            self.revive()
            picture = prepare_picture(self.runtime, self._limits, image, options)
            return np.stack(self.runtime.engine.embed(picture.tiles, self._on_tiles, lambda: self._turn.is_aborted))

    def clear(self) -> None:
        """Forget the conversation; the system message stays."""
        with self._exclusive():
            self._messages = [message for message in self._messages if message.role == "system"]

    def undo(self) -> Message | None:
        """Forget the last question and its answer.

        Nothing of what stays is computed again. The question's pictures may be given as `images` once more, as they
        are cut.

        Returns:
            The question; None where none was asked.
        """
        with self._exclusive():
            self._messages, question = without_last_question(self._messages)
            return question

    def set_system(self, text: str | None) -> None:
        """Put another system message before the conversation.

        Everything after it is read again at the next question; pictures are not encoded again.

        Args:
            text: None for the official one, "" for no system message.
        """
        system = arguments.text_or_none("text", text)
        with self._exclusive():
            self._messages = with_system(self._messages, OFFICIAL_SYSTEM if system is None else system)

    def continue_with(self, messages: Iterable[Message], saved: str | os.PathLike[str] | None = None) -> None:
        """Go on with a conversation held elsewhere: by another quant, another model, another process.

        It takes the place of this session's own, its system message included. Nothing is computed before the next
        question; that reads what is not in the KV cache.

        Args:
            messages: a system message or none, then questions and answers in turn.
            saved: what `save` wrote of the conversation. Its KV is taken up, so that nothing is read again, if it is of
                this model, quant, build and cache; else, or where it cannot be read, it is left alone.

        Raises:
            InvalidRequestError: messages out of turn, or pictures cut for an encoder with tiles of another size.
        """
        file = None if saved is None else Path(arguments.path("saved", saved))
        with self._exclusive():
            self.revive()
            taken = adapted(self.runtime, check_turns(messages))
            if file is not None:
                take_up_kv(file, self.runtime)
            self._messages = taken

    def fork(self) -> Session:
        """A second conversation that begins with everything said so far; both share the loaded model."""
        with self._exclusive():
            fork = Session(self.runtime.share(), "", self._limits, self._on_notice)
            fork._messages = list(self._messages)
            fork._on_tiles = self._on_tiles
            return fork

    def abort(self) -> None:
        """Stop what this session is doing, from another thread: an answer ends with finish_reason "aborted"."""
        _ = self.runtime
        self._turn.abort()

    def on_tiles(self, progress: TileProgress | None) -> None:
        """Be told (tiles encoded, tiles to encode) while pictures of this session's next questions are encoded.

        The call comes from whichever thread works for the model at that moment.
        """
        arguments.functions(progress=progress)
        self._on_tiles = progress

    def close(self) -> None:
        """End the conversation; the last session on a model frees it. Closing twice is harmless."""
        runtime, self._runtime = self._runtime, None
        if runtime:
            runtime.release()

    def forsake(self) -> None:
        """As `Owned.forsake`: a forked child cannot use the session, and closing it there does nothing."""
        self._runtime, self._is_inherited = None, True

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exclusive(self) -> AbstractContextManager[None]:
        _ = self.runtime
        return self._turn()

    def _prepare(self, prompt: str, images: Iterable[Any], options: AskOptions) -> Request:
        self.revive()
        request = prepare_request(self.runtime, self._limits, self._messages, prompt, images, options)
        for line in request.notices:
            self._on_notice(line)
        return request

    def _begin(self, request: Request) -> Answering:
        """Submit a question; `abort` knows of it from here on."""
        answering = Answering(self.runtime, request, self._messages, self._on_tiles)
        self._turn.watch(answering.handle)
        return answering

    def _answer(self, request: Request, *, keep_partial: bool) -> Generator[Chunk, None, None]:
        with self._exclusive():
            if len(self._messages) != request.history_length:
                raise SessionStateError(
                    "The conversation went on after this stream was made.", "Read a stream before asking again."
                )
            answering = self._begin(request)
            try:
                for piece in answering.pieces():
                    yield Chunk(piece)
                rest = answering.finish()
                reply = answering.reply()
                self._messages += answering.messages(is_whole=True)
            except BaseException as error:
                answering.handle.cancel()
                if keep_partial and answering.text and not isinstance(error, InternVLError):
                    self._messages += answering.messages(is_whole=False)
                raise
        yield Chunk(rest, reply)


def _check_timeout(seconds: float) -> None:
    if not 0 <= arguments.number("worker_timeout", seconds) < float("inf"):
        raise InvalidRequestError(f"worker_timeout is {seconds!r}.", "Give seconds, or 0 to wait for ever.")
