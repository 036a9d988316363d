"""`internvl bench`: compare quants; each is loaded, measured and freed alone, in a process of its own."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from internvl_gguf._version import __version__
from internvl_gguf.bench.sweep import REPETITIONS, Sweep
from internvl_gguf.cli import bench_options, options
from internvl_gguf.cli.bench_best_of import best_of_settings, check_critics, with_critics
from internvl_gguf.cli.bench_output import BenchOutput
from internvl_gguf.cli.bench_progress import LadderLine, bench_progress
from internvl_gguf.cli.bench_servers import NamedServers, with_servers
from internvl_gguf.cli.output import say
from internvl_gguf.cli.run import FAILED, INTERRUPTED, option_errors
from internvl_gguf.config import DEFAULT_N_UBATCH
from internvl_gguf.errors import InvalidRequestError, ModelFileError
from internvl_gguf.models.names import DEMO

if TYPE_CHECKING:
    from pathlib import Path

    from internvl_gguf.bench.benchmark_plan import MeasurementSettings
    from internvl_gguf.bench.fitting import FittingChooser
    from internvl_gguf.bench.jobs import MachineFacts, Part
    from internvl_gguf.bench.pairs import FilePair
    from internvl_gguf.bench.results import Results
    from internvl_gguf.bench.targets import RequestedModels
    from internvl_gguf.hardware.cpu_tuning import HostSettings
    from internvl_gguf.models.hub_resolver import HubResolver


@bench_options.takes_sweep
def bench(
    models: bench_options.ModelsArgument = None,
    all_quants: bench_options.AllOption = False,
    fits: bench_options.FitsOption = None,
    mmproj: bench_options.MmprojsOption = None,
    no_speed: bench_options.NoSpeedOption = False,
    no_quality: bench_options.NoQualityOption = False,
    only: bench_options.OnlyOption = None,
    reference: bench_options.ReferenceOption = None,
    text: bench_options.TextOption = None,
    chunks: bench_options.ChunksOption = None,
    pictures: bench_options.PicturesOption = None,
    task: bench_options.TaskOption = None,
    best_of: bench_options.BestOfOption = None,
    cascade: bench_options.CascadeOption = None,
    judge: bench_options.JudgeOption = None,
    temperature: bench_options.TemperatureOption = None,
    seed: bench_options.SeedOption = None,
    *,
    sweep: Sweep,
    repetitions: bench_options.RepetitionsOption = REPETITIONS,
    parallel: bench_options.ParallelOption = 1,
    rpc: bench_options.RPCOption = None,
    rpc_insecure_network: bench_options.InsecureNetworkOption = False,
    resume: bench_options.FreshOption = True,
    budget: bench_options.BudgetOption = None,
    output_format: bench_options.FormatOption = None,
    json_output: bench_options.JSONOption = False,
    output: bench_options.OutputOption = None,
    html: bench_options.HTMLOption = None,
    plot: bench_options.PlotOption = None,
) -> None:
    """Measure quants of a model side by side: size, memory, speed, and what they lose, with pictures and without.

    Each is loaded alone, in a process of its own. What was measured before is not measured again.
    """
    from internvl_gguf.bench.benchmark_plan import MeasurementSettings
    from internvl_gguf.utils.sizes import parse_memory

    with option_errors():
        servers = NamedServers.parse(rpc, rpc_insecure_network)
    if cascade is not None:
        with option_errors():
            others = {"MODEL": models, "--all": all_quants, "--fits": fits, "--only": only}
            _refuse_with_cascade({**others, "--judge": judge, "--temperature": temperature, "--seed": seed})
            room = parse_memory(budget) if budget is not None else None
            report = BenchOutput.parse(room, "json" if json_output else output_format, output, html, plot)
            mmprojs = _split(mmproj)
        _bench_cascade(cascade, best_of, task, mmprojs, sweep, servers, report, fresh=not resume)
        return
    names = tuple(models or [options.chosen_model(None)])
    with option_errors():
        several = best_of_settings(best_of, judge, temperature, seed)
        tasks = _tasks(task, only, names, is_wanted=several is not None)
        parts = _parts(only, no_speed=no_speed, no_quality=no_quality, has_task=bool(tasks))
        parts = frozenset() if several and only is None else parts
        asked_tasks = tasks if several or "accuracy" in parts else ()
        measurements = MeasurementSettings(parts, repetitions, parallel, text, pictures, asked_tasks, chunks, several)
        wanted = _Asked(names, all_quants, fits, _split(mmproj), sweep, measurements, _reference(reference))
        room = parse_memory(budget) if budget is not None else None
        report = BenchOutput.parse(room, "json" if json_output else output_format, output, html, plot)
    report.check()
    with option_errors():
        servers.refuse_critics(several)
        wanted = replace(wanted, measurements=replace(measurements, best_of=with_critics(several)))
    wanted = replace(wanted, sweep=servers.under(sweep))
    results, is_interrupted = _run(wanted, fresh=not resume)
    report.write(results)
    if is_interrupted:
        raise typer.Exit(INTERRUPTED)
    if not any(row.status == "measured" for row in results.rows):
        raise typer.Exit(FAILED)


def _bench_cascade(
    cascade: str,
    best_of: str | None,
    tasks: list[str] | None,
    mmprojs: tuple[str, ...],
    sweep: Sweep,
    servers: NamedServers,
    output: BenchOutput,
    *,
    fresh: bool,
) -> None:
    """Find the threshold of a cascade, and report it."""
    from internvl_gguf.bench.targets import RequestedModels
    from internvl_gguf.cli.bench_cascade import CascadeJob, run_cascade, write_cascade

    with option_errors():
        job = CascadeJob.parse(cascade, best_of, tasks or (), sweep, fresh=fresh)
    output.check()
    job = replace(job, sweep=servers.under(sweep))

    def find(name: str) -> FilePair:
        pairs = _find_pairs(RequestedModels((name,), mmprojs))[1]
        if len(pairs) > 1:
            raise ModelFileError(f"{name} names {len(pairs)} models.", f"Name one, as {name.partition(':')[0]}:Q4_K_M.")
        return pairs[0]

    write_cascade(output, run_cascade(job, find, _host))


def _refuse_with_cascade(others: Mapping[str, object]) -> None:
    """Refuse what says what else is measured, and how.

    Args:
        others: values by their options.

    Raises:
        InvalidRequestError: there is one.
    """
    first = next((name for name, value in others.items() if value not in (None, False, [])), None)
    if first is not None:
        raise InvalidRequestError(
            f"--cascade was given together with {first}.",
            "Give --cascade SMALL,LARGE alone, with --task and --best-of if you like.",
        )


@dataclass(frozen=True)
class _Asked:
    """The request: which models are measured, and how.

    Attributes:
        models: as they were typed.
        all_quants: whether all quants are.
        fits: the memory that they are to fit; None for no such bound.
        mmprojs: precisions or files.
        sweep, measurements: how.
        reference: the quant that quality is measured against; None takes the one of the most bits.
    """

    models: tuple[str, ...]
    all_quants: bool
    fits: str | None
    mmprojs: tuple[str, ...]
    sweep: Sweep
    measurements: MeasurementSettings
    reference: str | None


def _run(asked: _Asked, *, fresh: bool) -> tuple[Results, bool]:
    """Find the files, plan the measurements and run them; return whether Ctrl-C ended them."""
    from internvl_gguf.bench.benchmark_plan import make_plan
    from internvl_gguf.bench.process import ask_machine
    from internvl_gguf.bench.results import Results
    from internvl_gguf.bench.runner import Runner
    from internvl_gguf.bench.store import Store
    from internvl_gguf.utils.records import BENCHMARKS

    started_at = datetime.now().astimezone().isoformat(timespec="seconds")
    servers = asked.sweep.servers
    notices = (*_check_sets(asked.measurements), *([servers.warning] if servers and servers.warning else []))
    chooser = _fitting(asked.fits, asked.sweep) if asked.fits is not None else None
    model, pairs = _find(asked, chooser)  # before a process is started for the next
    with option_errors():
        check_critics(asked.measurements.best_of, pairs)
    machine = with_servers(ask_machine(), asked.sweep)
    with option_errors():
        plan = make_plan(model, pairs, asked.sweep, asked.measurements, _host(machine), asked.reference)
    with bench_progress(len(plan.runs)) as progress:
        runner = Runner(plan, Store(BENCHMARKS.path / "results", fresh=fresh), machine.build, progress, notices)
        rows = runner.run()
    results = Results(
        model=model,
        machine=machine.machine,
        build=machine.build,
        version=__version__,
        started_at=started_at,
        reference=plan.reference if any(row.quality for row in rows) else None,
        rows=rows,
        command=shlex.join(["internvl", *sys.argv[1:]]),
        notices=(*notices, *runner.notices),
        free_bytes=sum(machine.gpus) or machine.host,
        fits_bytes=chooser.room if chooser else None,
    )
    return results, runner.is_interrupted


def _find(asked: _Asked, chooser: FittingChooser | None) -> tuple[str, list[FilePair]]:
    """Return the model's name and the pairs of files to measure."""
    from internvl_gguf.bench.targets import RequestedModels

    return _find_pairs(RequestedModels(asked.models, asked.mmprojs, asked.all_quants, chooser))


