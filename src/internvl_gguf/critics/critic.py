"""A critic as callers see it: opened like a session, it scores answers step by step and judges candidates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Unpack

from internvl_gguf.config import DEFAULT_WORKER_TIMEOUT, EngineOptions
from internvl_gguf.critics.step_prompts import step_prompts
from internvl_gguf.critics.verdict_tokens import VerdictTokens, verdict_tokens
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.errors import ContextOverflowError, InvalidRequestError, SessionStateError
from internvl_gguf.images.load import picture_list
from internvl_gguf.judging import Candidate, JudgedQuestion, Verdict
from internvl_gguf.judging.ballot import counted
from internvl_gguf.models.critic_description import CriticDescription
from internvl_gguf.models.critic_tables import critic_description, doubt_about
from internvl_gguf.session.session import Session
from internvl_gguf.types import MessagePicture, Span, TileSpan, Usage
from internvl_gguf.utils import arguments
from internvl_gguf.utils.notices import log_notice

if TYPE_CHECKING:
    from internvl_gguf.engine import RequestReport
    from internvl_gguf.gguf.filenames import DownloadProgress
    from internvl_gguf.session.model_runtime import LoadProgress, ModelRuntime
    from internvl_gguf.utils.notices import Notice


class Critic:
    """A model that says how good each step of an answer is. Open with `Critic.open`, close it or use it in `with`.

    It is a judge: `session.best_of(..., judge=critic)`. Any thread may use it.

    Attributes:
        session: its model, as a session that nothing is asked in.
        description: how it is asked.
        usage: of the last call, all its prompts added up: what is not in `cached_tokens` was read.
    """

    def __init__(self, session: Session, description: CriticDescription, tokens: VerdictTokens) -> None:
        self.session = session
        self._tokens = tokens
        self.description = description
        self.usage = Usage(0, 0, 0, 0, 0, 0)
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Critic {self.description.name} of {self.session!r}>"

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str],
        mmproj: str | os.PathLike[str] | None = None,
        description: str | CriticDescription | None = None,
        *,
        on_load: LoadProgress | None = None,
        on_download: DownloadProgress = lambda file, done: None,
        on_notice: Notice | None = None,
        worker: bool = False,
        worker_timeout: float = DEFAULT_WORKER_TIMEOUT,
        **engine: Unpack[EngineOptions],
    ) -> Critic:
        """Load a critic.

        Args:
            model: as in `Session.open`.
            mmproj: as in `Session.open`. With the file that the asked model has, pictures are not encoded again.
            description: how it is asked: a name in models.toml, or a description of one's own; None for the one that
                names this model there, else "visualprm".
            on_load, on_download, on_notice, worker, worker_timeout, **engine: as in `Session.open`.

        Raises:
            InvalidRequestError: an unknown description, or one whose tokens the model does not have.
            CatalogError: a models.toml that cannot be read.
            As `Session.open`.
        """
        name = arguments.path("model", model)
        if description is None or isinstance(description, str):
            is_open = description is None
            description = critic_description(description, name)
            if is_open and (doubt := doubt_about(name, description)):
                (on_notice or log_notice)(doubt)
        elif not isinstance(description, CriticDescription):
            raise arguments.wrong("description", description, "Give the name of one, or a CriticDescription.")
        session = Session.open(
            name,
            mmproj,
            max_tiles=description.max_tiles,
            on_load=on_load,
            on_download=on_download,
            on_notice=on_notice,
            worker=worker,
            worker_timeout=worker_timeout,
            **engine,
        )
        try:
            return cls(session, description, verdict_tokens(session.runtime, description))
        except BaseException:
            session.close()
            raise

    def steps(self, prompt: str, images: Any, text: str) -> tuple[float, ...]:
        """Return the score of each step of an answer, 0 to 1: how likely it is that all is right so far.

        Args:
            prompt: the question.
            images: its pictures, as in `Session.ask`; `()` for none.
            text: the answer.

        Raises:
            InvalidRequestError: an answer without any text.
            ContextOverflowError: the question and the answer are longer than the context; nothing was computed.
            PictureError: a picture that cannot be read.
            SessionStateError: the critic is closed.
        """
        self._revived()
        pictures = tuple(self.session.picture(image) for image in picture_list(images))
        question = JudgedQuestion(arguments.text("prompt", prompt), pictures)
        reading = _Reading(question)
        scores = self._read(reading, arguments.text("text", text))
        self.usage = reading.usage
        return scores

    def score(self, prompt: str, images: Any, text: str) -> float:
        """Return the score of an answer, 0 to 1: those of its steps, joined as the description says.

        Arguments and errors are those of `steps`.
        """
        return self.description.joined(self.steps(prompt, images, text))

    def __call__(self, question: JudgedQuestion, candidates: Sequence[Candidate]) -> Verdict:
        """Judge answers to one question; what they share of their prompts is read once.

        An answer without any text scores 0. One that was cut off is scored, but chosen only if all were.

        Raises:
            InvalidRequestError: no candidate has any text; pictures that are cut for tiles of another size.
            ContextOverflowError: an answer is longer than the context.
            SessionStateError: the critic is closed.
        """
        texts = [candidate.reply.text for candidate in candidates]
        if not any(text.strip() for text in texts):
            raise InvalidRequestError("No candidate has any text to judge.", "Ask with more max_tokens.")
        self._revived()
        reading = _Reading(self._shown(question))
        # In order of their texts: what begins alike follows one another, and the KV cache holds it.
        worth = {
            text: self.description.joined(self._read(reading, text)) for text in sorted(set(texts)) if text.strip()
        }
        scores = tuple(worth.get(text, 0.0) for text in texts)
        self.usage = reading.usage
        places = counted(candidates)
        best = max(places, key=scores.__getitem__)
        others = [scores[place] for place in places if texts[place] != texts[best]]
        reason = f"critic {scores[best]:.2f}" + (f" (next {max(others):.2f})" if others else "")
        return Verdict(best, scores, scores[best], reason)

    def close(self) -> None:
        """Free the model. Closing twice is harmless."""
        self._is_closed = True
        self.session.close()

    def __enter__(self) -> Critic:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shown(self, question: JudgedQuestion) -> JudgedQuestion:
        """Return the question with its pictures, and those of the conversation before it, for this model's encoder."""
        messages = tuple(replace(each, pictures=self._pictures(each.pictures)) for each in question.messages)
        return replace(question, pictures=self._pictures(question.pictures), messages=messages)

    def _pictures(self, pictures: Sequence[MessagePicture]) -> tuple[MessagePicture, ...]:
        try:
            return tuple(self.session.picture(picture) for picture in pictures)
        except InvalidRequestError as error:
            raise InvalidRequestError(
                error.message, "Take a critic whose encoder has tiles of the size that the asked model's has."
            ) from error

    def _revived(self) -> ModelRuntime:
        """Return the loaded model; it is loaded again if its process has died."""
        if self._is_closed:
            raise SessionStateError("The critic is closed.", "Open a new one with Critic.open().")
        self.session.revive()
        return self.session.runtime

    def _read(self, reading: _Reading, text: str) -> tuple[float, ...]:
        """Return the scores of an answer's steps; each request goes on from where the last one ended."""
        steps = self.description.split(text)
        if not steps:
            raise InvalidRequestError("The answer to judge is empty.", "Give its text.")
        runtime = self.session.runtime
        prompts = step_prompts(runtime, self.description, self._tokens, reading.question, steps)
        self._check_fits(total_length(prompts[-1]), runtime.engine.n_ctx)
        scores = []
        for number, prompt in enumerate(prompts, 1):
            known = reading.known.get(steps[:number])
            if known is None:
                handle = runtime.engine.submit_logits(prompt)
                known = reading.known[steps[:number]] = self._tokens.score(handle.result())
                reading.add(prompt, handle.report)
            scores.append(known)
        return tuple(scores)

    def _check_fits(self, needed: int, available: int) -> None:
        if needed > available:
            raise ContextOverflowError(
                f"Question and answer take {needed:,} positions of the critic, whose context has {available:,}.",
                f"Open the critic with n_ctx={needed + 256} or more, or judge shorter answers.",
                needed=needed,
                available=available,
            )


@dataclass
class _Reading:
    """What one call reads of answers to a question.

    Attributes:
        question: with pictures for this critic.
        known: the score behind each beginning of an answer, by its steps: answers may begin alike.
        usage: what its prompts took, added up.
    """

    question: JudgedQuestion
    known: dict[tuple[str, ...], float] = field(default_factory=dict)
    usage: Usage = field(default_factory=lambda: Usage(0, 0, 0, 0, 0, 0))

    def add(self, prompt: Sequence[Span], report: RequestReport) -> None:
        """Add up what the prompt of a step took."""
        messages = self.question.messages
        self.usage = Usage(
            prompt_tokens=self.usage.prompt_tokens + total_length(prompt),
            cached_tokens=self.usage.cached_tokens + report.cached_tokens,
            completion_tokens=0,
            images=len(self.question.pictures) + sum(len(message.pictures) for message in messages),
            tiles=self.usage.tiles + sum(isinstance(span, TileSpan) for span in prompt),
            tiles_encoded=self.usage.tiles_encoded + report.tiles_encoded,
        )
