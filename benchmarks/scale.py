"""Pictures a day and what they cost, by the rates that were measured, and where more machines stop helping.

Method. `docs/scale.json` has what `bulk_workers.py` and `ray_overhead.py` measured; `pipeline.py` simulates a cluster
with those rates. A GPU's rates are no measurement: they are the planner's estimate for a typical consumer card, a
range, both ends of which are given. Prices, the storage's rate and the size of pictures are assumptions that stand in
the tables.

    python benchmarks/scale.py [--write docs/scale.md]

The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import measure
import model_headers as headers
from internvl_gguf.gguf.header import read_header
from internvl_gguf.hardware.device_speed import Range
from internvl_gguf.memory import MemoryRequest, shape_from_headers
from internvl_gguf.planning.speed_estimate import SpeedEstimate, estimate_speed
from pages import write_between_markers
from pipeline import STAGES, Rates, simulate, steady

DAY: Final = 86_400
MEASURED: Final = Path(__file__).parents[1] / "docs" / "scale.json"
PARALLEL: Final = 8  # answers at once on a GPU
PROMPT_TOKENS, ANSWER_TOKENS, TILE_TOKENS = 100, 60, 256
TILES: Final = 5  # a picture with --max-tiles 4 and its thumbnail
PICTURE_BYTES, STORAGE_BYTES = 500_000, 1.25e9  # a second: a line of 10 Gbit/s
SHAPE, QUANT = "7B", "Q4_K_M"  # the text part of InternVL3-8B
ACTORS: Final = (1, 8, 32, 100, 400)
FAST_DEVICE, SMALL_PICTURE = 0.02, 0.01  # seconds


@dataclass(frozen=True)
class Machine:
    """A kind of machine in the table.

    Attributes:
        name: of it.
        actors: models that answer at once.
        seconds: what a picture takes one of them, at best and at worst.
        price: dollars an hour of all of it, assumed; None for one that is there.
    """

    name: str
    actors: int
    seconds: Range
    price: float | None


def of_gpu() -> SpeedEstimate:
    """The planner's estimate for a typical consumer GPU that holds all of the model."""
    text, vision = headers.TEXT[SHAPE], headers.VISION["InternViT-300M"]
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "text.gguf"), Path(folder, "mmproj.gguf")
        tensors = headers.text_tensors(text, QUANT)
        headers.write_sparse(paths[0], headers.text_header(text, QUANT), tensors)
        tensors = headers.mmproj_tensors(vision, "F16", text.n_embd)
        headers.write_sparse(paths[1], headers.mmproj_header(vision, "F16", text.n_embd), tensors)
        shape = shape_from_headers(*map(read_header, paths))
    request = MemoryRequest(
        n_ctx=4096,
        n_parallel=PARALLEL,
        flash_attn=True,
        gpus=(1.0,),
        n_gpu_layers=-1,
        mmproj_gpu=0,
        pictures=1,
        tiles=TILES,
        tiles_per_batch=4,
    )
    return estimate_speed(shape, request, None, tiles_per_picture=TILES, depth=PROMPT_TOKENS + TILES * TILE_TOKENS)


def seconds_of_picture(speed: SpeedEstimate) -> Range:
    """What a picture takes one GPU: its tiles, its prompt, and its answer beside others.

    At best the answers at once share each reading of the weights, at worst they cost what they would alone.
    """
    answer = speed.decode.amount_over(ANSWER_TOKENS)
    found = Range(answer.low / PARALLEL, answer.high)
    found += speed.prefill.amount_over(PROMPT_TOKENS + TILES * TILE_TOKENS)
    assert speed.tile_seconds is not None
    return found + speed.tile_seconds.times(TILES)


def of_cpu(measured: dict[str, Any], key: str, model: str) -> Machine:
    """The CPU that was measured, with the better number of workers."""
    own = measured[key]
    rate = max(each["median"] for each in own["workers"].values())
    name = f"{measured['cpu']}, 2 cores; {model}, 1 tile, {own['answer']} tokens (measured)"
    return Machine(name, 1, Range(1 / rate, 1 / rate), 0.10)


