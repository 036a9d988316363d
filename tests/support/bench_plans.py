"""Files and plans that tests of `internvl bench` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from internvl_gguf.bench.benchmark_plan import BenchmarkPlan, MeasurementSettings, make_plan
from internvl_gguf.bench.pairs import FilePair
from internvl_gguf.bench.sweep import Sweep
from internvl_gguf.bench.targets import PairFinder, RequestedModels
from internvl_gguf.hardware.cpu_tuning import HostSettings
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

FAST = Sweep(n_prompt=(32,), n_gen=(8,), engine={"n_ctx": (512,), "n_threads": (1,)})
SPEED = MeasurementSettings(frozenset({"speed"}), repetitions=1)
QUALITY = MeasurementSettings(frozenset({"quality"}), repetitions=1)
HOST = HostSettings(2, 4, 512)


def write_quants(path: Path) -> Path:
    """Three "quants" of a small model and two vision encoders, in a folder."""
    for seed, name in enumerate(("BF16", "Q8_0", "UD-Q4_K_XL")):
        write_tiny_text(path / f"tiny-{name}.gguf", seed=seed, n_ctx=2**27)
    for seed, name in enumerate(("F16", "Q8_0")):
        write_tiny_mmproj(path / f"mmproj-{name}.gguf", seed=seed)
    return path


def fast(**engine: tuple[Any, ...]) -> Sweep:
    """`FAST` with other values of fields of `EngineConfig`."""
    return replace(FAST, engine={**FAST.engine, **engine})


def find(*models: object, **wanted: Any) -> list[FilePair]:
    """The pairs of local models."""

    def refuse(*_: object) -> Any:
        raise AssertionError("neither the hub nor the demo model is asked for")

    said: list[str] = []
    return PairFinder(refuse, refuse, said.append).find(RequestedModels(tuple(map(str, models)), **wanted))[1]


def names(pairs: Sequence[FilePair]) -> list[tuple[str, str]]:
    return [(pair.text.label, pair.vision.label) for pair in pairs]


def planned(
    pairs: Sequence[FilePair],
    measurements: MeasurementSettings = SPEED,
    reference: str | None = None,
    sweep: Sweep = FAST,
) -> BenchmarkPlan:
    return make_plan("tiny", pairs, sweep, measurements, HOST, reference)


def resized(pair: FilePair, label: str, n_bytes: int) -> FilePair:
    return replace(pair, text=replace(pair.text, label=label, n_bytes=n_bytes, file=f"{label}.gguf"))
