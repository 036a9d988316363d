"""`internvl ask --batch`: answer the questions of a file, one JSON object a line, several at a time."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

import typer

from internvl_gguf.bulk.answer_file import AnswerFile, Kept, hold_answers
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.lines import Line
from internvl_gguf.bulk.sources import Source, lines_of_text, open_source
from internvl_gguf.bulk.tables import check_table
from internvl_gguf.bulk.template import PromptTemplate
from internvl_gguf.cli.asking_options import pictures_of
from internvl_gguf.cli.batch_options import BatchOptions
from internvl_gguf.cli.batch_report import BatchProgress, Tally, estimate
from internvl_gguf.cli.batch_work import Records, Work
from internvl_gguf.cli.judges import find_judge, is_critic
from internvl_gguf.cli.output import Figure, answer_stream, progress_bars, say
from internvl_gguf.cli.run import FAILED
from internvl_gguf.config import AskOptions, EngineConfig, PictureOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.options import options_of
from internvl_gguf.utils.sizes import counted
from internvl_gguf.video.clip_wishes import ClipWishes

if TYPE_CHECKING:
    from internvl_gguf.bulk.answerer import Answering, LoadedFacts
    from internvl_gguf.critics.found_critic import FoundCritic
    from internvl_gguf.models.local_files import ModelFiles


@dataclass(frozen=True)
class BatchJob:
    """The request given to `internvl ask --batch`.

    Attributes:
        many: what is asked about, and where the answers go.
        model: the model's name.
        config: how it is run.
        opening: arguments of `Session.open`.
        asked: options of every question that does not say otherwise, `sampling` among them.
        form: those of them that say what an answer has to be like, as they were given.
        prompt: the question of lines that have none; None if each has one.
        wishes: which frames of clips are shown that do not say otherwise.
    """

    many: BatchOptions
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

    many = job.many
    if many.output is not None:
        check_table(many.output.suffix.lower())
    if many.ray is not None:
        _check_cluster(job, many.ray)
    tally = Tally(many.output)
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(_source(job)).lines
        answers = stack.enter_context(hold_answers(many.output)) if many.output else None
        if answers and not many.drop_others:
            _refuse_others(job, answers.others(lines()))
        dropped = answers.others(lines()) if answers and many.drop_others else 0
        if not any(True for _ in lines()):
            say("There are no lines: nothing is asked.")
            return
        files = obtain(job.model, job.opening["mmproj"], machine_chooser(job.config, pictures_of(job.opening)))
        common = job.common(files)
        refuse_without_thoughts(files, common.sampling)
        work = _work(job, lines, common, answers)
        if answers:
            stack.callback(answers.finish, lines, common.hash_of, drop_others=many.drop_others)
        stack.enter_context(_interrupted_by_sigterm())
        try:
            if work.count:
                _answer(job, files, work, tally)
            elif work.chosen is not None:
                _show_sample(work, {}, tally)
        except KeyboardInterrupt:
            if answers:
                done, count = len(work.answered) + tally.answered, len(work.answered) + work.count
                say(f"{done:,} of {counted(count, 'line')} answered; the same command goes on with the rest.")
            raise
    if dropped:
        say(f"{counted(dropped, 'answer')} to lines that are not in the input: dropped.")
    for told in tally.summary():
        say(told)
    if tally.failed or tally.cut_off or work.cut_off:
        raise typer.Exit(FAILED)


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """End as after Ctrl-C where a scheduler or a service manager ends the run, so that what is done is put in order."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_cluster(job: BatchJob, address: str) -> None:
    """Refuse a cluster that cannot answer, before anything is read.

    Raises:
        InvalidRequestError: nothing answers at its address, or RPC servers are to be used there, too.
    """
    from internvl_gguf.ray.lines import check_address

    if job.config.rpc:
        raise InvalidRequestError(
            "Machines of a cluster cannot share the RPC servers: each has one client at a time.", "Leave --rpc out."
        )
    check_address(address)


def _refuse_others(job: BatchJob, count: int) -> None:
    """Refuse an output with answers to other lines.

    Raises:
        InvalidRequestError: there are some.
    """
    if count:
        whose = "lines that are not in the input" if count > 1 else "a line that is not in the input"
        raise InvalidRequestError(
            f"{job.many.output} has {counted(count, 'answer')} to {whose}.",
            "Name another file with --output; or --drop-others drops them when the run ends.",
        )


