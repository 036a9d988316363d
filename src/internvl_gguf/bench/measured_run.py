"""State of one configuration while a benchmark runs: known results, parts still to be measured, saving results."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from internvl_gguf.bench.benchmark_plan import MeasurementSettings, PlannedRun
from internvl_gguf.bench.jobs import BestOfJob, Job, PartResult, ScoringJob
from internvl_gguf.bench.keys import RunIdentity
from internvl_gguf.bench.quality.sets import OFF
from internvl_gguf.bench.results import (
    AccuracyResult,
    BestOfResult,
    MemoryResult,
    QualityResult,
    Row,
    SpeedResult,
    Status,
)
from internvl_gguf.bench.store import Key, Store, digest_of
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.utils.records import BENCHMARKS

_KEPT_REFERENCES: Final = 2  # each takes 0.3 MB a token at a vocabulary of 151,674


@dataclass(frozen=True)
class Reference:
    """The configuration that quality is measured against.

    Attributes:
        identity: its files and settings by content.
        folder: where its distributions are.
    """

    identity: RunIdentity
    folder: Path

    @classmethod
    def of(cls, identity: RunIdentity, measurements: MeasurementSettings) -> Reference:
        """Return the reference for a configuration, whether its distributions are written or not.

        Raises:
            InvalidRequestError, PictureError: a set cannot be read.
        """
        return cls(identity, _references() / digest_of(identity.reference_key(measurements)))

    def is_written(self, measurements: MeasurementSettings) -> bool:
        """Return whether its distributions are on disk: one file for each set."""
        wanted = [measurements.text, measurements.pictures]
        return len(list(self.folder.glob("*.reference"))) == len(wanted) - wanted.count(OFF)

    def keep(self) -> None:
        """Mark these distributions as used, and remove those of all but the few references used last."""
        with contextlib.suppress(OSError):
            os.utime(self.folder)
            folders = sorted(_references().iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
            for folder in folders[_KEPT_REFERENCES:]:
                shutil.rmtree(folder, ignore_errors=True)


def _references() -> Path:
    return BENCHMARKS.path / "references"


_Kept = Literal["speed", "memory", "text", "pictures"]
_KINDS: Final[dict[_Kept, type[Any]]] = {
    "speed": SpeedResult,
    "memory": MemoryResult,
    "text": QualityResult,
    "pictures": QualityResult,
}
"""Result type of each part that is kept, tasks aside. Quality on text does not depend on the mmproj, so it is kept
apart from quality on pictures: one result serves every mmproj."""


@dataclass
class MeasuredRun:
    """State of one configuration while it is measured.

    Attributes:
        planned: the configuration.
        status, error: see `Row`.
        knows_earlier: whether an earlier benchmark measured some of it.
    """

    planned: PlannedRun
    status: Status = "not run"
    error: str = ""
    knows_earlier: bool = False
    _keys: dict[_Kept, Key] = field(default_factory=dict)
    _known: dict[_Kept, Any] = field(default_factory=dict)
    _task_keys: list[Key] = field(default_factory=list)
    _tasks: dict[int, AccuracyResult] = field(default_factory=dict)
    _best_of_keys: list[Key] = field(default_factory=list)
    _best_of: dict[int, BestOfResult] = field(default_factory=dict)

    @property
    def has_quality(self) -> bool:
        """Whether all requested parts of its quality are known."""
        wanted = self._keys.keys() & {"text", "pictures"}
        return bool(wanted) and wanted <= self._known.keys()

    def row(self) -> Row:
        """Return the row of the report, with the results known so far."""
        return Row(
            self.planned.configuration,
            self.status,
            self.error,
            speed=self._known.get("speed"),
            memory=self._known.get("memory"),
            quality=self._quality(),
            accuracy=tuple(self._tasks[number] for number in sorted(self._tasks)),
            best_of=tuple(self._best_of[number] for number in sorted(self._best_of)),
        )

    def _quality(self) -> QualityResult | None:
        """Return quality on text and on pictures in one result; None if neither is known."""
        text: QualityResult | None = self._known.get("text")
        pictures: QualityResult | None = self._known.get("pictures")
        if text is None or pictures is None:
            return text or pictures
        return replace(pictures, text=text.text)

    def look_up(
        self, identity: RunIdentity, measurements: MeasurementSettings, reference: Reference | None, store: Store
    ) -> None:
        """Load the results of earlier runs.

        Args:
            identity: files and settings by content.
            measurements: the requested parts.
            reference: the configuration that quality is measured against; None leaves quality out.
            store: where results are kept.

        Raises:
            InvalidRequestError, PictureError: a set cannot be read.
        """
        if "speed" in measurements.parts:
            self._keys["speed"] = identity.speed_key(measurements)
        if "memory" in measurements.parts:
            self._keys["memory"] = identity.memory_key()
        if reference and measurements.text != OFF:
            self._keys["text"] = identity.text_key(reference.identity, measurements)
        if reference and measurements.pictures != OFF:
            self._keys["pictures"] = identity.pictures_key(reference.identity, measurements)
        if "accuracy" in measurements.parts:
            self._task_keys = [identity.accuracy_key(task) for task in measurements.tasks]
        if measurements.best_of:
            self._best_of_keys = [identity.best_of_key(task, measurements.best_of) for task in measurements.tasks]
        for part, key in self._keys.items():
            found = store.get(part, key, _KINDS[part])
            if found is not None and not _is_disturbed(found):
                self._known[part] = found
                self.knows_earlier |= not store.wrote(part, key)
        for number, key in enumerate(self._task_keys):
            result = store.get("accuracy", key, AccuracyResult)
            if result is not None:
                self._tasks[number] = result
                self.knows_earlier |= not store.wrote("accuracy", key)
        for number, key in enumerate(self._best_of_keys):
            several = store.get("best_of", key, BestOfResult)
            if several is not None:
                self._best_of[number] = several
                self.knows_earlier |= not store.wrote("best_of", key)

    def job(self, files: ModelFiles, measurements: MeasurementSettings, quality: ScoringJob | None) -> Job:
        """Return the job that measures what is still missing.

        Args:
            files: on this machine.
            measurements: the requested parts.
            quality: how to measure all of its quality; None leaves quality out.
        """
        missing = self._keys.keys() - self._known.keys()
        several = tuple(measurements.tasks[number] for number in self._open_best_of())
        if quality:
            quality = replace(
                quality,
                text=quality.text if "text" in missing else OFF,
                pictures=quality.pictures if "pictures" in missing else OFF,
            )
        return replace(
            self.scoring_job(files, quality if missing & {"text", "pictures"} else None),
            speed=measurements.speed_job(self.planned.run_config) if "speed" in missing else None,
            memory="memory" in missing,
            tasks=tuple(measurements.tasks[number] for number in self._open_tasks()),
            best_of=BestOfJob(measurements.best_of, several) if measurements.best_of and several else None,
        )

    def scoring_job(self, files: ModelFiles, quality: ScoringJob | None) -> Job:
        """Return a job that measures quality alone, whether it is known or not."""
        engine = {**self.planned.run_config.engine}
        return Job(str(files.text.absolute()), str(files.mmproj.absolute()), engine, quality=quality)

    def take(self, result: PartResult, store: Store) -> None:
        """Save the result of a part; results of tasks arrive in the order of the job.

        Raises:
            OSError: the result cannot be written to disk; it is known in this run only.
        """
        if isinstance(result, SpeedResult):
            self._keep("speed", result, store)
        elif isinstance(result, MemoryResult):
            self._keep("memory", result, store)
        elif isinstance(result, AccuracyResult):
            number = self._open_tasks()[0]
            self._tasks[number] = result
            store.put("accuracy", self._task_keys[number], result)
        elif isinstance(result, BestOfResult):
            number = self._open_best_of()[0]
            self._best_of[number] = result
            store.put("best_of", self._best_of_keys[number], result)
        else:
            if result.pictures:
                self._keep("pictures", replace(result, text=None), store)
            if result.text:
                self._keep("text", replace(result, pictures=None, skipped=0), store)

    def _keep(self, part: _Kept, result: PartResult, store: Store) -> None:
        self._known[part] = result
        if not _is_disturbed(result):  # else the next run measures it again
            store.put(part, self._keys[part], result)

    def _open_tasks(self) -> list[int]:
        return [number for number in range(len(self._task_keys)) if number not in self._tasks]

    def _open_best_of(self) -> list[int]:
        return [number for number in range(len(self._best_of_keys)) if number not in self._best_of]


def _is_disturbed(result: object) -> bool:
    return isinstance(result, SpeedResult) and result.is_disturbed


def with_losses_apart(rows: list[Row], crossed: list[tuple[int | None, int | None]]) -> tuple[Row, ...]:
    """Return the rows with the loss of their quant alone and of their mmproj alone, taken from other rows.

    Args:
        rows: as they were measured.
        crossed: for each row, see `BenchmarkPlan.crossed`.
    """

    def of(index: int | None) -> Any:
        quality = None if index is None else rows[index].quality
        return quality.pictures if quality else None

    return tuple(
        replace(row, quality=replace(row.quality, quant_alone=of(quant), mmproj_alone=of(mmproj)))
        if row.quality
        else row
        for row, (quant, mmproj) in zip(rows, crossed, strict=True)
    )
