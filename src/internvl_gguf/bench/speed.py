"""Measure the speed of a configuration in the process that has loaded it.

Prefill and decode are measured as in llama-bench (`test_prompt` and `test_gen` in tools/llama-bench/llama-bench.cpp):
random tokens, an empty cache before each run, for decode one token at a time and no sampling, so that no answer ends
early. Parallel decoding is measured as in llama-batched-bench. The time to the first token is that of a real question,
with a picture and the chat template, and with empty caches.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.jobs import SpeedJob
from internvl_gguf.bench.local_runtime import local_runtime
from internvl_gguf.bench.results import SpeedResult, Spread
from internvl_gguf.config import EngineOptions, SamplingParams
from internvl_gguf.llama.context import TokenRun

if TYPE_CHECKING:
    from internvl_gguf.engine import Engine
    from internvl_gguf.llama.context import Context
    from internvl_gguf.session import Session

StageProgress = Callable[[str, float], None]
"""Called with the measurement in progress and the fraction of it that is done, 0 to 1."""
Opener = Callable[[EngineOptions], "Session"]
"""Opens a session; the given settings replace those of the job."""

QUESTION: Final = "What is in the picture?"
_SEED: Final = 1
_RGB: Final = 3
_WHITE: Final = (255, 255, 255)


@dataclass(frozen=True)
class Rates:
    """Results of the measurements on one open session; see `SpeedResult`."""

    tile: Spread
    prefill: Spread
    decode: Spread
    time_to_first_token: Spread
    picture_tiles: int


def measure_rates(session: Session, job: SpeedJob, on_progress: StageProgress) -> Rates:
    """Measure seconds a tile, prefill, decode and the time to the first token, each after one warm-up run.

    Raises:
        InternVLError: llama.cpp refused, or the model computes what is no number.
    """
    engine = local_runtime(session).engine
    n_vocab = engine.model.n_vocab
    draw = random.Random(_SEED)
    prompt = [draw.randrange(n_vocab) for _ in range(job.n_prompt)]
    answer = [draw.randrange(n_vocab) for _ in range(job.n_gen)]
    with _cache_alone(engine) as context:
        prefill = _repeated("prefill", job.repetitions, on_progress, lambda: _read_prompt(context, prompt))
        decode = _repeated("decode", job.repetitions, on_progress, lambda: _decode(context, answer))
    tile = _repeated("encode", job.repetitions, on_progress, lambda: _encode(engine, session.runtime.vision.image_size))
    tiles = 0

    def ask() -> float:
        nonlocal tiles
        seconds, tiles = ask_about_picture(session)
        return seconds

    first = _repeated("first token", job.repetitions, on_progress, ask)
    return Rates(
        tile=Spread.of(tile),
        prefill=Spread.of([job.n_prompt / seconds for seconds in prefill]),
        decode=Spread.of([job.n_gen / seconds for seconds in decode]),
        time_to_first_token=Spread.of(first),
        picture_tiles=tiles,
    )


def measure_loads(open_session: Opener, repetitions: int, on_progress: StageProgress) -> Spread:
    """Measure the seconds to open a session, with the files in the page cache."""
    seconds = []
    for done in range(repetitions):
        on_progress("load", done / repetitions)
        started = time.perf_counter()
        session = open_session({})
        seconds.append(time.perf_counter() - started)
        session.close()
    return Spread.of(seconds)


def measure_parallel(open_session: Opener, job: SpeedJob, on_progress: StageProgress) -> Spread | None:
    """Measure the tokens a second of `job.parallel` answers decoded together; None for one answer.

    The context has just the positions that the answers need.
    """
    if job.parallel == 1:
        return None
    with open_session({"n_parallel": job.parallel, "n_ctx": job.n_gen}) as session:
        engine = local_runtime(session).engine
        draw = random.Random(_SEED)
        rows = [[draw.randrange(engine.model.n_vocab) for _ in range(job.parallel)] for _ in range(job.n_gen)]
        with _cache_alone(engine) as context:
            seconds = _repeated("decode in parallel", job.repetitions, on_progress, lambda: _decode_rows(context, rows))
    return Spread.of([job.parallel * job.n_gen / each for each in seconds])


def speed_result(job: SpeedJob, rates: Rates, load: Spread, parallel: Spread | None) -> SpeedResult:
    """Collect all measurements in one result."""
    return SpeedResult(
        load=load,
        tile=rates.tile,
        prefill=rates.prefill,
        decode=rates.decode,
        time_to_first_token=rates.time_to_first_token,
        decode_parallel=parallel,
        prompt_tokens=job.n_prompt,
        answer_tokens=job.n_gen,
        parallel=job.parallel,
        picture_tiles=rates.picture_tiles,
    )


def ask_about_picture(session: Session) -> tuple[float, int]:
    """Ask about a picture with empty caches; return the seconds to the first token, and the picture's tiles."""
    engine = local_runtime(session).engine
    picture = built_in_picture(session.runtime.vision.image_size)
    session.clear()
    engine.forget()
    engine.cache.clear()
    started = time.perf_counter()
    # Not the reply's own time: an answer that ends at once has no first token.
    reply = session.ask(QUESTION, [picture], sampling=SamplingParams(max_tokens=1))
    return time.perf_counter() - started, reply.usage.tiles