def _work(job: BatchJob, lines: Callable[[], Iterator[Line]], common: Common, answers: AnswerFile | None) -> Work:
    """Find out which lines are to be answered, and say so where some are answered."""
    kept = answers.kept(lines, common.hash_of) if answers else Kept(frozenset())
    numbers = [line.number for line in lines()]
    count = len(numbers)
    chosen = None
    if job.many.sample is not None:
        chosen = frozenset(Random(0).sample(numbers, min(job.many.sample, count)))
    if kept.answered:
        were = "was" if len(kept.answered) == 1 else "were"
        say(f"{len(kept.answered):,} of {counted(count, 'line')} {were} answered before.")
    asked = frozenset(numbers) if chosen is None else chosen
    if changed := len(asked & kept.changed):
        were, are = ("was", "is") if changed == 1 else ("were", "are")
        say(
            f"{counted(changed, 'line')} {were} answered with another model, other options or other words, "
            f"and {are} asked again."
        )
    if cut_off := _cut_off(lines, common, asked & kept.at_limit):
        say(
            f"{counted(cut_off, 'answer')} of before ended at the limit before the form was complete, without a value: "
            "another --max-tokens asks again."
        )
    return Work(lines, common, kept.answered, chosen, len(asked - kept.answered), cut_off, answers)


def _cut_off(lines: Callable[[], Iterator[Line]], common: Common, at_limit: frozenset[int]) -> int:
    """Return how many of the lines whose answers ended at their limit had a form to complete."""
    if not at_limit:
        return 0
    return sum(common.is_bound(common.as_written(line)) for line in lines() if line.number in at_limit)


def _answer(job: BatchJob, files: ModelFiles, work: Work, tally: Tally) -> None:
    """Answer the pending lines with a model; `tally` counts them."""
    from internvl_gguf.bulk.answer_lines import answer_lines
    from internvl_gguf.bulk.answerer import Answering
    from internvl_gguf.bulk.pool import Told

    opening = {name: value for name, value in job.opening.items() if name != "mmproj"}
    answering = Answering(files, opening, job.asked, work.common, _critic(job, work))
    with contextlib.ExitStack() as stack:
        write = stack.enter_context(work.answers.appending()) if work.answers else _written_to_stdout(work)
        figures: tuple[Figure, ...] = ("bar", "count", "note", "time left")
        bars = progress_bars(*figures, transient=False, beside_answers=work.answers is not None)
        progress = BatchProgress(stack.enter_context(bars), work.count, tally)
        records = Records(work, write, progress, tally, in_order=not job.many.unordered)
        stack.callback(records.close)

        def ready(loaded: LoadedFacts, devices: int) -> None:
            if told := estimate(loaded, devices, work.count, work.sample(job.asked)):
                progress.notice(told)
            tally.start()

        told = Told(records.answered, progress.load, progress.load_critic, progress.notice, ready)
        if job.many.ray is None:
            answer_lines(answering, records.lines(), work.count, told, job.many.workers or 1)
        else:
            _answer_on_cluster(job, answering, records, progress, tally)
    if work.chosen is not None:
        _show_sample(work, records.shown, tally)


def _answer_on_cluster(
    job: BatchJob, answering: Answering, records: Records, progress: BatchProgress, tally: Tally
) -> None:
    """Answer the lines on the machines of a cluster of Ray."""
    from internvl_gguf.ray import lines as on_ray

    workers = job.many.workers
    progress.wait("Starting Ray")
    with on_ray.cluster(cast("str", job.many.ray)):
        progress.load(1.0)
        tally.start()
        on_ray.answer_lines(answering, records.lines(), records.answered, workers if isinstance(workers, int) else None)


def _show_sample(work: Work, records: Mapping[int, dict[str, Any]], tally: Tally) -> None:
    """Show the answers of a sample, if they are not on stdout, and how long all lines will take at its pace."""
    if work.answers or work.is_shown:
        for shown in work.looked_at(records):
            say(shown)
    count = sum(1 for _ in work.lines())
    if told := tally.all_of(count):
        say(told)


def _written_to_stdout(work: Work) -> Callable[[bytes], None]:
    """Return what writes records to stdout, each at once; nothing where a sample is shown on a terminal instead."""
    if work.is_shown:
        return lambda data: None
    file = answer_stream()

    def write(data: bytes) -> None:
        file.write(data)
        file.flush()

    return write


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


@contextlib.contextmanager
def _source(job: BatchJob) -> Iterator[Source]:
    """Open what is asked about.

    Raises:
        InvalidRequestError: it cannot be read, has nothing to ask about, or the prompt has places for what it has not.
    """
    with contextlib.ExitStack() as stack:
        if str(job.many.batch) != "-":
            source = stack.enter_context(open_source(cast("Path", job.many.batch), job.many.image_column))
        elif sys.stdin.isatty():
            raise typer.BadParameter("name a file or folder, or pipe lines in", param_hint="--batch")
        else:
            name = "What comes on stdin"
            source = Source(name, lines_of_text(sys.stdin.buffer.read(), name))
        if source.columns is not None:
            if job.prompt is None and "prompt" not in source.columns:
                raise InvalidRequestError(
                    f"{source.name} has no prompts.",
                    'Add the question: internvl ask MODEL "What is it?" --batch ...',
                )
            PromptTemplate(job.prompt or "").check(source.columns)
        for notice in source.notices:
            say(notice)
        yield source