def day_table(measured: dict[str, Any], gpu: Range) -> list[str]:
    """Pictures a day by machine, and dollars for a million."""
    machines = (
        of_cpu(measured, "demo", "demo model"),
        of_cpu(measured, "1B", "a stand-in for InternVL3-1B"),
        Machine(f"1 consumer GPU; 8B {QUANT}, {TILES} tiles, {ANSWER_TOKENS} tokens (estimated)", 1, gpu, 0.50),
        Machine("8 of them in one machine", 8, gpu, 4.0),
        Machine("100 machines with one each", 100, gpu, 50.0),
    )
    rows = []
    for machine in machines:
        found = [machine.actors / seconds for seconds in (machine.seconds.high, machine.seconds.low)]
        days = " to ".join(dict.fromkeys(_thousands(rate * DAY) for rate in found))
        price = machine.price
        costs = [] if price is None else [price / 3600 / rate * 1e6 for rate in reversed(found)]
        cost = " to ".join(dict.fromkeys(_thousands(each) for each in costs)) if costs else "-"
        rows.append([machine.name, days, f"{price:.2f}" if price is not None else "-", cost])
    return measure.table(["machine", "pictures a day", "$/h, assumed", "$ for a million"], rows).splitlines()


def cluster_rates(measured: dict[str, Any], gpu: Range) -> Rates:
    """Rates of a cluster of GPUs whose storage, decoding and driver were measured, or are assumed as the page says."""
    stages = measured["demo"]["stages"]
    return Rates(
        read=PICTURE_BYTES / STORAGE_BYTES,
        prepare=1 / stages["photographs decoded and cut, --max-tiles 4"],
        device=(gpu.low + gpu.high) / 2,
        driver=1 / measured["driver_rows_a_second"],
    )


def saturation_table(rates: Rates) -> tuple[list[str], list[dict[str, Any]]]:
    """How busy each stage is with more and more actors, and which is full first."""
    rows, found = [], []
    for actors in ACTORS:
        outcome = steady(rates, actors, batches=8)
        busy = {stage: outcome.busy[stage] for stage in STAGES}
        rows.append(
            [str(actors), f"{outcome.rate:,.1f}", *(f"{busy[stage]:.0%}" for stage in STAGES), outcome.bottleneck]
        )
        found.append({"actors": actors, "rate": outcome.rate, "busy": busy, "bottleneck": outcome.bottleneck})
    table = measure.table(["actors", "pictures/s", *STAGES, "fullest"], rows)
    return table.splitlines(), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the tables into a page")
    arguments = parser.parse_args()
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    gpu = seconds_of_picture(of_gpu())
    rates = cluster_rates(measured, gpu)
    days = day_table(measured, gpu)
    fast = replace(rates, device=FAST_DEVICE)
    cases = (
        ("The estimated card", rates),
        ("A device that takes 20 ms, with photographs of 12 megapixels", fast),
        ("The same with pictures that a core decodes and cuts in 10 ms", replace(fast, prepare=SMALL_PICTURE)),
    )
    tables: list[str] = []
    found = []
    for name, case in cases:
        table, outcomes = saturation_table(case)
        tables += ["", f"{name}:", "", *table]
        found.append({"case": name, "clusters": outcomes})
    checked = measured["ray"]
    one, two = (checked["sides"][name]["steady"]["median"] for name in ("1 actors", "2 actors"))
    predicted = simulate(Rates(0, 0, 1 / one, rates.driver), 2, checked["pictures"]).rate
    lines = [
        *days,
        "",
        f"Clusters, simulated: {rates.device:.2f} s a picture on a device, {rates.prepare * 1000:.0f} ms of a core to "
        f"decode and cut it, {rates.read * 1000:.2f} ms at the storage, {rates.driver * 1000:.2f} ms at the driver.",
        *tables,
        "",
        f"Checked against a real run: with {one:.1f} pictures/s of one actor the simulation says {predicted:.1f} for "
        f"two; measured were {two:.1f}.",
    ]
    print("\n".join(lines))
    if arguments.write:
        write_between_markers(arguments.write, "scale", lines)
    print(json.dumps({"benchmark": "scale", "gpu_seconds": [gpu.low, gpu.high], "clusters": found, "two": predicted}))


def _thousands(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 1 else f"{value:.2g}"


if __name__ == "__main__":
    main()
