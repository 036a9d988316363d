"""`internvl bench --cascade`: fit the threshold of a cascade to questions with known answers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf._version import __version__
from internvl_gguf.bench.sweep import Sweep
from internvl_gguf.cli.bench_output import BenchOutput, form_of
from internvl_gguf.cli.bench_servers import with_servers
from internvl_gguf.cli.output import print_document, print_json_text, print_table, progress_bars, say
from internvl_gguf.cli.output.tables import Report
from internvl_gguf.config import MAX_BEST_OF
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.models.names import DEMO

if TYPE_CHECKING:
    from internvl_gguf.bench.cascade.measure import MeasuredModel
    from internvl_gguf.bench.cascade.results import CascadeResults
    from internvl_gguf.bench.jobs import MachineFacts
    from internvl_gguf.bench.pairs import FilePair

FindPair = Callable[[str], "FilePair"]
"""Finds the files of one model."""

_FEWEST: Final = 2


@dataclass(frozen=True)
class CascadeJob:
    """The measurement of a cascade, as the command line asks for it.

    Attributes:
        models: names of the models, the smallest first.
        counts: numbers of answers to each question; 1 is among them.
        task: path of the questions; None for those of the demo model.
        sweep: how the models are run; one value each.
        fresh: whether what was measured before is measured anew.
    """

    models: tuple[str, ...]
    counts: tuple[int, ...]
    task: str | None
    sweep: Sweep
    fresh: bool

    @classmethod
    def parse(
        cls, cascade: str, best_of: str | None, tasks: Sequence[str | None], sweep: Sweep, *, fresh: bool
    ) -> CascadeJob:
        """Return the job that the options of the command describe.

        Raises:
            InvalidRequestError: fewer than two models, one twice, or several settings of one kind.
        """
        models = tuple(name.strip() for name in cascade.split(","))
        hint = "Write --cascade SMALL,LARGE, the smallest first."
        if not all(models):
            raise InvalidRequestError(f"A model is missing in --cascade {cascade!r}.", hint)
        if len(models) < _FEWEST:
            raise InvalidRequestError(f"--cascade names one model, {cascade!r}.", hint)
        twice = next((name for name in models if [each.lower() for each in models].count(name.lower()) > 1), None)
        if twice is not None:
            raise InvalidRequestError(f"{twice} is in the cascade twice.", "Name another model.")
        if len(tasks) > 1:
            raise InvalidRequestError("A threshold is fitted to one file of questions.", "Give --task once.")
        if not tasks and any(name.partition(":")[0].lower() != DEMO for name in models):
            raise InvalidRequestError(
                "--cascade needs questions with their right answers.",
                'Give --task FILE.jsonl, with lines as {"image": FILE, "prompt": TEXT, "answer": TEXT}.',
            )
        swept = next((name for name, values in sweep.engine.items() if len(values) > 1), None)
        if swept is not None:
            raise InvalidRequestError(f"--cascade takes one value of {swept}, not a list.", "Give one of them.")
        return cls(models, _counts(best_of), tasks[0] if tasks else None, sweep, fresh)


def run_cascade(job: CascadeJob, find: FindPair, host: Callable[[MachineFacts], Any]) -> CascadeResults:
    """Measure the models, and fit the thresholds.

    Args:
        job: what is asked for.
        find: finds the files of one model.
        host: how a session would use the CPU.

    Raises:
        InternVLError: files, questions or models that cannot be used.
    """
    from internvl_gguf.bench.cascade.advice import advise, recommend
    from internvl_gguf.bench.cascade.measure import Measuring, measure
    from internvl_gguf.bench.cascade.results import CascadeResults
    from internvl_gguf.bench.cascade.rows import FEWEST, rows_of
    from internvl_gguf.bench.process import ask_machine
    from internvl_gguf.bench.quality.sets import OFF, check_sets, read_task
    from internvl_gguf.bench.store import Store
    from internvl_gguf.utils.records import BENCHMARKS

    started_at = datetime.now().astimezone().isoformat(timespec="seconds")
    notices = list(check_sets(OFF, OFF, (job.task,)))
    for line in notices:
        say(line)
    questions = read_task(job.task)
    if len(questions.items) < FEWEST:
        raise InvalidRequestError(
            f"{questions.name} has {len(questions.items)} questions, too few to fit a threshold to.",
            f"Give {FEWEST} or more; a hundred are few.",
        )
    pairs = [find(name) for name in job.models]
    machine = with_servers(ask_machine(), job.sweep)
    with progress_bars("bar", "percent") as bars:
        change = bars.add("", total=1.0)
        models = [_ready(name, pair, job.sweep, host(machine)) for name, pair in zip(job.models, pairs, strict=True)]
        last = ""

        def progress(what: str, done: float) -> None:
            nonlocal last
            if what != last and not bars.are_shown:
                say(what)
            last = what
            change(label=what, completed=done)

        def note(line: str) -> None:
            if line not in notices:
                notices.append(line)
                bars.say(line)

        store = Store(BENCHMARKS.path / "results", fresh=job.fresh)
        measuring = Measuring(job.task, questions, job.counts, store, machine.build, progress, note)
        answers = measure(models, measuring)
    rows, curves = rows_of(job.models, answers, [item.images for item in questions.items])
    return CascadeResults(
        models=job.models,
        task=questions.name,
        rows=rows,
        curves=curves,
        recommended=recommend(rows, len(job.models)),
        advice=advise(rows, job.models),
        shares_encoder=len({each.encoder for each in answers[1]}) == 1,
        machine=machine.machine,
        build=machine.build,
        version=__version__,
        started_at=started_at,
        command=shlex.join(["internvl", *sys.argv[1:]]),
        notices=tuple(notices),
    )


def write_cascade(output: BenchOutput, results: CascadeResults) -> None:
    """Print the report or write it to its file with the advice on stderr, then the page and the chart.

    Raises:
        InvalidRequestError: a file cannot be written after all.
    """
    from internvl_gguf.bench.cascade.chart import cascade_chart
    from internvl_gguf.bench.cascade.report import render, to_page
    from internvl_gguf.bench.report.figures import write_chart, write_report

    form = form_of(output)
    if form is None:
        _print(results)
    elif output.file is not None:
        write_report(output.file, render(results, form).encode())
        say(f"Wrote {output.file}")
        say(results.advice)
    elif form == "json":
        print_json_text(render(results, form))
    else:
        print_document(render(results, form))
    if output.html:
        write_report(output.html, to_page(results).encode())
        say(f"Wrote {output.html}")
    if output.plot:
        write_chart(output.plot, cascade_chart(results))
        say(f"Wrote {output.plot}")


def _print(results: CascadeResults) -> None:
    from internvl_gguf.bench.cascade.report import HEAD, circumstances_of, legend_of, table_of, title_of

    report = Report()
    report.paragraph(title_of(results), style="bold")
    report.paragraph(circumstances_of(results), style="dim")
    report.blank()
    print_table(HEAD, table_of(results), ("separation", "asked on"))
    report.blank()
    for line in legend_of(results):
        report.paragraph(line)
    report.blank()
    report.paragraph(results.advice, style="bold green")


def _ready(name: str, pair: FilePair, sweep: Sweep, host: Any) -> MeasuredModel:
    """Fetch a model, and settle how it is run."""
    from internvl_gguf.bench.cascade.measure import MeasuredModel
    from internvl_gguf.cli.downloads import download_bars

    if pair.is_here:
        files = pair.fetch(lambda file, done: None, say)
    else:
        with download_bars() as downloads:
            files = pair.fetch(downloads.progress, downloads.say)
    return MeasuredModel(name, files, sweep.run_configs(pair.n_ctx_train, host)[0])


def _counts(best_of: str | None) -> tuple[int, ...]:
    """Return the numbers of answers to a question, 1 first.

    Raises:
        InvalidRequestError: it is no list of numbers, or one is out of range.
    """
    hint = f"Give numbers from 1 to {MAX_BEST_OF} with commas between them."
    try:
        counts = {1, *(int(part) for part in best_of.split(","))} if best_of is not None else {1}
    except ValueError:
        raise InvalidRequestError(f"--best-of is {best_of!r}.", hint) from None
    if not all(1 <= count <= MAX_BEST_OF for count in counts):
        raise InvalidRequestError(f"--best-of is {best_of!r}.", hint)
    return tuple(sorted(counts))
