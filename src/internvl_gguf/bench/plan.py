"""Everything that will be measured, laid out and checked before the first model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from internvl_gguf.bench.jobs import Part, SpeedJob
from internvl_gguf.bench.pairs import Pair, TextHalf, VisionHalf
from internvl_gguf.bench.results import Configuration
from internvl_gguf.bench.settings import Point, Sweep
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.filenames import ModelCopy, Quant, RepoFile, find_copy
from internvl_gguf.hardware.cpu_tuning import HostSettings

_TEXTS: Final = ("F32", "BF16", "F16")
_VISIONS: Final = ("F32", "F16", "BF16")  # BF16 rounds what is between the layers, too (docs/parity.md)


@dataclass(frozen=True)
class Measures:
    """What is measured of each configuration.

    Attributes:
        parts: which parts.
        repetitions: of each measurement of speed.
        parallel: answers that are decoded together; 1 leaves that out.
        text, pictures: what quality is measured on, by path; None for what comes with the package, "off" for nothing.
        tasks: what accuracy is measured on, by path; None for the questions that come with the package.
        chunks: of the text that are scored, at most; None for all of it.
    """

    parts: frozenset[Part]
    repetitions: int
    parallel: int = 1
    text: str | None = None
    pictures: str | None = None
    tasks: tuple[str | None, ...] = ()
    chunks: int | None = None

    def speed_job(self, point: Point) -> SpeedJob:
        """How the speed of a configuration is measured."""
        return SpeedJob(point.n_prompt, point.n_gen, self.repetitions, self.parallel)


@dataclass(frozen=True)
class Entry:
    """A configuration that will be measured.

    Attributes:
        pair: its files.
        point: how they are run.
        configuration: what the report says of both.
        name: what tells it from the others, in a few words.
    """

    pair: Pair
    point: Point
    configuration: Configuration
    name: str


@dataclass(frozen=True)
class Plan:
    """All of a benchmark.

    Attributes:
        model: name of the model.
        entries: in the order of the report.
        reference: index of the entry that quality is measured against; None without quality.
        measures: what is measured of each.
    """

    model: str
    entries: tuple[Entry, ...]
    reference: int | None
    measures: Measures

    @property
    def order(self) -> list[int]:
        """Indices of the entries as they are run: what the others are measured against goes first."""
        first = [] if self.reference is None else [self.reference]
        return [*first, *(index for index in range(len(self.entries)) if index not in first)]

    def crossed(self, index: int) -> tuple[int | None, int | None]:
        """For an entry the two that tell its losses apart, run in the same way.

        Returns:
            Index of its text quant behind the reference's mmproj, and of its mmproj before the reference's text quant;
            None for one that is not there, and for the second where all have one mmproj.
        """
        if self.reference is None:
            return None, None
        own, reference = self.entries[index], self.entries[self.reference]
        has_several = len({id(entry.pair.vision) for entry in self.entries}) > 1
        quant_alone = self._find(own.pair.text, reference.pair.vision, own.point)
        mmproj_alone = self._find(reference.pair.text, own.pair.vision, own.point) if has_several else None
        return quant_alone, mmproj_alone

    def _find(self, text: TextHalf, vision: VisionHalf, point: Point) -> int | None:
        return next(
            (
                index
                for index, entry in enumerate(self.entries)
                if entry.pair.text is text and entry.pair.vision is vision and entry.point == point
            ),
            None,
        )


def make_plan(
    model: str, pairs: Sequence[Pair], sweep: Sweep, measures: Measures, host: HostSettings, reference: str | None
) -> Plan:
    """Every pair with every point of the sweep.

    Args:
        model: name of the model.
        pairs: one or more.
        sweep: how they are run.
        measures: what is measured.
        host: how the CPU is used where nothing is named.
        reference: name of the text quant that quality is measured against; None takes the one of the most bits.

    Raises:
        InvalidRequestError: a way to run that a model cannot be run in; a reference that is not among the quants, or of
            another vocabulary than one of them.
    """
    points = [(pair, point) for pair in pairs for point in sweep.points(pair.n_ctx_train, host, measures.parallel)]
    swept = _swept([point for _, point in points])
    entries = tuple(
        Entry(pair, point, _configuration(pair, point), _name(pair, point, swept)) for pair, point in points
    )
    if "quality" not in measures.parts:
        if reference is not None:
            raise InvalidRequestError(
                "--reference is for quality, which is not to be measured.", "Leave one of the two options out."
            )
        return Plan(model, entries, None, measures)
    base = _reference_pair(pairs, reference)
    _check_vocabularies(pairs, base)
    index = next(index for index, entry in enumerate(entries) if entry.pair is base)
    return Plan(model, entries, index, measures)


def _swept(points: Sequence[Point]) -> list[str]:
    """The settings that are not the same in all points."""
    names = dict.fromkeys(name for point in points for name in point.settings)
    return [name for name in names if len({point.settings.get(name) for point in points}) > 1]


def _name(pair: Pair, point: Point, swept: Sequence[str]) -> str:
    settings = [f"{name} {point.settings[name]}" for name in swept if name in point.settings]
    return ", ".join([f"{pair.text.label} with mmproj {pair.vision.label}", *settings])


def _configuration(pair: Pair, point: Point) -> Configuration:
    return Configuration(
        quant=pair.text.label,
        precision=pair.vision.label,
        text=pair.text.file,
        mmproj=pair.vision.file,
        text_bytes=pair.text.n_bytes,
        mmproj_bytes=pair.vision.n_bytes,
        bits_per_weight=pair.bits_per_weight,
        settings=point.settings,
    )


def _reference_pair(pairs: Sequence[Pair], wanted: str | None) -> Pair:
    """The pair that nothing is expected to be better than."""
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


def _precision(pair: Pair) -> tuple[float, ...]:
    """How near to the published weights, which are BF16, a pair is taken to be."""
    text = _TEXTS.index(pair.text.label) if pair.text.label in _TEXTS else len(_TEXTS)
    vision = _VISIONS.index(pair.vision.label) if pair.vision.label in _VISIONS else len(_VISIONS)
    return -text, pair.bits_per_weight, -vision, pair.vision.n_bytes


def _check_vocabularies(pairs: Sequence[Pair], reference: Pair) -> None:
    other = next((pair for pair in pairs if pair.text.vocabulary != reference.text.vocabulary), None)
    if other is not None:
        raise InvalidRequestError(
            f"{other.text.file} has another vocabulary than the reference, {reference.text.file}: what they expect "
            "next cannot be compared.",
            "Name quants of one model, or use --no-quality.",
        )
