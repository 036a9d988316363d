"""A conversation with pictures: open, ask, stream, batch, fork; `held_conversation` has what asks nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np

from internvl_gguf.boxes.prompts import detect_prompt, given_labels, locate_prompt, missed_labels
from internvl_gguf.config import DEFAULT_CANDIDATES, DEFAULT_WORKER_TIMEOUT, AskOptions, EngineOptions, PictureOptions
from internvl_gguf.errors import InternVLError, SessionStateError
from internvl_gguf.gguf.filenames import DownloadProgress
from internvl_gguf.images.load import picture_list
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.models.resolve import DEMO
from internvl_gguf.session import prepare, restore
from internvl_gguf.session.answer import AnswerStream, as_chunk
from internvl_gguf.session.batch import BatchModel, Outcome, answer_all
from internvl_gguf.session.call_reader import AnswerPiece
from internvl_gguf.session.candidate_answers import BestOf, CandidateAnswers
from internvl_gguf.session.feed import AnyQuestion, Feed, feed_of
from internvl_gguf.session.grounding import check_can_box
from internvl_gguf.session.held_conversation import HeldConversation
from internvl_gguf.session.model_runtime import LoadProgress
from internvl_gguf.session.open_runtime import find_and_open
from internvl_gguf.session.prepare import PreparedQuestion
from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM
from internvl_gguf.session.question_options import checked_options
from internvl_gguf.session.saved_file import read_saved
from internvl_gguf.session.slow_answer import slow_answer_notice
from internvl_gguf.session.tool_loop import DEFAULT_MAX_STEPS, DEFAULT_TOOL_TIMEOUT, OnCall, run_tools
from internvl_gguf.tiling import TileRange
from internvl_gguf.types import Chunk, Question, Reply, ToolResult
from internvl_gguf.utils import arguments
from internvl_gguf.utils.notices import Notice, log_notice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from internvl_gguf.judging import Candidate


class Session(HeldConversation):
    """One conversation. Open with `Session.open`, close it or use it in a `with` statement.

    A session answers one question at a time; a second thread asking meanwhile is refused. Sessions in several threads
    are independent; forks of one session share the model, and with `n_parallel` above 1 are answered together.
    """

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str] = DEMO,
        mmproj: str | os.PathLike[str] | None = None,
        *,
        system: str | None = None,
        max_tiles: int | None = None,
        min_tiles: int | None = None,
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
            model: `demo`, a catalogue name such as "InternVL3-14B-Instruct:Q4_K_XL", "owner/repo:QUANT", or the path
                of a text GGUF or of a folder. Missing files are fetched.
            mmproj: the vision encoder's GGUF, or a precision ("BF16") that the repository or folder has; by default the
                one that suits this machine.
            system: text of the system message; None for the official one, which is in Chinese, "" for no system
                message. A question in another language may name the language of the answer.
            max_tiles: most tiles of a picture, the thumbnail not counted; None takes what the mmproj says, else 12.
            min_tiles: fewest tiles of a picture; None takes what the mmproj says, else 1.
            thumbnail: whether the whole picture follows several tiles in one more.
            on_load: called with the fraction of the text model that is loaded.
            on_download: called with each file and the number of its bytes that are here.
            on_notice: called with one line whenever something was changed so that it works, such as pictures cut into
                fewer tiles; by default the line is a warning in the log "internvl_gguf", which Python shows on stderr.
            worker: run the model in a process of its own. If that dies (killed, crashed, out of memory), the running
                question ends in a `WorkerDiedError`, the conversation is as it was before that question, and a new
                process answers the next one.
            worker_timeout: seconds without a sign of life after which such a process is ended; 0 waits for ever.
            **engine: fields of `config.EngineConfig`: n_ctx, n_gpu_layers, kv_type, flash_attn, n_threads, ...

        Raises:
            ModelFileError, ModelPairError: files missing, damaged, of another kind, or not of one model.
            HubError: files that cannot be fetched.
            InvalidRequestError: an option out of range or unknown.
            LibraryError: llama.cpp is not the build this package is made for, or refused; with a worker also if its
                process died while the model was loaded.
        """
        pictures = PictureOptions(max_tiles=max_tiles, min_tiles=min_tiles, thumbnail=thumbnail)
        arguments.text_or_none("system", system)
        on_notice = log_notice if on_notice is None else on_notice
        runtime = find_and_open(
            model, mmproj, engine, on_load, on_download, on_notice, worker, worker_timeout, pictures
        )
        limits = TileLimits.of(pictures, TileRange.of(runtime.vision))
        session = cls(runtime, OFFICIAL_SYSTEM if system is None else system, limits, on_notice)
        session._is_parallel_open = "n_parallel" not in engine
        return session

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
        """Restore a saved conversation; no position of it is computed again.

        Args:
            path: a file that `save` wrote. Restore only files you trust: a checksum does not show who made one.
            model, mmproj: as in `open`; by default the files it was saved with.
            recompute: if the model, its quant, the library or the cache type differs, read the conversation again at
                the next question instead of refusing it.
            on_load, on_notice, worker, worker_timeout: as in `open`.
            **engine: engine options, as in `open`; by default the context, KV type and flash attention it was saved
                with. The system message and the tile limits are always those of the conversation.

        Raises:
            InvalidRequestError: an option that the saved conversation determines, or an unknown one.
            SavedSessionError: the file is missing, damaged, or of another model, quant, build or cache type.
            As `open`.
        """
        file = Path(arguments.path("path", path))
        restore.refuse_session_options(engine)
        recompute = arguments.switch("recompute", recompute)
        saved = read_saved(file)
        if model is None:
            model, its_mmproj = restore.saved_model_files(file, saved)
            mmproj = mmproj or its_mmproj
        on_notice = log_notice if on_notice is None else on_notice
        options = restore.engine_options(saved, engine)
        limits = TileLimits(*saved.limits)
        pictures = PictureOptions(max_tiles=limits.max_tiles)
        runtime = find_and_open(
            model, mmproj, options, on_load, lambda file, done: None, on_notice, worker, worker_timeout, pictures
        )
        session = cls(runtime, "", limits, on_notice)
        session._is_parallel_open = "n_parallel" not in engine
        try:
            session._messages = restore.restore_conversation(file, saved, session.runtime, recompute=recompute)
            if notice := restore.encoder_notice(saved, session.runtime):
                on_notice(notice)
        except BaseException:
            session.close()
            raise
        return session

    def ask(self, prompt: str | Sequence[ToolResult], images: Any = (), **options: Unpack[AskOptions]) -> Reply:
        """Ask a question, about pictures or not, and wait for the whole answer.

        Args:
            prompt: the question; one `<image>` for each picture may mark its place. Or what the tools returned that the
                last answer called, a `ToolResult` for each of its `tool_calls`.
            images: a picture, or a list or iterator of them: paths, bytes, data URIs, PIL pictures, numpy arrays,
                `Picture`s with their own tile limits, or pictures of earlier messages, which stay as they are cut.
            **options: see `config.AskOptions`; the fields of `SamplingParams` may be given by their names. `schema`,
                `choices`, `grammar`, `regex` or `boxes` bind the answer to a form (`Reply.parsed`, `Reply.boxes`);
                `tools` are what it may call (`Reply.tool_calls`).

        Raises:
            InvalidRequestError: options or a prompt that cannot be used.
            ContextOverflowError: they do not fit the context, even with pictures cut smaller; nothing was computed.
            PictureError: a picture that cannot be read.
            SessionStateError: the session is closed or answers another question.

        After an error, Ctrl-C included, the conversation is as it was before.
        """
        question = self._prepare(prompt, images, options)
        replies = [chunk.reply for chunk in self._answer(question, keep_partial=False) if chunk.reply]
        return replies[-1]

    def run(
        self,
        prompt: str,
        images: Any = (),
        *,
        max_steps: int = DEFAULT_MAX_STEPS,
        tool_timeout: float = DEFAULT_TOOL_TIMEOUT,
        on_call: OnCall | None = None,
        **options: Unpack[AskOptions],
    ) -> Reply:
        """Ask a question and call the `tools` that the answer calls, until an answer calls none.

        Several calls of one answer are made one after the other, in its order. What a tool raises goes back to the
        model in words; so does that it took too long.

        Args:
            prompt, images: as in `ask`.
            max_steps: most answers; the last one may still call tools, which are not called any more.
            tool_timeout: seconds to wait for a tool, which goes on in a thread of its own; 0 waits for ever.
            on_call: called with each call and its result.
            **options: as in `ask`; `tools` have to be functions. What they return goes to the model as text, or as
                JSON; pictures (PIL, uint8 [height, width, 3], `Picture`), one or a list, as pictures; a `ToolResult` as
                it says.

        Returns:
            The last answer; `messages` has all of them.

        Raises:
            As `ask`; after an error the conversation is as it was before the question.
        """
        before = list(self._messages)
        try:
            return run_tools(
                self.ask,
                prompt,
                images,
                max_steps=max_steps,
                tool_timeout=tool_timeout,
                on_call=on_call,
                **options,
            )
        except BaseException:
            self._messages = before
            raise

    def stream(
        self, prompt: str | Sequence[ToolResult], images: Any = (), **options: Unpack[AskOptions]
    ) -> Generator[Chunk, None, None]:
        """Ask a question and receive the answer piece by piece; the last chunk carries the `Reply`.

        Arguments and errors are those of `ask`; the question is checked at once, the answer begins with the first
        `next`. Closing the iterator ends the answer, and what was received of it stays in the conversation; after an
        error the conversation is as it was before.
        """
        return self._answer(self._prepare(prompt, images, options), keep_partial=True)

    def best_of(
        self,
        prompt: str | Sequence[ToolResult],
        images: Any = (),
        *,
        n: int = DEFAULT_CANDIDATES,
        on_candidate: Callable[[Candidate], None] | None = None,
        **options: Unpack[AskOptions],
    ) -> BestOf:
        """Ask a question, write several answers to it and keep the best one in the conversation.

        Its pictures are encoded and its prompt is read once; `n_candidates` answers are written at once.
        `ask(best_of=8)` does the same and returns the chosen reply alone.

        Args:
            prompt, images: as in `ask`.
            n: number of answers.
            on_candidate: called with each answer that has ended, in the order in which they end.
            **options: as in `ask`. The `judge` "vote" takes the final answer that most agree on, and ends early where
                that cannot change any more; "certainty" the answer that the model is surest of; others are a `Critic`,
                and a function of a `JudgedQuestion` and the `Candidate`s that returns a score for each, or a `Verdict`.
                Where no temperature is given, the first answer is greedy, and the others have 0.7. Their seeds follow
                that of `seed`.

        Raises:
            InvalidRequestError: answers that would all be equal, or a judge that raised an error or gave no scores.
            As `ask`; after an error the conversation is as it was. `abort` keeps the best of what is there.
        """
        arguments.functions(on_candidate=on_candidate)
        given = cast("AskOptions", {**options, "best_of": n})
        question = self._prepare(prompt, images, given)
        with self._exclusive():
            answers = self._begin_several(question, on_candidate=on_candidate)
            for _ in self._finish(answers, question):
                pass
            return answers.best_of()

    def detect(self, images: Any = (), labels: Iterable[str] | None = None, **options: Unpack[AskOptions]) -> Reply:
        """Ask for all objects of a picture, by the prompt with which InternVL was taught to detect them.

        It is a question as any other and becomes part of the conversation; `Reply.boxes` has what was found.

        Args:
            images: as in `ask`; without one, the pictures of the conversation are meant.
            labels: what to look for; None for all objects. A notice names those of which no box is.
            **options: as in `ask`.

        Raises:
            InvalidRequestError: there is no picture, or the model has no tokens for boxes.
            As `ask`.
        """
        wanted = None if labels is None else given_labels(labels)
        reply = self._find(detect_prompt(wanted), images, options)
        missed = missed_labels(wanted or (), reply.boxes)
        for line in missed:
            self._on_notice(line)
        return replace(reply, notices=(*reply.notices, *missed))

    def locate(self, images: Any, phrase: str, **options: Unpack[AskOptions]) -> Reply:
        """Ask where something is in a picture, by the prompt with which InternVL was taught to find it.

        Args:
            images: as in `detect`; `()` for the pictures of the conversation.
            phrase: what to find: "the lady with the blue shirt".
            **options: as in `ask`.

        Raises:
            As `detect`.
        """
        return self._find(locate_prompt(phrase), images, options)

    def _find(self, prompt: str, images: Any, options: AskOptions) -> Reply:
        given = picture_list(images)
        check_can_box(self.runtime, self._messages, given)
        return self.ask(prompt, given, **options)

    def batch(
        self,
        questions: Iterable[Question | str] | Feed[Question | str],
        *,
        on_result: Callable[[int, Outcome], None] | None = None,
        **options: Unpack[AskOptions],
    ) -> list[Outcome]:
        """Ask many questions independently of one another, `n_parallel` of `Session.open` at a time.

        Each is asked as if it came next in the conversation, which stays as it is. A prefix that questions share (this
        conversation, a picture) is computed once; the pictures of the next ones are read and cut meanwhile.

        Args:
            questions: each a `Question`, or only its text; read as they are needed. A `Feed` has some now
                and others later.
            on_result: called with the number of a question and its outcome as soon as it has ended.
            **options: see `config.AskOptions`; defaults for the options of each question.

        Returns:
            For each question, in order, its `Reply`, or the error that it alone ended in.

        Raises:
            SessionStateError: the session is closed or answers another question.
            LibraryError: the model's process has died and cannot be started again.
            InvalidRequestError: questions that are no list, or options of all of them that cannot be used.
        """
        feed, shared = self._checked_batch(questions, options)
        arguments.functions(on_result=on_result)
        outcomes: dict[int, Outcome] = {}
        with closing(self._outcomes(feed, shared)) as answers:
            for index, _, outcome in answers:
                outcomes[index] = outcome
                if on_result:
                    on_result(index, outcome)
        return [outcomes[index] for index in sorted(outcomes)]

    def each(
        self, questions: Iterable[AnyQuestion] | Feed[AnyQuestion], **options: Unpack[AskOptions]
    ) -> Generator[tuple[AnyQuestion, Outcome], None, None]:
        """Ask questions as `batch` does, and receive each with its outcome as soon as it has ended.

        Nothing is kept: questions are read as they are needed, so that millions take no more memory than a few. Closing
        the iterator ends the answers under way. Until it has ended or is closed, the session answers nothing else.

        Args:
            questions: as in `batch`.
            **options: see `config.AskOptions`; defaults for the options of each question.

        Yields:
            A question as it was given, and its `Reply` or the error that it alone ended in; in the order in which they
            end, which with `n_parallel` above 1 is not that of the questions.

        Raises:
            As `batch`; arguments are checked at once.
        """
        feed, shared = self._checked_batch(questions, options)

        def pairs() -> Generator[tuple[AnyQuestion, Outcome], None, None]:
            with closing(self._outcomes(feed, shared)) as outcomes:
                for _, question, outcome in outcomes:
                    yield question, outcome

        return pairs()

    def _checked_batch(
        self, questions: Iterable[AnyQuestion] | Feed[AnyQuestion], options: AskOptions
    ) -> tuple[Feed[AnyQuestion], AskOptions]:
        _ = self.runtime
        if not isinstance(questions, Feed):
            arguments.items("questions", questions, "Give a list of Questions or of texts.")
        return feed_of(questions), checked_options(options)

    def _outcomes(
        self, questions: Feed[AnyQuestion], shared: AskOptions
    ) -> Generator[tuple[int, AnyQuestion, Outcome], None, None]:
        """Answer questions; yield the number of each, the question as it was given and its outcome, as they end."""
        runtime = self.runtime

        def ready(question: Question) -> PreparedQuestion:
            return prepare.prepare_batch_question(runtime, self._limits, self._messages, question, shared)

        def begin(question: PreparedQuestion) -> AnswerStream | CandidateAnswers:
            if self._lock.is_aborted:
                raise SessionStateError("The batch was stopped by abort().", "Ask again.")
            for line in question.notices:
                self._on_notice(line)
            return self._begin(question, evicts=False)

        model = BatchModel(runtime.engine, ready, begin, self.revive, self._note_one_at_a_time)
        with self._exclusive(), closing(answer_all(model, questions)) as answers:
            self.revive()
            yield from answers

    def next_token_logprobs(self, prompt: str, images: Any = (), **options: Unpack[AskOptions]) -> NDArray[np.float32]:
        """Return the natural-log probabilities of the first token of the answer, float32 [n_vocab].

        Arguments and errors are those of `ask`. The conversation stays as it is.
        """
        question = self._prepare(prompt, images, options)
        with self._exclusive():
            handle = self.runtime.engine.submit_logits(question.spans, self._on_tiles)
            self._lock.track(handle)
            logits = handle.result().astype(np.float64)
        logits -= logits.max()
        return np.asarray(logits - np.log(np.exp(logits).sum()), dtype=np.float32)

    def frame_room(self, prompt: str, images: Any = (), **options: Unpack[AskOptions]) -> int:
        """Return how many frames of one tile the context has room for, beside the conversation and a question.

        It is what `Video(frames="auto")` takes at most.

        Args:
            prompt, images, **options: as in `ask`; clips among the pictures do not count.

        Raises:
            InvalidRequestError: options or a prompt that cannot be used.
        """
        return prepare.frame_room(self.runtime, self._messages, prompt, images, options)

    def fork(self) -> Session:
        """Return a second session that begins with the conversation so far; both share the loaded model."""
        with self._exclusive():
            fork = Session(self.runtime.share(), "", self._limits, self._on_notice)
            fork._messages = list(self._messages)
            fork._tools, fork._sampling = self._tools, self._sampling
            fork._on_tiles = self._on_tiles
            fork._is_parallel_open = self._is_parallel_open
            return fork

    def _prepare(self, prompt: str | Sequence[ToolResult], images: Any, options: AskOptions) -> PreparedQuestion:
        self.revive()
        question = prepare.prepare_question(self.runtime, self._limits, self._messages, prompt, images, options)
        for line in question.notices:
            self._on_notice(line)
        return question

    def _note_one_at_a_time(self) -> None:
        """Say that questions are answered one after the other, once, where nobody chose that."""
        if self._is_parallel_open:
            self._is_parallel_open = False
            self._on_notice(
                "The questions are answered one at a time. Session.open(..., n_parallel=4) answers four at once, each "
                "with a KV cache of its own; n_parallel=1 keeps it so without this line."
            )

    def _begin(self, question: PreparedQuestion, *, evicts: bool = True) -> AnswerStream | CandidateAnswers:
        """Submit a question; `abort` ends it from here on."""
        if question.sampling.best_of > 1:
            return self._begin_several(question, evicts=evicts)
        answer = AnswerStream(
            self.runtime,
            question,
            self._messages,
            self._on_tiles,
            evicts=evicts,
            tells_certainty=question.tells_confidence,
        )
        self._lock.track(answer.handle)
        return answer

    def _begin_several(
        self,
        question: PreparedQuestion,
        *,
        evicts: bool = True,
        on_candidate: Callable[[Candidate], None] | None = None,
    ) -> CandidateAnswers:
        answers = CandidateAnswers(
            self.runtime,
            question,
            self._messages,
            self._on_tiles,
            evicts=evicts,
            on_candidate=on_candidate,
            on_progress=self._on_candidates,
        )
        self._lock.track(answers.handle)
        return answers

    def _answer(self, question: PreparedQuestion, *, keep_partial: bool) -> Generator[Chunk, None, None]:
        with self._exclusive():
            if len(self._messages) != question.history_length:
                raise SessionStateError(
                    "The conversation went on after this stream was made.", "Read a stream before asking again."
                )
            last = yield from self._finish(self._begin(question), question, keep_partial=keep_partial)
        yield from last

    def _finish(
        self, answer: AnswerStream | CandidateAnswers, question: PreparedQuestion, *, keep_partial: bool = False
    ) -> Generator[Chunk, None, list[Chunk]]:
        """Yield an answer piece by piece and keep it in the conversation; return its last chunks, with the reply."""
        try:
            for piece in answer.pieces():
                yield as_chunk(piece, answer.partial())
            *rest, last = answer.finish() or [AnswerPiece()]
            reply = answer.reply()
            self._messages += answer.messages(is_whole=True)
            self._tools, self._sampling = question.tools, question.sampling
            for line in reply.notices[len(question.notices) :]:
                self._on_notice(line)
            if notice := slow_answer_notice(self.runtime.configuration, reply.timings):
                self._on_notice(notice)
        except BaseException as error:
            answer.handle.cancel()
            if keep_partial and answer.text and not isinstance(error, InternVLError):
                self._messages += answer.messages(is_whole=False)
            raise
        chunks = [as_chunk(piece, answer.partial()) for piece in (*rest, last)]
        return [*chunks[:-1], replace(chunks[-1], reply=reply)]
