"""`internvl ask --batch`: answer the questions of a file, one JSON object a line, several at a time."""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import typer

from internvl_gguf.cli.batch_lines import AnswerFile, InOrder, Line, question_of, read_lines, record_of
from internvl_gguf.cli.batch_report import LOOKED_AT, BatchProgress, BatchSpeed, Tally, estimate
from internvl_gguf.cli.output import answer_stream, progress_bars, say
from internvl_gguf.cli.run import FAILED
from internvl_gguf.config import AskOptions, EngineConfig, SamplingParams
from internvl_gguf.errors import InternVLError, InvalidRequestError
from internvl_gguf.types import Question
from internvl_gguf.utils.text_data import as_utf8, has_wide_mark

if TYPE_CHECKING:
    from internvl_gguf.session import Session
    from internvl_gguf.session.batch import Outcome

_MARK_BYTES = 4


@dataclass(frozen=True)
class BatchJob:
    """The request given to `internvl ask --batch`.

    Attributes:
        source: the file of questions; None for stdin.
        output: the file of answers; None for stdout.
        model: the model's name.
        config: how it is run.
        opening: arguments of `Session.open`.
        asked: options of every question that does not say otherwise, `sampling` among them.
    """

    source: Path | None
    output: Path | None
    model: str
    config: EngineConfig
    opening: dict[str, Any]
    asked: AskOptions


def run_batch(job: BatchJob) -> None:
    """Answer the questions that are not answered yet.

    Raises:
        typer.Exit: with code 1 where a line failed.
        InternVLError: the files or the model cannot be used.
    """
    with _lines(job.source) as lines:
        answers = AnswerFile(job.output) if job.output else None
        done: list[Line] = []
        to_do: list[int] = []
        for line in lines():
            if answers and answers.answers(line):
                done.append(line)
            else:
                to_do.append(line.number)
        if answers:
            answers.keep(done)
        if done:
            say(f"{len(done)} of {len(done) + len(to_do)} lines were answered before.")
        wanted = set(to_do)

        def pending() -> Iterator[Line]:
            return (line for line in lines() if line.number in wanted)

        tally = Tally()
        try:
            if to_do:
                _answer(job, pending, len(to_do), answers, tally)
        except KeyboardInterrupt:
            if answers:
                answered = sum(answers.answers(line) for line in lines())
                count = len(done) + len(to_do)
                say(f"{answered} of {count} lines are answered; the same command goes on with the rest.")
            raise
    for told in tally.summary():
        say(told)
    if tally.failed:
        raise typer.Exit(FAILED)


def _answer(
    job: BatchJob, lines: Callable[[], Iterator[Line]], count: int, answers: AnswerFile | None, tally: Tally
) -> None:
    """Answer lines with a model.

    Args:
        job: what was asked for.
        lines: gives the lines from the beginning, as often as it is called.
        count: number of lines.
        answers: gets the answers; None for stdout.
        tally: counts them.
    """
    from internvl_gguf.cli.downloads import obtain
    from internvl_gguf.planning.auto_quant import machine_chooser
    from internvl_gguf.session import Session

    with contextlib.ExitStack() as stack:
        if answers:
            stack.callback(answers.sort)
        file = stack.enter_context(answers.open()) if answers else answer_stream()
        opening = dict(job.opening)
        files = obtain(job.model, opening.pop("mmproj"), machine_chooser(job.config))
        bars = progress_bars("bar", "count", "time left", transient=False, beside_answers=answers is not None)
        progress = BatchProgress(stack.enter_context(bars), count, tally)
        records = _Records(lines(), job.asked["sampling"], file, progress, tally)
        stack.callback(records.close)
        session = stack.enter_context(
            Session.open(
                files.text, files.mmproj, **opening, on_load=progress.load, on_notice=progress.notice, worker=True
            )
        )
        told = _estimate(job, session, lines(), count)
        if told:
            progress.notice(told)
        tally.start()
        for question, outcome in session.each(records.questions(), **job.asked):
            records.answered(question, outcome)


def _estimate(job: BatchJob, session: Session, lines: Iterable[Line], count: int) -> str | None:
    """Return how long the lines will take, if that is known."""
    runtime = session.runtime
    speed = BatchSpeed(
        runtime.configuration.speed,
        runtime.vision.tokens_per_tile,
        runtime.vision.image_size,
        runtime.engine.n_parallel,
        job.asked["sampling"].max_tokens,
    )
    return estimate(speed, count, _questions(lines, job.asked), session.limits)


def _questions(lines: Iterable[Line], asked: AskOptions) -> Iterator[Question]:
    """Return the questions of the first lines; an option that a line leaves out has the value common to all lines."""
    for line in itertools.islice(lines, LOOKED_AT):
        with contextlib.suppress(InvalidRequestError):
            question = question_of(line, asked["sampling"])
            yield replace(question, options={**asked, **question.options})


@dataclass(frozen=True, kw_only=True)
class _LineQuestion(Question):
    """The question of a line.

    Attributes:
        place: its place among the lines of this run, from 0.
        line: the line.
    """

    place: int
    line: Line


class _Records:
    """Turns lines into questions and their outcomes into records."""

    def __init__(
        self, lines: Iterable[Line], sampling: SamplingParams, file: BinaryIO, progress: BatchProgress, tally: Tally
    ) -> None:
        self._lines = lines
        self._sampling = sampling
        self._writer = InOrder(file)
        self._progress = progress
        self._tally = tally

    def questions(self) -> Iterator[_LineQuestion]:
        """Yield the questions; a line that is not a question is recorded as failed when its turn comes."""
        for place, line in enumerate(self._lines):
            try:
                question = question_of(line, self._sampling)
            except InvalidRequestError as error:
                self._put(place, line, error)
                continue
            yield _LineQuestion(**vars(question), place=place, line=line)

    def answered(self, question: _LineQuestion, outcome: Outcome) -> None:
        """Record the outcome of a question."""
        self._put(question.place, question.line, outcome)

    def close(self) -> None:
        """Write the records that are left."""
        self._writer.close()

    def _put(self, place: int, line: Line, outcome: Outcome) -> None:
        self._tally.add(line.number, outcome)
        self._writer.put(place, record_of(line, outcome if isinstance(outcome, InternVLError) else outcome.to_dict()))
        self._progress.advance()


@contextlib.contextmanager
def _lines(source: Path | None) -> Iterator[Callable[[], Iterator[Line]]]:
    """Return a function that gives the lines from the beginning each time it is called.

    Raises:
        InvalidRequestError: they cannot be read.
    """
    if source is None:
        if sys.stdin.isatty():
            raise typer.BadParameter("name a file, or pipe the lines in", param_hint="--batch")
        yield _kept_lines(sys.stdin.buffer.read(), "What comes on stdin")
        return
    try:
        file = source.open("rb")
    except OSError as error:
        raise InvalidRequestError(f"{source} cannot be read: {error.strerror}.", "Check the path.") from error
    with file:
        head = file.peek(_MARK_BYTES)
        if not file.seekable() or has_wide_mark(head):  # a pipe, as <(command) makes it, or UTF-16
            yield _kept_lines(file.read(), str(source))
            return

        def lines() -> Iterator[Line]:
            file.seek(0)
            yield from read_lines(file)

        yield lines


def _kept_lines(data: bytes, name: str) -> Callable[[], Iterator[Line]]:
    text = as_utf8(data, name)
    return lambda: read_lines(io.BytesIO(text))