def _find_pairs(requested: RequestedModels) -> tuple[str, list[FilePair]]:
    from internvl_gguf.bench.targets import PairFinder

    with closing(LadderLine()) as line:

        def make_ladder(labels: Sequence[str], precisions: Sequence[str]) -> tuple[Path, list[str]]:
            from internvl_gguf.bench.ladder import demo_ladder

            return demo_ladder(labels, precisions, line.tell)

        model, pairs = PairFinder(_resolver, make_ladder, say).find(requested)
    if not pairs:
        raise ModelFileError("There is nothing to measure.", "Name quants, or use --all.")
    return model, pairs


def _fitting(sizes: str, sweep: Sweep) -> FittingChooser:
    """Return the chooser of the quants that fit."""
    from internvl_gguf.bench.fitting import FittingChooser, budget_of
    from internvl_gguf.bench.process import ask_machine

    machine = ask_machine()
    with option_errors():
        budget = budget_of(sizes, machine)
    budget = sweep.servers.added_to_budget(budget) if sweep.servers else budget
    return FittingChooser(budget, sweep, _host(with_servers(machine, sweep)))


def _host(machine: MachineFacts) -> HostSettings:
    """Return how a session would use the CPU; with a GPU, the batch size stays the default."""
    from internvl_gguf.hardware.cpu_tuning import host_settings

    host = host_settings()
    return replace(host, n_ubatch=DEFAULT_N_UBATCH) if machine.gpus else host


