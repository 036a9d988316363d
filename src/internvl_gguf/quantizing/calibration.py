"""Make an importance matrix: run a model over texts and pictures, and sum the squared inputs of its matrices.

Pictures go through the encoder with the official tiling and prompt, so that visual tokens, most of the input of an
InternVL, are weighted as in use.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from internvl_gguf.config import AskOptions, EngineConfig, GPULayers, PictureOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError, ModelFileError, PictureError
from internvl_gguf.gguf.validation import TextModelFacts
from internvl_gguf.hardware.cores import default_threads
from internvl_gguf.hardware.trial import find_usable_settings
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.llama.imatrix import ActivationContext
from internvl_gguf.llama.library import devices, gpus, initialise
from internvl_gguf.llama.model import TextModel
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.quantizing.calibration_set import CalibrationItem, CalibrationQuestion, CalibrationText, read_items
from internvl_gguf.quantizing.matrix import CHUNK, Activations, ImportanceMatrix
from internvl_gguf.quantizing.source import Source, open_source
from internvl_gguf.session.in_process_runtime import InProcessRuntime, text_needs
from internvl_gguf.session.prepare import prepare_question
from internvl_gguf.session.prompt_template import END, OFFICIAL_SYSTEM, with_system
from internvl_gguf.tiling import TileRange
from internvl_gguf.types import Span, TileSpan, TokenSpan
from internvl_gguf.utils.notices import Notice, log_notice

if TYPE_CHECKING:
    from numpy.typing import NDArray

ReadProgress = Callable[[int, int], None]
"""Called with the numbers of chunks and questions read and in all."""

_QUESTION_CONTEXT: Final = 4096  # a picture of 13 tiles and a conversation; more pictures are cut into fewer tiles
_PIECE: Final = 2**16  # characters of a text that are tokenised at once, and the rest of a line
_SPARE_GPU_BYTES: Final = 2 * 1024**3  # for the cache and the computation beside the weights


@dataclass(frozen=True)
class Calibration:
    """Result of a calibration run.

    Attributes:
        matrix: the importance matrix.
        chunks: number of text chunks read.
        questions: number of questions read.
        visual_tokens: number of visual tokens in them.
        skipped: number of questions left out because a picture was unreadable or the prompt did not fit.
    """

    matrix: ImportanceMatrix
    chunks: int
    questions: int
    visual_tokens: int
    skipped: int


def importance_matrix(
    text: Path,
    sources: Sequence[Path],
    *,
    mmproj: Path | None = None,
    n_threads: int | None = None,
    n_gpu_layers: GPULayers = "auto",
    max_chunks: int | None = None,
    force: bool = False,
    on_progress: ReadProgress | None = None,
    on_notice: Notice = log_notice,
) -> Calibration:
    """Run a model over texts and questions about pictures, and measure which inputs of its matrices matter.

    Args:
        text: the text model, in any precision; loaded whole.
        sources: text files, pictures, folders of them, and .jsonl files of questions; see `calibration_set`.
        mmproj: its vision encoder; needed for pictures.
        n_threads: CPU threads; None for one on each physical core.
        n_gpu_layers: see `Session.open`.
        max_chunks: most chunks of 512 tokens of all texts together; None reads them to their end.
        force: load a model that does not fit by the memory plan.
        on_progress: called with the progress.
        on_notice: called with notices about skipped questions and about pictures cut into fewer tiles.

    Raises:
        InvalidRequestError: a source that is missing, empty or of a wrong format; too little to read; pictures without
            a vision encoder.
        ModelFileError, ModelPairError: files that are missing, damaged, or not of one model.
        InsufficientMemoryError: a model that this machine has no memory for.
    """
    if max_chunks is not None and max_chunks < 1:
        raise InvalidRequestError(f"max_chunks is {max_chunks}.", "Read one chunk at least.")
    items = read_items(sources)
    source = open_source(text)
    if not isinstance(source.facts, TextModelFacts):
        raise ModelFileError(f"{text} is an mmproj, no text model.", "Name the text model, and this as its mmproj.")
    has_pictures = any(isinstance(item, CalibrationQuestion) for item in items)
    if has_pictures and mmproj is None:
        raise InvalidRequestError(
            f"Questions and pictures need the vision encoder of {text.name}.", "Name it: --mmproj FILE (mmproj=FILE)."
        )
    trained = source.facts.n_ctx_train
    threads = n_threads or default_threads()
    with ExitStack() as opened:
        runtime = None
        if has_pictures and mmproj is not None:
            n_ctx = min(_QUESTION_CONTEXT, trained)
            config = EngineConfig(n_ctx=n_ctx, n_threads=threads, n_gpu_layers=n_gpu_layers, force=force)
            runtime = InProcessRuntime(ModelFiles(text.name, text, mmproj), config, None, on_notice)
            opened.callback(runtime.release)
            model = runtime.engine.model
        else:
            n_ctx = min(CHUNK, trained)
            initialise()
            settled = find_usable_settings(text_needs(*source.headers))
            for notice in settled.notices:
                on_notice(notice)
            layers = _gpu_layers(n_gpu_layers, source)
            model = opened.enter_context(TextModel(text, n_gpu_layers=layers, use_extra_bufts=settled.extra_buffers))
        batch = min(CHUNK, n_ctx)
        context = opened.enter_context(ActivationContext(model, n_ctx=n_ctx, n_batch=batch, n_threads=threads))
        reader = _Reader(model, context, runtime, on_notice)
        reader.read(items, max_chunks, on_progress or (lambda done, count: None))
        return reader.result(tuple(path.name for path in sources))


def _gpu_layers(asked: GPULayers, source: Source) -> int:
    """Return the layers on GPUs for a model without its vision encoder: all if they fit, else none."""
    if asked != "auto":
        return asked
    found = gpus(devices())
    return -1 if source.n_bytes + _SPARE_GPU_BYTES * len(found) < sum(gpu.free_bytes for gpu in found) else 0


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text at line ends, so that only the part that is read is tokenised."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PIECE) + 1 or len(text)
        yield text[start:end]
        start = end


class _Reader:
    """Runs a model over calibration items, and counts them."""

    def __init__(
        self, model: TextModel, context: ActivationContext, runtime: InProcessRuntime | None, on_notice: Notice
    ) -> None:
        self._model = model
        self._context = context
        self._runtime = runtime
        self._on_notice = on_notice
        self._chunks = self._questions = self._visual_tokens = self._skipped = 0

    def read(self, items: Sequence[CalibrationItem], max_chunks: int | None, on_progress: ReadProgress) -> None:
        """Read everything, texts only up to `max_chunks`."""
        texts = (item for item in items if isinstance(item, CalibrationText))
        chunks = list(itertools.islice(itertools.chain.from_iterable(map(self._chunks_of, texts)), max_chunks))
        questions = [item for item in items if isinstance(item, CalibrationQuestion)]
        count = len(chunks) + len(questions)
        for done, chunk in enumerate(chunks):
            on_progress(done, count)
            self._context.clear()
            self._context.decode_tokens(chunk)
        self._chunks = len(chunks)
        for done, question in enumerate(questions, len(chunks)):
            on_progress(done, count)
            try:
                self._read_question(question)
            except (PictureError, InvalidRequestError) as error:
                self._skipped += 1
                self._on_notice(f"{question.label} is left out: {error.message}")
            else:
                self._questions += 1
        on_progress(count, count)

    def result(self, datasets: tuple[str, ...]) -> Calibration:
        """Return the result.

        Raises:
            InvalidRequestError: too little was read.
        """
        entries = {name: Activations(sums.squares, sums.rows) for name, sums in self._context.sums.items()}
        matrix = ImportanceMatrix(entries, datasets)
        if matrix.positions < CHUNK:
            left_out = f" ({self._skipped} of the questions could not be read)" if self._skipped else ""
            raise InvalidRequestError(
                f"There are {matrix.positions} tokens to calibrate with{left_out}: too few to tell what matters.",
                f"Give {CHUNK} at least; some ten thousand of all kinds are usual.",
            )
        return Calibration(matrix, self._chunks, self._questions, self._visual_tokens, self._skipped)

    def _chunks_of(self, text: CalibrationText) -> Iterator[list[int]]:
        """Yield the tokens of a text in chunks; the last one may be shorter."""
        size = self._context.n_batch
        waiting: list[int] = []
        for piece in _pieces(text.text):
            waiting += self._model.tokenize(piece)
            while len(waiting) > size:
                yield waiting[:size]
                del waiting[:size]
        yield waiting

    def _read_question(self, item: CalibrationQuestion) -> None:
        runtime, question = self._runtime, item.question
        if runtime is None:
            raise ValueError("a question for a model without its vision encoder")
        answer = list(self._model.tokenize(item.answer))
        if answer:
            answer.append(runtime.control_tokens[END])
        options = {**question.options, "sampling": SamplingParams(max_tokens=len(answer) + 1)}
        system = OFFICIAL_SYSTEM if question.system is None else question.system
        request = prepare_question(
            runtime,
            TileLimits.of(PictureOptions(), TileRange.of(runtime.vision)),
            with_system([], system),
            question.prompt,
            question.images,
            cast("AskOptions", options),
        )
        for notice in request.notices:
            self._on_notice(f"{item.label}: {notice}")
        self._context.clear()
        room = runtime.engine.n_ctx
        for piece in self._parts(runtime, [*request.spans, TokenSpan(tuple(answer))]):
            if len(piece) > room:  # of a long answer only what fits is read
                break
            room -= len(piece)
            if isinstance(piece, list):
                self._context.decode_tokens(piece)
            else:
                self._visual_tokens += len(piece)
                self._context.decode_embeddings(piece)

    def _parts(self, runtime: InProcessRuntime, spans: Sequence[Span]) -> Iterator[list[int] | NDArray[np.float32]]:
        """Yield tokens and embeddings of a prompt, in parts that can be decoded at once."""
        size = self._context.n_batch
        for is_picture, run in itertools.groupby(spans, lambda span: isinstance(span, TileSpan)):
            whole: list[int] | NDArray[np.float32]
            if is_picture:
                tiles = [span.tile for span in run if isinstance(span, TileSpan)]
                whole = np.concatenate(runtime.engine.embed(tiles))
            else:
                whole = [token for span in run if isinstance(span, TokenSpan) for token in span.ids]
            yield from (whole[start : start + size] for start in range(0, len(whole), size))