def built_in_picture(tile_size: int) -> bytes:
    """Return a PNG of two by two tiles: circles of many colours on a gradient, the same each time."""
    from PIL import Image, ImageDraw

    side = 2 * tile_size
    picture = Image.linear_gradient("L").resize((side, side)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    draw = random.Random(_SEED)
    for _ in range(24):
        x, y, radius = draw.randrange(side), draw.randrange(side), draw.randrange(side // 40 + 1, side // 6 + 2)
        colour = tuple(draw.randrange(256) for _ in range(_RGB))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=_WHITE)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@contextmanager
def _cache_alone(engine: Engine) -> Iterator[Context]:
    """Yield the engine's context for direct use; its KV cache is empty before and after."""
    engine.forget()
    try:
        yield engine.context
    finally:
        _empty(engine.context)


def _empty(context: Context) -> None:
    for sequence in range(context.n_sequences):
        context.cut(sequence, 0)


def _repeated(what: str, repetitions: int, on_progress: StageProgress, run: Callable[[], float]) -> list[float]:
    """Return the results of `repetitions` calls of `run`, after one warm-up call."""
    found = []
    for done in range(repetitions + 1):
        on_progress(what, done / (repetitions + 1))
        found.append(run())
    return found[1:]


def _read_prompt(context: Context, tokens: list[int]) -> float:
    _empty(context)
    started = time.perf_counter()
    fill(context, tokens)
    return time.perf_counter() - started


def fill(context: Context, tokens: list[int], on_batch: Callable[[int], None] = lambda done: None) -> None:
    """Decode tokens into the first sequence from its beginning, in batches of the context's size.

    Args:
        context: its first sequence is empty.
        tokens: at most as many as it has positions.
        on_batch: called with the number of tokens decoded so far.
    """
    for start in range(0, len(tokens), context.n_batch):
        on_batch(start)
        (row,) = context.decode_many([TokenRun(tokens[start : start + context.n_batch], start, 0, 1)])
        context.likeliest_token(row)  # waits for a GPU, and finds weights that are not numbers


def _decode(context: Context, tokens: list[int]) -> float:
    _empty(context)
    started = time.perf_counter()
    for position, token in enumerate(tokens):
        context.decode_token(token, position, 0)
        context.likeliest_token()
    return time.perf_counter() - started


def _decode_rows(context: Context, rows: list[list[int]]) -> float:
    _empty(context)
    started = time.perf_counter()
    for position, row in enumerate(rows):
        runs = [TokenRun([token], position, sequence, 1) for sequence, token in enumerate(row)]
        for each in context.decode_many(runs):
            context.likeliest_token(each)
    return time.perf_counter() - started


def _encode(engine: Engine, tile_size: int) -> float:
    """Return the seconds a tile, measured on one batch of the encoder's preferred size."""
    vision = engine.vision
    if vision is None:
        raise ValueError("an engine without a vision encoder")
    pixels = random.Random(_SEED).randbytes(_RGB * tile_size * tile_size)
    started = time.perf_counter()
    vision.encode([pixels] * vision.tiles_per_batch)
    return (time.perf_counter() - started) / vision.tiles_per_batch
