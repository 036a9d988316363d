"""Cascades: a small model answers first, and a bigger one is asked where the small one is not sure.

The idea is FrugalGPT's (arXiv 2305.05176): most questions are easy. How sure a model is says `Reply.confidence`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack, cast

from internvl_gguf.config import DEFAULT_THRESHOLD, AskOptions, EngineConfig, EngineOptions
from internvl_gguf.errors import InsufficientMemoryError, InternVLError, InvalidRequestError, SessionStateError
from internvl_gguf.images.load import picture_list
from internvl_gguf.session.cascade_models import checked_thresholds, display_name, distinct_models
from internvl_gguf.session.memory_room import fits_beside
from internvl_gguf.session.session import Session
from internvl_gguf.types import Frames, MessagePicture, Reply, Video
from internvl_gguf.utils import arguments
from internvl_gguf.utils.notices import Notice, log_notice
from internvl_gguf.utils.owned import Owned, disown_after_fork

if TYPE_CHECKING:
    from internvl_gguf.images.tile_limits import TileLimits
    from internvl_gguf.models.local_files import ModelFiles

_STOPPED: Final = "It was stopped."

FindFiles = Callable[[str], "ModelFiles"]
"""Finds the files of a model by its name, and fetches missing ones."""


@dataclass(frozen=True)
class CascadeStep:
    """One model of a cascade that was to answer a question.

    Attributes:
        model: its name.
        reply: its answer; None where it could not give one.
        confidence: how sure it is of the answer, from 0 to 1; None where that is not known, which counts as 0.
        seconds: from the question to the answer, once the model was loaded.
        error: why there is no answer, in one line; "" where there is one.
    """

    model: str
    reply: Reply | None
    confidence: float | None
    seconds: float
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as `--json` writes it, numbers rounded to four digits; of the reply its text."""
        return {
            "model": self.model,
            "text": None if self.reply is None else self.reply.text,
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "seconds": round(self.seconds, 4),
            "error": self.error,
        }


