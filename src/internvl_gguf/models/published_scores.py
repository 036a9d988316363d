"""Benchmarks whose published scores the catalogue has, and the tasks that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from internvl_gguf.planning.task_scores import Task


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        title: its published name.
        full: full marks.
        tiles: most tiles of a picture, or of a frame, that it was measured with.
    """

    title: str
    full: int = 100
    tiles: int = 6


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "mmmu": Benchmark("MMMU", tiles=12),
    "chartqa": Benchmark("ChartQA", tiles=12),
    "docvqa": Benchmark("DocVQA", tiles=18),
    "infovqa": Benchmark("InfoVQA", tiles=24),
    "textvqa": Benchmark("TextVQA"),
    "ocrbench": Benchmark("OCRBench", 1000, tiles=24),
    "refcoco": Benchmark("RefCOCO"),
    "mvbench": Benchmark("MVBench", tiles=1),
    "videomme": Benchmark("Video-MME", tiles=1),
    "videomme_subtitles": Benchmark("Video-MME with subtitles", tiles=1),
    "reasoning": Benchmark("overall reasoning"),
}
"""By their keys in models.toml."""

TASKS: Final[Mapping[Task, tuple[str, ...]]] = {
    "ocr": ("ocrbench", "docvqa", "infovqa", "textvqa"),
    "charts": ("chartqa", "infovqa"),
    "reasoning": ("mmmu",),
    "video": ("videomme", "mvbench"),
    "grounding": ("refcoco",),
}
"""The benchmarks of each task, which count alike."""


@dataclass(frozen=True)
class PublishedScores:
    """Scores of an unquantised model.

    Attributes:
        source: where they were published.
        figures: by keys of `BENCHMARKS`, in the marks of each.
    """

    source: str
    figures: Mapping[str, float] = field(hash=False)

    def points(self) -> dict[Task, float]:
        """Return the points, of 100, of each task of which every benchmark is known: the mean of its benchmarks."""
        return {
            task: sum(100 * self.figures[key] / BENCHMARKS[key].full for key in keys) / len(keys)
            for task, keys in TASKS.items()
            if all(key in self.figures for key in keys)
        }


def tiles_of(task: Task) -> tuple[int, int]:
    """Return the fewest and the most tiles of a picture that the benchmarks of a task were measured with."""
    tiles = [BENCHMARKS[key].tiles for key in TASKS[task]]
    return min(tiles), max(tiles)


def benchmarks_of(task: Task) -> str:
    """Return the names of a task's benchmarks: "ChartQA and InfoVQA"."""
    *first, last = (BENCHMARKS[key].title for key in TASKS[task])
    return f"{', '.join(first)} and {last}" if first else last
