"""The plan of a benchmark: every configuration to measure, checked before the first model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from internvl_gguf.bench.best_of.settings import BestOfSettings
from internvl_gguf.bench.jobs import Part, SpeedJob
from internvl_gguf.bench.pairs import FilePair, TextHalf, VisionHalf
from internvl_gguf.bench.results import Configuration
from internvl_gguf.bench.sweep import RunConfig, Sweep
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.filenames import ModelCopy, Quant, RepoFile, find_copy
from internvl_gguf.hardware.cpu_tuning import HostSettings

_TEXTS: Final = ("F32", "BF16", "F16")
_VISIONS: Final = ("F32", "F16", "BF16")  # BF16 rounds what is between the layers, too (docs/parity.md)


@dataclass(frozen=True)
class MeasurementSettings:
    """The measurements to make of each configuration.

    Attributes:
        parts: which parts to measure.
        repetitions: runs of each speed measurement.
        parallel: answers that are decoded together; 1 leaves that out.
        text, pictures: paths of the sets for quality; None for those that come with the package, "off" for none.
        tasks: paths of the questions for accuracy and `best_of`; None for those that come with the package.
        chunks: most chunks of the text that are scored; None for all of it.
        best_of: how several answers to each question of the tasks are compared; None to leave that out.
    """

    parts: frozenset[Part]
    repetitions: int
    parallel: int = 1
    text: str | None = None
    pictures: str | None = None
    tasks: tuple[str | None, ...] = ()
    chunks: int | None = None
    best_of: BestOfSettings | None = None

    def speed_job(self, run_config: RunConfig) -> SpeedJob:
        """Return how the speed of a configuration is measured."""
        return SpeedJob(run_config.n_prompt, run_config.n_gen, self.repetitions, self.parallel)


@dataclass(frozen=True)
class PlannedRun:
    """A configuration that will be measured.

    Attributes:
        pair: its files.
        run_config: its settings.
        configuration: files and settings for the report.
        name: a short name that no other configuration of the benchmark has.
    """

    pair: FilePair
    run_config: RunConfig
    configuration: Configuration
    name: str


@dataclass(frozen=True)
class BenchmarkPlan:
    """The plan of a benchmark.

    Attributes:
        model: name of the model.
        runs: in the order of the report.
        reference: index of the run that quality is measured against; None without quality.
        measurements: the measurements to make of each.
    """

    model: str
    runs: tuple[PlannedRun, ...]
    reference: int | None
    measurements: MeasurementSettings

    @property
    def order(self) -> list[int]:
        """Indices of the runs in the order of execution: the reference first."""
        first = [] if self.reference is None else [self.reference]
        return [*first, *(index for index in range(len(self.runs)) if index not in first)]

    def crossed(self, index: int) -> tuple[int | None, int | None]:
        """Return the two runs that show the loss of a run's text quant alone and of its mmproj alone.

        Both have the settings of the run itself.

        Returns:
            Index of the run of its text quant with the reference's mmproj, and of its mmproj with the reference's text
            quant. None for a run that is not in the plan, and for the second if all runs share one mmproj.
        """
        if self.reference is None:
            return None, None
        run, reference = self.runs[index], self.runs[self.reference]
        has_several = len({id(each.pair.vision) for each in self.runs}) > 1
        quant_alone = self._find(run.pair.text, reference.pair.vision, run.run_config)
        mmproj_alone = self._find(reference.pair.text, run.pair.vision, run.run_config) if has_several else None
        return quant_alone, mmproj_alone

    def _find(self, text: TextHalf, vision: VisionHalf, run_config: RunConfig) -> int | None:
        return next(
            (
                index
                for index, run in enumerate(self.runs)
                if run.pair.text is text and run.pair.vision is vision and run.run_config == run_config
            ),
            None,
        )


def make_plan(
    model: str,
    pairs: Sequence[FilePair],
    sweep: Sweep,
    measurements: MeasurementSettings,
    host: HostSettings,
    reference: str | None,
) -> BenchmarkPlan:
    """Plan every pair of files with every combination of settings of a sweep.

    Args:
        model: name of the model.
        pairs: one or more.
        sweep: the settings.
        measurements: the measurements to make.
        host: how the CPU is used if the sweep does not say.
        reference: name of the text quant that quality is measured against; None takes the one with the most bits.

    Raises:
        InvalidRequestError: settings that a model cannot be run with; a reference that is not among the quants, or has
            another vocabulary than one of them.
    """
    combinations = [
        (pair, run_config)
        for pair in pairs
        for run_config in sweep.run_configs(pair.n_ctx_train, host, measurements.parallel)
    ]
    swept = _swept([run_config for _, run_config in combinations])
    runs = tuple(
        PlannedRun(pair, run_config, _configuration(pair, run_config), _name(pair, run_config, swept))
        for pair, run_config in combinations
    )
    if "quality" not in measurements.parts:
        if reference is not None:
            raise InvalidRequestError(
                "--reference is for quality, which is not to be measured.", "Leave one of the two options out."
            )
        return BenchmarkPlan(model, runs, None, measurements)
    base = _reference_pair(pairs, reference)
    _check_vocabularies(pairs, base)
    index = next(index for index, run in enumerate(runs) if run.pair is base)
    return BenchmarkPlan(model, runs, index, measurements)


def _swept(run_configs: Sequence[RunConfig]) -> list[str]:
    """Return the names of the settings that differ between the runs."""
    names = dict.fromkeys(name for run_config in run_configs for name in run_config.settings)
    return [name for name in names if len({run_config.settings.get(name) for run_config in run_configs}) > 1]


def _name(pair: FilePair, run_config: RunConfig, swept: Sequence[str]) -> str:
    settings = [f"{name} {run_config.settings[name]}" for name in swept if name in run_config.settings]
    return ", ".join([f"{pair.text.label} with mmproj {pair.vision.label}", *settings])


def _configuration(pair: FilePair, run_config: RunConfig) -> Configuration:
    return Configuration(
        quant=pair.text.label,
        precision=pair.vision.label,
        text=pair.text.file,
        mmproj=pair.vision.file,
        text_bytes=pair.text.n_bytes,
        mmproj_bytes=pair.vision.n_bytes,
        bits_per_weight=pair.bits_per_weight,
        settings=run_config.settings,
    )


def _reference_pair(pairs: Sequence[FilePair], wanted: str | None) -> FilePair:
    """Return the pair of the best expected quality."""
    among = list(pairs)
    if wanted is not None:
        copies = tuple(ModelCopy(Quant.parse(pair.text.label), (RepoFile(pair.text.file),)) for pair in pairs)
        found = find_copy(copies, wanted)
        if found is None:
            names = ", ".join(dict.fromkeys(pair.text.label for pair in pairs))
            raise InvalidRequestError(
                f"The reference {wanted!r} is not among what is to be measured: {names}.",
                "Add it to the quants, or name one of these.",
            )
        among = [pair for pair, copy in zip(pairs, copies, strict=True) if copy.first == found.first]
    return max(among, key=_precision)


def _precision(pair: FilePair) -> tuple[float, ...]:
    """Return the sort key of a pair's expected quality: how near it is to the published weights, which are BF16."""
    text = _TEXTS.index(pair.text.label) if pair.text.label in _TEXTS else len(_TEXTS)
    vision = _VISIONS.index(pair.vision.label) if pair.vision.label in _VISIONS else len(_VISIONS)
    return -text, pair.bits_per_weight, -vision, pair.vision.n_bytes


def _check_vocabularies(pairs: Sequence[FilePair], reference: FilePair) -> None:
    other = next((pair for pair in pairs if pair.text.vocabulary != reference.text.vocabulary), None)
    if other is not None:
        raise InvalidRequestError(
            f"{other.text.file} has another vocabulary than the reference, {reference.text.file}: what they expect "
            "next cannot be compared.",
            "Name quants of one model, or use --no-quality.",
        )
