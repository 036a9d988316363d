"""`internvl ask --batch`: the questions of a file, one JSON object a line, answered several at a time."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import typer

from internvl_gguf.cli.batch_lines import AnswerFile, InOrder, Line, question_of, read_lines, record_of
from internvl_gguf.cli.output import ProgressBars, answer_stream, progress_bars, reply_as_json, say
from internvl_gguf.cli.run import FAILED
from internvl_gguf.config import AskOptions, EngineConfig, SamplingParams
from internvl_gguf.errors import InternVLError, InvalidRequestError
from internvl_gguf.types import Question
from internvl_gguf.utils.text_data import as_utf8, has_wide_mark

if TYPE_CHECKING:
    from internvl_gguf.session.batch import Outcome

_MARK_BYTES = 4


@dataclass(frozen=True)
class BatchJob:
    """What `internvl ask --batch` was asked for.

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
    """Answer what is not answered yet.

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
        pending = (line for line in lines() if line.number in wanted)
        try:
            failed = _answer(job, pending, len(to_do), answers) if to_do else 0
        except KeyboardInterrupt:
            if answers:
                answered = sum(answers.answers(line) for line in lines())
                count = len(done) + len(to_do)
                say(f"{answered} of {count} lines are answered; the same command goes on with the rest.")
            raise
    if failed:
        say(f"{failed} of {len(to_do)} lines failed; the output says why.")
        raise typer.Exit(FAILED)


def _answer(job: BatchJob, lines: Iterable[Line], count: int, answers: AnswerFile | None) -> int:
    """Answer lines with a model; how many failed."""
    from internvl_gguf.cli.downloads import obtain
    from internvl_gguf.planning.auto_quant import machine_chooser
    from internvl_gguf.session import Session

    with contextlib.ExitStack() as stack:
        if answers:
            stack.callback(answers.sort)
        file = stack.enter_context(answers.open()) if answers else answer_stream()
        opening = dict(job.opening)
        files = obtain(job.model, opening.pop("mmproj"), machine_chooser(job.config))
        bars = progress_bars("bar", "count", "time left", transient=False, beside_answers=False)
        progress = _Progress(stack.enter_context(bars), count)
        records = _Records(lines, job.asked["sampling"], file, progress)
        stack.callback(records.close)
        session = stack.enter_context(
            Session.open(
                files.text, files.mmproj, **opening, on_load=progress.load, on_notice=progress.notice, worker=True
            )
        )
        session.batch(records.questions(), on_result=records.answered, **job.asked)
        return records.failed


class _Records:
    """Turns lines into questions and their outcomes into records.

    Attributes:
        failed: lines that gave no answer.
    """

    def __init__(self, lines: Iterable[Line], sampling: SamplingParams, file: BinaryIO, progress: _Progress) -> None:
        self._lines = lines
        self._sampling = sampling
        self._writer = InOrder(file)
        self._progress = progress
        self._asked: dict[int, tuple[int, Line]] = {}
        self.failed = 0

    def questions(self) -> Iterator[Question]:
        """The questions; a line that is none is recorded when its turn comes."""
        asked = 0
        for place, line in enumerate(self._lines):
            try:
                question = question_of(line, self._sampling)
            except InvalidRequestError as error:
                self._put(place, line, error)
                continue
            self._asked[asked] = place, line
            asked += 1
            yield question

    def answered(self, index: int, outcome: Outcome) -> None:
        """The outcome of a question, by its number."""
        place, line = self._asked.pop(index)
        self._put(place, line, outcome)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _put(self, place: int, line: Line, outcome: Outcome) -> None:
        if isinstance(outcome, InternVLError):
            self.failed += 1
            self._writer.put(place, record_of(line, outcome))
        else:
            self._writer.put(place, record_of(line, reply_as_json(outcome)))
        self._progress.advance(self.failed)


@contextlib.contextmanager
def _lines(source: Path | None) -> Iterator[Callable[[], Iterator[Line]]]:
    """A function that gives the lines from the beginning, as often as it is called.

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


class _Progress:
    """How far the lines are."""

    def __init__(self, bars: ProgressBars, count: int) -> None:
        self._bars = bars
        self._change = bars.add("Loading the model", total=count)
        self._told: set[str] = set()

    def load(self, done: float) -> None:
        """How far the model is loaded, 0 to 1."""
        self._change(label=f"Loading the model, {done:.0%}" if done < 1 else "Answering")

    def advance(self, failed: int) -> None:
        """One line more is done."""
        self._change(advance=1, label=f"{failed} failed" if failed else "Answering")

    def notice(self, line: str) -> None:
        """Say a line to the user, once; each record has its own."""
        if line not in self._told:
            self._told.add(line)
            self._bars.say(line)
