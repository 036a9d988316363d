"""`internvl ask --batch`: answer the questions of a file, one JSON object a line, several at a time."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import typer

from internvl_gguf.cli.asking_options import pictures_of
from internvl_gguf.cli.batch_lines import Common, Line, RecordWriter, read_lines, record_of
from internvl_gguf.cli.batch_output import AnswerFile, Kept, hold_answers
from internvl_gguf.cli.batch_report import LOOKED_AT, BatchProgress, BatchSpeed, Tally, estimate
from internvl_gguf.cli.clip_options import ClipWishes
from internvl_gguf.cli.judges import FoundCritic, find_judge, is_critic
from internvl_gguf.cli.output import answer_stream, progress_bars, say
from internvl_gguf.cli.run import FAILED
from internvl_gguf.config import AskOptions, EngineConfig, PictureOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import Question
from internvl_gguf.utils.options import options_of
from internvl_gguf.utils.sizes import counted
from internvl_gguf.utils.text_data import as_utf8, has_wide_mark

if TYPE_CHECKING:
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.session import Session
    from internvl_gguf.session.batch import Outcome

_MARK_BYTES = 4


@dataclass(frozen=True)
class BatchJob:
    """The request given to `internvl ask --batch`.

    Attributes:
        source: the file of questions; None for stdin.
        output: the file of answers; None for stdout.
        drop_others: whether answers in `output` to lines that are not in `source` are dropped.
        model: the model's name.
        config: how it is run.
        opening: arguments of `Session.open`.
        asked: options of every question that does not say otherwise, `sampling` among them.
        form: those of them that say what an answer has to be like, as they were given.
        prompt: the question of lines that have none; None if each has one.
        wishes: which frames of clips are shown that do not say otherwise.
    """

    source: Path | None
    output: Path | None
    drop_others: bool
    model: str
    config: EngineConfig
    opening: dict[str, Any]
    asked: AskOptions
    form: Mapping[str, Any]
    prompt: str | None
    wishes: ClipWishes

    def common(self, files: ModelFiles) -> Common:
        """Return what all lines have in common, now that the files of the model are known."""
        of_session = {name: self.opening[name] for name in options_of(PictureOptions) if name in self.opening}
        of_form = {*self.form, "format_in_prompt"}
        asked = {name: value for name, value in self.asked.items() if value is not None and name not in of_form}
        sampling = asked.pop("sampling")
        is_shown = self.asked.get("format_in_prompt", True)
        return Common(
            model=files.text.name,
            encoder=files.mmproj.name,
            sampling=cast("SamplingParams", sampling),
            pictures={**of_session, **asked},
            form={**self.form, "format_in_prompt": is_shown} if self.form else {},
            system=self.opening["system"],
            prompt=self.prompt,
            wishes=self.wishes,
        )


@dataclass(frozen=True)
class Work:
    """The lines of a run.

    Attributes:
        lines: gives all lines from the beginning, as often as it is called.
        common: what they have in common.
        answered: numbers of those that an earlier run answered.
        count: number of the others.
        answers: gets the answers; None for stdout.
    """

    lines: Callable[[], Iterator[Line]]
    common: Common
    answered: frozenset[int]
    count: int
    answers: AnswerFile | None

    def pending(self) -> Iterator[Line]:
        """Return the lines that are not answered yet."""
        return (line for line in self.lines() if line.number not in self.answered)

    def sample(self, asked: AskOptions) -> Iterator[Question]:
        """Return some of the pending questions, from all over the file; `asked` are the options of all of them."""
        places = {count * self.count // LOOKED_AT for count in range(LOOKED_AT)}
        for place, line in enumerate(self.pending()):
            if place in places:
                with contextlib.suppress(InvalidRequestError):
                    question = self.common.question_of(line)
                    yield replace(question, options={**asked, **question.options})


def run_batch(job: BatchJob) -> None:
    """Answer the questions that are not answered yet.

    Raises:
        typer.Exit: with code 1 where a line failed, or an answer was cut off before its form was complete.
        InternVLError: the files or the model cannot be used, another run writes the output, or it has answers to lines
            that are not there; nothing was computed.
    """
    from internvl_gguf.cli.downloads import obtain
    from internvl_gguf.planning.auto_quant import machine_chooser
    from internvl_gguf.session.thinking import refuse_without_thoughts

    tally = Tally(job.output)
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(_lines(job.source))
        answers = stack.enter_context(hold_answers(job.output)) if job.output else None
        if answers and not job.drop_others:
            _refuse_others(job, answers.others(lines()))
        if not any(True for _ in lines()):
            return
        files = obtain(job.model, job.opening["mmproj"], machine_chooser(job.config, pictures_of(job.opening)))
        common = job.common(files)
        refuse_without_thoughts(files, common.sampling)
        work = _work(lines, common, answers)
        if answers:
            stack.callback(answers.finish, lines, common.hash_of, drop_others=job.drop_others)
        try:
            if work.count:
                _answer(job, files, work, tally)
        except KeyboardInterrupt:
            if answers:
                done, count = len(work.answered) + tally.answered, len(work.answered) + work.count
                say(f"{done:,} of {counted(count, 'line')} answered; the same command goes on with the rest.")
            raise
    for told in tally.summary():
        say(told)
    if tally.failed or tally.cut_off:
        raise typer.Exit(FAILED)


def _refuse_others(job: BatchJob, count: int) -> None:
    """Refuse an output with answers to other lines.

    Raises:
        InvalidRequestError: there are some.
    """
    if count:
        whose = "lines that are not in the input" if count > 1 else "a line that is not in the input"
        raise InvalidRequestError(
            f"{job.output} has {counted(count, 'answer')} to {whose}.",
            "Name another file with --output; or --drop-others drops them when the run ends.",
        )


def _work(lines: Callable[[], Iterator[Line]], common: Common, answers: AnswerFile | None) -> Work:
    """Find out which lines are to be answered, and say so where some are answered."""
    kept = answers.kept(lines, common.hash_of) if answers else Kept(frozenset(), 0)
    count = sum(1 for _ in lines())
    if kept.answered:
        were = "was" if count == 1 else "were"
        say(f"{len(kept.answered):,} of {counted(count, 'line')} {were} answered before.")
    if kept.changed:
        were, are = ("was", "is") if kept.changed == 1 else ("were", "are")
        say(
            f"{counted(kept.changed, 'line')} {were} answered with another model, other options or other words, "
            f"and {are} asked again."
        )
    return Work(lines, common, kept.answered, count - len(kept.answered), answers)


def _answer(job: BatchJob, files: ModelFiles, work: Work, tally: Tally) -> None:
    """Answer the pending lines with a model; `tally` counts them."""
    from internvl_gguf.session import Session
    from internvl_gguf.session.question_options import checked_options

    critic = _critic(job, work)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(work.answers.open()) if work.answers else answer_stream()
        opening = {name: value for name, value in job.opening.items() if name != "mmproj"}
        bars = progress_bars("bar", "count", "time left", transient=False, beside_answers=work.answers is not None)
        progress = BatchProgress(stack.enter_context(bars), work.count, tally)
        records = _Records(work, file, progress, tally)
        stack.callback(records.close)
        session = stack.enter_context(
            Session.open(
                files.text, files.mmproj, **opening, on_load=progress.load, on_notice=progress.notice, worker=True
            )
        )
        asked = job.asked
        if critic:
            judge = stack.enter_context(critic.open(progress.load_critic, progress.notice, in_worker=True))
            asked = cast("AskOptions", {**asked, "judge": judge})
        told = _estimate(session, work, asked)
        if told:
            progress.notice(told)
        tally.start()
        for question, outcome in session.each(records.questions(), **checked_options(asked)):
            records.answered(question, outcome)


def _critic(job: BatchJob, work: Work) -> FoundCritic | None:
    """Return the critic that judges answers of the pending lines; None if none has to."""
    sampling = work.common.sampling
    if not is_critic(sampling.judge):
        return None
    is_needed = sampling.best_of > 1 or any(_is_judged(line, sampling.judge) for line in work.pending())
    return find_judge(sampling.judge, job.config) if is_needed else None


def _is_judged(line: Line, judge: str) -> bool:
    """Return whether a line asks for several answers and for no other judge."""
    given = line.known_fields
    return bool(given.get("best_of", 1) != 1 and given.get("judge", judge) == judge)


def _estimate(session: Session, work: Work, asked: AskOptions) -> str | None:
    """Return how long the lines will take, or what would make that known; None where it is not worth a line."""
    runtime = session.runtime
    speed = BatchSpeed(
        runtime.configuration.speed,
        runtime.vision.tokens_per_tile,
        runtime.vision.image_size,
        runtime.engine.n_parallel,
    )
    return estimate(speed, work.count, work.sample(asked), session.limits)


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

    def __init__(self, work: Work, file: BinaryIO, progress: BatchProgress, tally: Tally) -> None:
        self._work = work
        self._writer = RecordWriter(file, in_order=work.answers is None)
        self._progress = progress
        self._tally = tally

    def questions(self) -> Iterator[_LineQuestion]:
        """Yield the questions; a line that is not a question is recorded as failed when its turn comes."""
        for place, line in enumerate(self._work.pending()):
            try:
                question = self._work.common.question_of(line)
            except InvalidRequestError as error:
                self._put(place, line, error)
                continue
            yield _LineQuestion(**vars(question), place=place, line=line)

    def answered(self, question: _LineQuestion, outcome: Outcome) -> None:
        """Record the outcome of a question."""
        self._put(question.place, question.line, outcome, is_bound=self._work.common.is_bound(question))

    def close(self) -> None:
        """Write the records that are left."""
        self._writer.close()

    def _put(self, place: int, line: Line, outcome: Outcome, *, is_bound: bool = False) -> None:
        self._writer.put(place, record_of(line, outcome, self._work.common))
        self._tally.add(line.number, outcome, is_bound=is_bound)
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