def _resolver() -> HubResolver:
    from internvl_gguf.models.hub import HubClient
    from internvl_gguf.models.hub_resolver import HubResolver

    return HubResolver(HubClient(on_wait=say, keeps_listings=True))


def _check_sets(measurements: MeasurementSettings) -> tuple[str, ...]:
    """Check texts, pictures and tasks before anything is measured; say and return what is wrong with them."""
    from internvl_gguf.bench.quality.sets import OFF, check_sets

    is_scored = "quality" in measurements.parts
    text = measurements.text if is_scored else OFF
    pictures = measurements.pictures if is_scored else OFF
    if is_scored and (text, pictures) == (OFF, OFF):
        with option_errors():
            raise InvalidRequestError("Neither text nor pictures are left to measure quality on.", "Use --no-quality.")
    problems = tuple(check_sets(text, pictures, measurements.tasks))
    for line in problems:
        say(line)
    return problems


def _tasks(
    given: list[str] | None, only: str | None, models: Sequence[str], *, is_wanted: bool
) -> tuple[str | None, ...]:
    """Return the named tasks, or the package's own for the demo model and where questions are wanted."""
    if given:
        return tuple(dict.fromkeys(given))
    is_demo = all(model.partition(":")[0].lower() == DEMO for model in models)
    return (None,) if is_demo or is_wanted or "accuracy" in (only or "") else ()


def _parts(only: str | None, *, no_speed: bool, no_quality: bool, has_task: bool) -> frozenset[Part]:
    """Return the measurements to make.

    Raises:
        InvalidRequestError: no such part, or options that contradict each other.
    """
    from internvl_gguf.bench.jobs import PARTS

    if only is None:
        left_out = {"speed": no_speed, "quality": no_quality, "accuracy": not has_task}
        return frozenset(part for part in PARTS if not left_out.get(part))
    if no_speed or no_quality:
        raise InvalidRequestError("--only was given together with --no-speed or --no-quality.", "Use one of the two.")
    wanted = _split(only)
    unknown = next((part for part in wanted if part not in PARTS), None)
    if unknown is not None:
        raise InvalidRequestError(f"--only names {unknown!r}.", f"Use some of {', '.join(PARTS)}.")
    return frozenset(part for part in PARTS if part in wanted)


def _reference(given: list[str] | None) -> str | None:
    """Return the reference, of which there can be only one.

    Raises:
        InvalidRequestError: several were named.
    """
    names = [name for text in given or () for name in _split(text)]
    if len(names) > 1:
        raise InvalidRequestError(
            f"{len(names)} references were named: {', '.join(names)}.", "All are measured against one: name one."
        )
    return names[0] if names else None


def _split(text: str | None) -> tuple[str, ...]:
    """Return the names of a list with commas.

    Raises:
        InvalidRequestError: one of them is empty.
    """
    if text is None:
        return ()
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise InvalidRequestError(f"A name is missing in {text!r}.", "Write names with commas between them.")
    return names