@dataclass(frozen=True)
class CascadeReply:
    """The answer of a cascade.

    Attributes:
        reply: the answer of the last model that gave one; its `notices` have those of the cascade, too.
        answered_by: the name of that model.
        why: one line for people: why it is this model's.
        steps: all models that were asked, in order.
    """

    reply: Reply
    answered_by: str
    why: str
    steps: tuple[CascadeStep, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as `internvl ask --escalate ... --json` writes it."""
        told = {"answered_by": self.answered_by, "why": self.why, "steps": [step.to_dict() for step in self.steps]}
        return {**self.reply.to_dict(), **told}


class Cascade(Owned):
    """Models that are asked one after the other until one is sure of its answer.

    Models are loaded when they are first asked, and stay loaded where the next one has room beside them; otherwise they
    are freed before it is loaded. Questions are independent of each other: the conversation of an open session comes
    before each of its questions, and stays as it is.

    Args:
        models: names or paths, as `Session.open` takes them, or open sessions, which stay the caller's; the smallest
            comes first. Two or more.
        threshold: an answer of a lower `Reply.confidence` is asked again of the next model; one number from 0 to 1, or
            one for each model but the last.
        mmproj: vision encoder of all models that are named; None takes that of each.
        find: finds the files of a model; None does as `Session.open`.
        on_notice: called with each notice; None logs them.
        **opening: other arguments of `Session.open`, for all models that are named.

    Raises:
        InvalidRequestError: fewer than two models, one twice, or thresholds out of range.
        ModelFileError: an unknown name, or no such file.
    """

    def __init__(
        self,
        models: Sequence[str | os.PathLike[str] | Session],
        *,
        threshold: float | Sequence[float] = DEFAULT_THRESHOLD,
        mmproj: str | os.PathLike[str] | None = None,
        find: FindFiles | None = None,
        on_notice: Notice | None = None,
        **opening: Any,
    ) -> None:
        arguments.functions(find=find, on_notice=on_notice)
        self._models = distinct_models(models)
        self._names = tuple(map(display_name, self._models))
        self._thresholds = checked_thresholds(threshold, len(self._models))
        self._on_notice = log_notice if on_notice is None else on_notice
        self._config, self._opening = _split(opening)
        self._find = find or (lambda model: _find(model, mmproj, self._config, self._on_notice))
        self._given = {place: model for place, model in enumerate(self._models) if isinstance(model, Session)}
        self._opened: dict[int, Session] = {}
        self._found: dict[tuple[Path, Path], str] = {}
        self._failed: dict[int, InternVLError] = {}
        self._running: Session | None = None
        self._is_aborted = self._is_closed = False
        self._lock = threading.Lock()
        disown_after_fork(self)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of its models, the first one first."""
        return self._names

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each model but the last."""
        return self._thresholds

    def ask(
        self,
        prompt: str,
        images: Any = (),
        *,
        on_session: Callable[[str, Session], None] | None = None,
        on_step: Callable[[CascadeStep], None] | None = None,
        **options: Unpack[AskOptions],
    ) -> CascadeReply:
        """Ask the first model, and the next ones while the answers are not sure enough.

        Pictures are cut once for models that cut them alike; those of one vision encoder share its embeddings.

        Args:
            prompt, images, **options: as in `Session.ask`. With `best_of` the vote says how sure an answer is.
            on_session: called with the name of each model and the session that will be asked, to follow its progress.
            on_step: called with each model that has answered or failed.

        Raises:
            As `Session.open` and `Session.ask`, of the first model only: where a later one fails, the answer before it
            stays, and a notice says why. After an error or Ctrl-C, `on_step` was called with the answers so far.
        """
        arguments.functions(on_session=on_session, on_step=on_step)
        question = _Question(arguments.text("prompt", prompt), tuple(picture_list(images)), options)
        if self._is_closed:
            raise SessionStateError("The cascade is closed.", "Make a new one.")
        if not self._lock.acquire(blocking=False):
            raise SessionStateError("The cascade is answering another question.", "Wait for that answer.")
        steps: list[CascadeStep] = []
        notices: list[str] = []
        self._is_aborted = False
        try:
            for place in range(len(self._models)):
                step = self._step(place, question, steps, notices, on_session)
                steps.append(step)
                if on_step:
                    on_step(step)
                if self._is_aborted or self._is_enough(place, step):
                    break
        finally:
            self._lock.release()
        return _cascade_reply(steps, self._thresholds, notices)

    def abort(self) -> None:
        """Stop the question under way, from another thread: the best answer so far is the answer."""
        self._is_aborted = True
        running = self._running
        if running is not None:
            running.abort()

    def close(self) -> None:
        """Free the models that it has loaded. Closing twice is harmless."""
        self._is_closed = True
        self._free()

    def disown(self) -> None:
        """See `Owned.disown`; its sessions do so themselves."""
        self._opened, self._is_closed = {}, True

    def __enter__(self) -> Cascade:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _step(
        self,
        place: int,
        question: _Question,
        before: Sequence[CascadeStep],
        notices: list[str],
        on_session: Callable[[str, Session], None] | None,
    ) -> CascadeStep:
        """Ask one model.

        Raises:
            InternVLError: of the first one; another's is in its step.
        """
        name = self._names[place]
        started = time.perf_counter()
        try:
            session = self._session(place)
            started = time.perf_counter()
            if before:
                self._keep_embeddings()
            pictures, notice = question.pictures_for(name, session)
            if notice:
                self._tell(notices, notice)
            with session.fork() as asked:
                if on_session:
                    on_session(name, asked)
                self._running = asked
                if self._is_aborted and before:
                    return CascadeStep(name, None, None, 0.0, _STOPPED)
                reply = asked.ask(question.prompt, pictures, **question.options)
                question.keep_cut(name, asked)
        except InternVLError as error:
            if not before:
                raise
            kept = next(step.model for step in reversed(before) if step.reply)
            self._tell(
                notices, f"{name} could not be asked, so the answer of {kept} stays: {error.message} {error.hint}"
            )
            return CascadeStep(name, None, None, time.perf_counter() - started, error.message)
        finally:
            self._running = None
        if reply.finish_reason == "aborted" and before:
            return CascadeStep(name, None, None, time.perf_counter() - started, _STOPPED)
        return CascadeStep(name, reply, reply.confidence, time.perf_counter() - started)

    def _is_enough(self, place: int, step: CascadeStep) -> bool:
        if place >= len(self._thresholds):
            return True
        return step.reply is not None and (step.confidence or 0.0) >= self._thresholds[place]

    def _session(self, place: int) -> Session:
        """Return the session of a model, loaded if it is not yet.

        Raises:
            InternVLError: it cannot be loaded; it is not tried again.
        """
        if place in self._given:
            return self._given[place]
        if place in self._failed:
            raise self._failed[place]
        if place not in self._opened:
            try:
                self._opened[place] = self._open(self._names[place])
            except InternVLError as error:
                self._failed[place] = error
                raise
        return self._opened[place]

    def _keep_embeddings(self) -> None:
        """Wait until what models have seen so far is where the next one with their vision encoder finds it."""
        for session in (*self._given.values(), *self._opened.values()):
            if session.runtime.is_alive:
                with suppress(InternVLError):  # a worker that died meanwhile: the pictures are encoded again
                    session.runtime.engine.keep_embeddings()

    def _open(self, name: str) -> Session:
        files = self._find(name)
        self._refuse_twice(name, files)
        loaded = [session.runtime for session in (*self._given.values(), *self._opened.values())]
        alive = [runtime.configuration for runtime in loaded if runtime.is_alive]
        if self._opened and not fits_beside(files, self._config, alive[0].budget, alive):
            self._free()
        try:
            return self._load(files)
        except InsufficientMemoryError:
            if not self._opened:
                raise
            self._free()
            return self._load(files)

    def _refuse_twice(self, name: str, files: ModelFiles) -> None:
        """Refuse a model that is asked already under another name: its answer would be the same.

        Raises:
            InvalidRequestError: it is.
        """
        for place, session in self._given.items():
            self._found.setdefault(_resolved(session.runtime.files), self._names[place])
        known = self._found.setdefault(_resolved(files), name)
        if known != name:
            raise InvalidRequestError(f"{name} is {known} once more: it has the same files.", "Name a bigger model.")

    def _load(self, files: ModelFiles) -> Session:
        return Session.open(files.text, files.mmproj, on_notice=self._on_notice, **self._opening)

    def _free(self) -> None:
        while self._opened:
            self._opened.popitem()[1].close()

    def _tell(self, notices: list[str], line: str) -> None:
        notices.append(line)
        self._on_notice(line)


def _resolved(files: ModelFiles) -> tuple[Path, Path]:
    return files.text.resolve(), files.mmproj.resolve()


class _Question:
    """A question on its way through a cascade: its pictures are cut by the first model that can.

    Args:
        prompt: its text.
        images: its pictures and clips as they were given.
        options: of `Session.ask`.
    """

    def __init__(self, prompt: str, images: Sequence[Any], options: AskOptions) -> None:
        self.prompt = prompt
        self.options = cast("AskOptions", {**options, "confidence": True})
        self._images = images
        self._cut: tuple[MessagePicture, ...] = ()
        self._tile_size: tuple[str, int] | None = None
        self._limits: tuple[TileLimits, int] | None = None

    def pictures_for(self, name: str, session: Session) -> tuple[Sequence[Any], str]:
        """Return the pictures for a model, cut already where it cuts alike, and a notice where its tiles differ."""
        if not self._images or self._tile_size is None:
            return self._images, ""
        (other, size), own = self._tile_size, session.runtime.vision.image_size
        if own != size:
            return self._images, (
                f"{name} sees tiles of {own} pixels and {other} of {size}: the pictures are cut and encoded again."
            )
        is_alike = self._limits == (session.limits, session.runtime.engine.n_ctx)
        return (self._cut if self._cut and is_alike else self._images), ""

    def keep_cut(self, name: str, session: Session) -> None:
        """Keep the pictures of a question that was answered; frames of clips are read again."""
        self._tile_size = name, session.runtime.vision.image_size
        self._limits = session.limits, session.runtime.engine.n_ctx
        is_still = not any(isinstance(image, Video | Frames) for image in self._images)
        self._cut = session.messages[-2].pictures if is_still else ()


def _cascade_reply(steps: Sequence[CascadeStep], thresholds: Sequence[float], notices: Sequence[str]) -> CascadeReply:
    """Return the answer of the last model that gave one."""
    answers = [(step, place) for place, step in enumerate(steps) if step.reply is not None]
    step, place = answers[-1]
    assert step.reply is not None
    reply = replace(step.reply, notices=(*step.reply.notices, *notices))
    unsure = [
        f"{each.model} was {_sure(each.confidence, thresholds[at])}, below {thresholds[at]:g}"
        for at, each in enumerate(steps[:place])
        if each.reply is not None
    ]
    failed = [
        f"{each.model} {'was stopped' if each.error == _STOPPED else 'could not be asked'}"
        for each in steps
        if each.reply is None
    ]
    if place < len(thresholds):
        threshold = thresholds[place]
        side = "at least" if (step.confidence or 0.0) >= threshold else "below"
        unsure.append(f"it is {_sure(step.confidence, threshold)}, {side} {threshold:g}")
    return CascadeReply(reply, step.model, "; ".join([*unsure, *failed]), tuple(steps))


def _sure(confidence: float | None, threshold: float) -> str:
    """Return a confidence in words, with as many digits as show on which side of the threshold it is."""
    if confidence is None:
        return "not known to be sure"
    is_enough = confidence >= threshold
    shown = (f"{confidence:.{digits}f}" for digits in range(2, 18))
    return f"{next((text for text in shown if (float(text) >= threshold) == is_enough), confidence)} sure"


def _split(opening: dict[str, Any]) -> tuple[EngineConfig, dict[str, Any]]:
    """Return how models are run, and the arguments of `Session.open`.

    Raises:
        InvalidRequestError: a value out of range. Unknown names are refused when a model is loaded.
    """
    own = {name: value for name, value in opening.items() if name in EngineOptions.__annotations__}
    return EngineConfig(**own), opening


def _find(model: str, mmproj: str | os.PathLike[str] | None, config: EngineConfig, on_notice: Notice) -> ModelFiles:
    from internvl_gguf.models.resolve import resolve_model
    from internvl_gguf.planning.auto_quant import machine_chooser

    files = resolve_model(model, mmproj, chooser=machine_chooser(config))
    if files.choice:
        on_notice(files.choice)
    return files
