"""Score answers about pictures, token by token, after the prompt of the model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.quality.divergence import DivergenceSum
from internvl_gguf.bench.quality.reference_logits import ReferenceReader, ReferenceWriter
from internvl_gguf.bench.quality.scoring import Passage, ScoredModel, score
from internvl_gguf.bench.quality.sets import PictureItem, PictureSet
from internvl_gguf.config import AskOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.session.prepare import PreparedQuestion, prepare_question
from internvl_gguf.session.prompt_template import END

if TYPE_CHECKING:
    from internvl_gguf.bench.results import Divergence
    from internvl_gguf.bench.speed import StageProgress
    from internvl_gguf.session import Session
    from internvl_gguf.utils.notices import Notice

REFERENCE_TOKENS: Final = 128
"""Most tokens of an answer that the reference generates."""

_FILE: Final = "pictures.reference"


class PictureQuality:
    """Scores a picture set on one configuration.

    Args:
        session: of the configuration, with an empty conversation.
        scored_model: the same configuration for `scoring`.
        picture_set: the questions.
        folder: folder of the reference's distributions.
        on_progress: called with the progress.

    Attributes:
        skipped: number of lines and questions left out; final after the measurement.
    """

    def __init__(
        self,
        session: Session,
        scored_model: ScoredModel,
        picture_set: PictureSet,
        folder: Path,
        on_progress: StageProgress,
    ) -> None:
        self._session = session
        self._scored_model = scored_model
        self._picture_set = picture_set
        self._items = picture_set.items
        self._path = folder / _FILE
        self._head = scored_model.head(f"{len(picture_set.items)} questions of {picture_set.name}", picture_set.digest)
        self._on_progress = on_progress
        self.skipped = len(picture_set.problems)

    def as_reference(self, on_notice: Notice) -> Divergence:
        """Answer the questions without an answer, score all answers, and write the distributions.

        Args:
            on_notice: called with one line for each question that is left out.

        Raises:
            InvalidRequestError: no question can be used.
            BenchmarkError: the file cannot be written.
            LibraryError: llama.cpp refused, or the model computes what is no number.
        """
        answers = self._all_answers()
        sums = DivergenceSum()
        self._scored_model.engine.forget()  # all configurations are to compute in the same batches
        with ReferenceWriter(self._path, self._head, sum(map(len, answers))) as references:
            for number, (item, tokens) in enumerate(zip(self._items, answers, strict=True)):
                try:
                    passage = self._passage(item, tokens)
                except (PictureError, InvalidRequestError) as error:
                    references.skip(number, error.message)
                    on_notice(f"{self._picture_set.place(item)}: {error.message}")
                    self.skipped += 1
                else:
                    score(self._scored_model.engine, number, passage, references, sums)
                self._on_progress("pictures", (number + 1) / len(self._items))
            if not sums.tokens:
                raise InvalidRequestError(
                    f"No question of {self._picture_set.name} can be scored.", "Check its pictures."
                )
        return sums.result()

    def against_reference(self) -> Divergence:
        """Score the same tokens as the reference, and compare.

        Raises:
            PictureError: a picture that the reference saw cannot be read.
            BenchmarkError: the file is missing, damaged, or of another set or vocabulary.
            LibraryError: llama.cpp refused, or the model computes what is no number.
        """
        sums = DivergenceSum()
        self._scored_model.engine.forget()
        with ReferenceReader(self._path, self._head) as references:
            for number, item in enumerate(self._items):
                known = references.items[number]
                if known.skipped:
                    self.skipped += 1
                else:
                    passage = self._passage(item, self._own_answer(item) or known.tokens)
                    score(self._scored_model.engine, number, passage, references, sums)
                self._on_progress("pictures", (number + 1) / len(self._items))
        return sums.result()

    def _all_answers(self) -> list[tuple[int, ...]]:
        """Return the tokens to score of each item; empty if it has no answer and cannot be asked."""
        found = []
        for number, item in enumerate(self._items):
            found.append(self._own_answer(item) or self._answer(item))
            self._on_progress("answers", (number + 1) / len(self._items))
        return found

    def _own_answer(self, item: PictureItem) -> tuple[int, ...]:
        """Return the tokens of an item's given answer, with the end token; empty if it has no answer."""
        if not item.answers:
            return ()
        runtime = self._session.runtime
        return (*runtime.engine.model.tokenize(item.answers[0]), runtime.control_tokens[END])

    def _answer(self, item: PictureItem) -> tuple[int, ...]:
        """Return the tokens of the model's answer, with the end token if reached; empty if it cannot be asked."""
        try:
            request = self._prepare(item, 0)
        except (PictureError, InvalidRequestError):
            return ()
        handle = self._scored_model.engine.submit(request.spans, request.sampling)
        tokens = handle.result()
        end = [self._session.runtime.control_tokens[END]] if handle.finish_reason == "stop" else []
        return (*tokens, *end)

    def _passage(self, item: PictureItem, tokens: tuple[int, ...]) -> Passage:
        """Return the prompt and the tokens of an item.

        Raises:
            PictureError, InvalidRequestError: the question cannot be asked, or does not fit the context.
        """
        passage = Passage(tuple(self._prepare(item, len(tokens)).spans), tokens)
        n_ctx = self._scored_model.engine.n_ctx
        if passage.length > n_ctx:
            raise InvalidRequestError(
                f"Prompt and answer take {passage.length:,} tokens; the context has {n_ctx:,}.",
                "Use a larger context, or a shorter answer.",
            )
        return passage

    def _prepare(self, item: PictureItem, n_tokens: int) -> PreparedQuestion:
        """Prepare a question with room for `n_tokens` tokens, or, if 0, for the model's own answer."""
        max_tokens = n_tokens or item.max_tokens or REFERENCE_TOKENS
        options: AskOptions = {"sampling": SamplingParams(max_tokens=max_tokens), "fit_pictures": False}
        if item.max_tiles is not None:
            options["max_tiles"] = item.max_tiles
        session = self._session
        return prepare_question(session.runtime, session.limits, session.messages, item.prompt, item.images, options)
