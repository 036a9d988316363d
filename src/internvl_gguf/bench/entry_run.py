"""One configuration of a benchmark: what is known of it, what is still to be measured, and keeping it."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from internvl_gguf.bench.jobs import Job, PartResult, Scoring
from internvl_gguf.bench.keys import Subject
from internvl_gguf.bench.plan import Entry, Measures
from internvl_gguf.bench.quality.sets import OFF
from internvl_gguf.bench.results import AccuracyResult, MemoryResult, QualityResult, Row, SpeedResult, Status
from internvl_gguf.bench.store import Key, Store, digest_of
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.utils.records import BENCHMARKS

_KEPT_REFERENCES: Final = 2  # each takes 0.3 MB a token at a vocabulary of 151,674


@dataclass(frozen=True)
class Reference:
    """What quality is measured against.

    Attributes:
        subject: the configuration.
        folder: where its distributions are.
    """

    subject: Subject
    folder: Path

    @classmethod
    def of(cls, subject: Subject, measures: Measures) -> Reference:
        """The distributions of a configuration, written or not.

        Raises:
            InvalidRequestError, PictureError: a set cannot be read.
        """
        return cls(subject, _references() / digest_of(subject.reference_key(measures)))

    def is_written(self, measures: Measures) -> bool:
        """Whether its distributions are here: a file for each set."""
        wanted = [measures.text, measures.pictures]
        return len(list(self.folder.glob("*.reference"))) == len(wanted) - wanted.count(OFF)

    def keep(self) -> None:
        """Remove those of other references, but for the few that were used last."""
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
"""What is kept of a configuration beside its tasks. Both halves of its quality: that on text has nothing to do with the
mmproj, and so is one for all of a text model."""


@dataclass
class EntryRun:
    """One configuration while it is measured.

    Attributes:
        entry: the configuration.
        status, error: as in `Row`.
        knows_earlier: whether some of it was measured by an earlier run.
    """

    entry: Entry
    status: Status = "not run"
    error: str = ""
    knows_earlier: bool = False
    _keys: dict[_Kept, Key] = field(default_factory=dict)
    _known: dict[_Kept, Any] = field(default_factory=dict)
    _task_keys: list[Key] = field(default_factory=list)
    _tasks: dict[int, AccuracyResult] = field(default_factory=dict)

    @property
    def has_quality(self) -> bool:
        """Whether all that is wanted of its quality is known."""
        wanted = self._keys.keys() & {"text", "pictures"}
        return bool(wanted) and wanted <= self._known.keys()

    def row(self) -> Row:
        """What the report says of it."""
        return Row(
            self.entry.configuration,
            self.status,
            self.error,
            speed=self._known.get("speed"),
            memory=self._known.get("memory"),
            quality=self._quality(),
            accuracy=tuple(self._tasks[number] for number in sorted(self._tasks)),
        )

    def _quality(self) -> QualityResult | None:
        """Both halves together; None where none is known."""
        text: QualityResult | None = self._known.get("text")
        pictures: QualityResult | None = self._known.get("pictures")
        if text is None or pictures is None:
            return text or pictures
        return replace(pictures, text=text.text)

    def look_up(self, subject: Subject, measures: Measures, reference: Reference | None, store: Store) -> None:
        """Take what was measured before.

        Args:
            subject: the configuration by content.
            measures: what is wanted.
            reference: what quality is measured against; None leaves quality out.
            store: where results are kept.

        Raises:
            InvalidRequestError, PictureError: a set cannot be read.
        """
        if "speed" in measures.parts:
            self._keys["speed"] = subject.speed_key(measures)
        if "memory" in measures.parts:
            self._keys["memory"] = subject.memory_key()
        if reference and measures.text != OFF:
            self._keys["text"] = subject.text_key(reference.subject, measures)
        if reference and measures.pictures != OFF:
            self._keys["pictures"] = subject.pictures_key(reference.subject, measures)
        if "accuracy" in measures.parts:
            self._task_keys = [subject.accuracy_key(task) for task in measures.tasks]
        for part, key in self._keys.items():
            found = store.get(part, key, _KINDS[part])
            if found is not None:
                self._known[part] = found
                self.knows_earlier |= not store.wrote(part, key)
        for number, key in enumerate(self._task_keys):
            result = store.get("accuracy", key, AccuracyResult)
            if result is not None:
                self._tasks[number] = result
                self.knows_earlier |= not store.wrote("accuracy", key)

    def job(self, files: ModelFiles, measures: Measures, quality: Scoring | None) -> Job:
        """What is still to be measured.

        Args:
            files: here.
            measures: what is wanted.
            quality: how all of its quality would be measured; None leaves it out.
        """
        missing = self._keys.keys() - self._known.keys()
        if quality:
            quality = replace(
                quality,
                text=quality.text if "text" in missing else OFF,
                pictures=quality.pictures if "pictures" in missing else OFF,
            )
        return replace(
            self.scoring_job(files, quality if missing & {"text", "pictures"} else None),
            speed=measures.speed_job(self.entry.point) if "speed" in missing else None,
            memory="memory" in missing,
            tasks=tuple(measures.tasks[number] for number in self._open_tasks()),
        )

    def scoring_job(self, files: ModelFiles, quality: Scoring | None) -> Job:
        """Quality alone, whether it is known or not."""
        engine = {**self.entry.point.engine}
        return Job(str(files.text.absolute()), str(files.mmproj.absolute()), engine, quality=quality)

    def take(self, result: PartResult, store: Store) -> None:
        """A part was measured; tasks come in the order of the job.

        Raises:
            OSError: it cannot be kept, and is known for this time only.
        """
        if isinstance(result, SpeedResult):
            self._keep("speed", result, store)
        elif isinstance(result, MemoryResult):
            self._keep("memory", result, store)
        elif isinstance(result, AccuracyResult):
            number = self._open_tasks()[0]
            self._tasks[number] = result
            store.put("accuracy", self._task_keys[number], result)
        else:
            if result.pictures:
                self._keep("pictures", replace(result, text=None), store)
            if result.text:
                self._keep("text", replace(result, pictures=None, skipped=0), store)

    def _keep(self, part: _Kept, result: PartResult, store: Store) -> None:
        self._known[part] = result
        store.put(part, self._keys[part], result)

    def _open_tasks(self) -> list[int]:
        return [number for number in range(len(self._task_keys)) if number not in self._tasks]


def with_losses_apart(rows: list[Row], crossed: list[tuple[int | None, int | None]]) -> tuple[Row, ...]:
    """Rows with what their quant and their mmproj lose alone, which other rows tell.

    Args:
        rows: as they were measured.
        crossed: for each row the two that have only one of its halves beside the reference's other; None for none.
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
