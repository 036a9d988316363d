"""Pictures a second of a batch by one and by several workers, and of each stage of it alone.

Method. Pictures that differ, JPEG files of one tile each, are asked about by `internvl_gguf.bulk.answer_lines`, as
`internvl ask --batch` does: without workers and with as many as --workers names, which share the CPU threads. Nothing
comes from the disk cache. A round runs every side once, in an order that changes; the first round is a warm-up.
Reported are pictures a second from the moment when the first model is loaded to the last answer, the tail included, and
their ratio to one worker's.

The stages, each alone in this process and with nothing else running: decoding a photograph of 12 megapixels, decoding
and cutting it into tiles with --max-tiles 1, 4 and 12, hashing a tile, reading and checking a line, making and writing
its record, handing a line out and taking its outcome (with both messages pickled and read again) - these with one
thread, for each process has its own; encoding a tile, reading a prompt and writing an answer with all threads.

    python benchmarks/bulk_workers.py [--model TEXT.gguf] [--mmproj MMPROJ.gguf] [--workers 1,2] [--pictures N]
                                      [--parallel N] [--threads N] [--rounds N] [--quick]

Without --model the embedded demo model is measured; --quick is one short round. Run with nothing else on the machine.
The last line of the output is one JSON document.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import measure
from internvl_gguf import Session
from internvl_gguf.bulk.answer_lines import answer_lines
from internvl_gguf.bulk.answerer import Answered, Answering, LoadedFacts, PlacedLine
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.dispatcher import Dispatcher, HandOut
from internvl_gguf.bulk.lines import Line, read_lines
from internvl_gguf.bulk.pool import Told
from internvl_gguf.bulk.records import as_line, record_of
from internvl_gguf.bulk.worker_messages import LineAnswered, Lines
from internvl_gguf.config import EngineConfig, SamplingParams
from internvl_gguf.images.load import load_image
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session.cut_pictures import tile_key
from internvl_gguf.types import Reply, Timings, Usage
from ours import jpeg, noise

ANSWER: Final = 16  # tokens
PICTURES, QUICK_PICTURES = 32, 6
STAGE_SECONDS, QUICK_STAGE_SECONDS = 3.0, 0.05
PHOTOGRAPH, QUICK_PHOTOGRAPH = (9, 7), (2, 2)  # in tiles of 448 pixels: 12.6 megapixels
TILES: Final = (1, 4, 12)
WORDS: Final = "What is shown here, and what is written on it? Answer in one sentence."


def numbers(text: str) -> tuple[int, ...]:
    """Numbers of workers, for arguments; one is always among them."""
    return tuple(sorted({1, *map(measure.positive, text.split(","))}))


def lines_about(folder: Path, count: int, tile_size: int, seed: int = 0) -> list[PlacedLine]:
    """Lines about pictures that no other seed has."""
    lines = []
    for place in range(count):
        path = folder / f"{seed}-{place}.jpg"
        path.write_bytes(jpeg(noise(1, 1, tile_size, seed=1000 * seed + place)))
        data = json.dumps({"id": place, "prompt": WORDS, "images": [str(path)]}).encode()
        lines.append(PlacedLine(place, Line(place + 1, data)))
    return lines


def pictures_a_second(answering: Answering, lines: Sequence[PlacedLine], workers: int, _turn: int) -> float:
    """One run of all lines."""
    began: list[float] = []
    ended: list[float] = []

    def ready(_facts: LoadedFacts, _devices: int) -> None:
        began.append(time.perf_counter())

    def answered(each: Answered) -> None:
        if not isinstance(each.outcome, Reply):
            raise SystemExit(str(each.outcome))
        ended.append(time.perf_counter())

    def nothing(_: object) -> None:
        pass

    answer_lines(answering, lines, len(lines), Told(answered, nothing, nothing, nothing, ready), workers)
    found = len(lines) / (ended[-1] - began[0])
    print(f"{workers} workers: {measure.number(found)} pictures/s", file=sys.stderr, flush=True)
    return found


def rate(work: Callable[[], int], seconds: float) -> float:
    """How many a second a piece of work does, which returns how many it did; a first time does not count."""
    work()
    done, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        done += work()
    return done / elapsed


def stages_of_a_process(
    files: ModelFiles, lines: Sequence[PlacedLine], seconds: float, grid: tuple[int, int]
) -> dict[str, float]:
    """Rates of the stages that each process has for itself, with one thread."""
    photograph = jpeg(noise(*grid, 448, seed=7))
    pixels = noise(1, 1, 448, seed=8).tobytes()
    common = Common(model=files.text.name, encoder=files.mmproj.name, sampling=SamplingParams(max_tokens=ANSWER))
    reply = Reply(WORDS, "stop", Usage(300, 40, 16, 1, 1, 1), Timings(0.01, 1.0, 0.1, 1.2, 0.5, 30.0))
    file = io.BytesIO()

    def decoded() -> int:
        load_image(photograph)
        return 1

    def cut(most: int) -> int:
        TileLimits(max_tiles=most).cut(load_image(photograph), 448)
        return 1

    def hashed() -> int:
        tile_key(b"encoder", pixels)
        return 1

    def read() -> int:
        for line in read_lines(each.line.data for each in lines):
            common.question_of(line)
        return len(lines)

    def recorded() -> int:
        file.seek(0)
        for each in lines:
            file.write(as_line(record_of(each.line, reply, common)))
        return len(lines)

    def handed_out() -> int:
        dispatcher: Dispatcher[int] = Dispatcher(lines)
        for worker in range(2):
            dispatcher.add(worker, 4)
        while not dispatcher.is_done:
            for move in dispatcher.moves():
                if isinstance(move, HandOut):
                    sent = pickle.loads(pickle.dumps(Lines(move.lines), 5))
                    for line in sent.lines:
                        came = pickle.loads(pickle.dumps(LineAnswered(line.place, reply, False), 5))
                        dispatcher.answered(move.worker, came.place)
        return len(lines)

    found = {"photographs decoded": rate(decoded, seconds)}
    for most in TILES:
        found[f"photographs decoded and cut, --max-tiles {most}"] = rate(partial(cut, most), seconds)
    return {
        **found,
        "tiles hashed": rate(hashed, seconds),
        "lines read": rate(read, seconds),
        "records written": rate(recorded, seconds),
        "lines handed out": rate(handed_out, seconds),
    }


def stages_of_the_model(
    files: ModelFiles, options: Mapping[str, Any], tile_size: int, seconds: float
) -> dict[str, float]:
    """Rates of the stages that the model computes, one question at a time."""
    with Session.open(files.text, files.mmproj, **{**options, "n_parallel": 1}) as session:
        seeds = iter(range(10**6, 2 * 10**6))

        def encoded() -> int:
            return len(session.embed_image(noise(1, 1, tile_size, seed=next(seeds)), max_tiles=1))

        tiles = rate(encoded, seconds)
        session.clear()
        reply = session.ask(" ".join([WORDS] * 8), max_tokens=ANSWER)
        read = (reply.usage.prompt_tokens - reply.usage.cached_tokens) / reply.timings.prefill
        return {
            "tiles encoded": tiles,
            "tokens read": read,
            "tokens written": reply.timings.decode_tokens_per_second,
        }


def main() -> None:
    parser = measure.parser(__doc__, rounds=3, mmproj=True)
    parser.add_argument("--workers", type=numbers, default=(1, 2), help="numbers of workers: 1,2")
    parser.add_argument("--pictures", type=measure.positive, help=f"pictures of a run; {PICTURES} if left out")
    parser.add_argument("--parallel", type=measure.positive, default=4, help="questions that a worker answers at once")
    arguments = parser.parse_args()
    files = measure.model_files(arguments)
    count = arguments.pictures or (QUICK_PICTURES if arguments.quick else PICTURES)
    seconds = QUICK_STAGE_SECONDS if arguments.quick else STAGE_SECONDS
    engine = EngineConfig(
        n_ctx=1024, n_threads=arguments.threads, n_parallel=arguments.parallel, embedding_disk_bytes=0
    ).options
    with Session.open(files.text, files.mmproj, n_ctx=256, n_threads=1) as session:
        tile_size = session.runtime.vision.image_size
    opening = {"system": None, "max_tiles": 1, "min_tiles": None, "thumbnail": True, **engine}
    answering = Answering(files, opening, {}, Common(sampling=SamplingParams(max_tokens=ANSWER)))
    with tempfile.TemporaryDirectory() as folder:
        lines = lines_about(Path(folder), count, tile_size)
        sides = {str(workers): partial(pictures_a_second, answering, lines, workers) for workers in arguments.workers}
        found = measure.interleaved(sides, measure.rounds_of(arguments), warm_up=0 if arguments.quick else 1)
        stages = stages_of_a_process(files, lines, seconds, QUICK_PHOTOGRAPH if arguments.quick else PHOTOGRAPH)
    stages |= stages_of_the_model(files, engine, tile_size, seconds)
    rows, result = [], {}
    for name, values in found.items():
        spread, by_one = measure.Spread(tuple(values)), measure.ratios(values, found["1"])
        rows.append([name, str(spread), str(by_one)])
        result[name] = {**spread.as_json(), "by_one": by_one.median}
    print(f"{count} pictures of one tile, answers of {ANSWER} tokens, {arguments.parallel} at once in each worker.\n")
    print(measure.table(["workers", "pictures/s, median (range)", "vs one"], rows), end="\n\n")
    print(measure.table(["stage", "a second"], [[name, measure.number(value)] for name, value in stages.items()]))
    about = {"pictures": count, "parallel": arguments.parallel, "workers": result, "stages": stages}
    measure.last_line("bulk_workers", arguments, files.text, about)


if __name__ == "__main__":
    main()
