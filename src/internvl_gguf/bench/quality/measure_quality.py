"""Measure the quality of a configuration against a reference: KL divergence on a text, and on answers about pictures.

One configuration, the reference, writes its next-token distributions into a folder; each other one scores the same
tokens and reads them. A text is cut into chunks as llama-perplexity cuts it. An answer about a picture is scored after
the prompt of the model card, its end token included; it is given by the set, or answered greedily by the reference.

The reference's own result compares it with the distributions it wrote, so it shows the rounding of the file format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.local_runtime import local_runtime
from internvl_gguf.bench.quality.divergence import DivergenceSum
from internvl_gguf.bench.quality.picture_quality import PictureQuality
from internvl_gguf.bench.quality.reference_logits import ReferenceReader, ReferenceWriter, Role, vocabulary_digest
from internvl_gguf.bench.quality.scoring import Passage, ScoredModel, score, text_passages
from internvl_gguf.bench.quality.sets import OFF, TextSet, read_pictures, read_text
from internvl_gguf.bench.results import Divergence, QualityResult
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.notices import Notice, log_notice

if TYPE_CHECKING:
    from internvl_gguf.bench.speed import StageProgress
    from internvl_gguf.engine import Engine
    from internvl_gguf.session import Session

CHUNK: Final = 512
"""Tokens of a chunk of text, llama-perplexity's default."""

_SHORTEST_CHUNK: Final = 8
_FILE: Final = "text.reference"


@dataclass(frozen=True)
class QualityJob:
    """The texts and pictures to score, and the role in the comparison.

    Attributes:
        folder: folder of the reference's distributions.
        role: "write" for the reference itself, "read" for all others.
        text: path of a text in UTF-8; None for the one that comes with the package, "off" for none.
        pictures: path of a folder of pictures or of a file of questions (see `sets`); None and "off" as for `text`.
        n_ctx: tokens of a chunk of text; a context with fewer positions sets the size of the chunk.
        n_chunks: most chunks that are scored; None for all.

    Raises:
        InvalidRequestError: chunks too short to score anything, or none.
    """

    folder: str
    role: Role
    text: str | None = None
    pictures: str | None = None
    n_ctx: int = CHUNK
    n_chunks: int | None = None

    def __post_init__(self) -> None:
        if self.n_ctx < _SHORTEST_CHUNK:
            raise InvalidRequestError(f"A chunk has {self.n_ctx} tokens.", f"Use {_SHORTEST_CHUNK} or more.")
        if self.n_chunks is not None and self.n_chunks < 1:
            raise InvalidRequestError(f"{self.n_chunks} chunks are to be scored.", "Score at least one.")


def measure_quality(
    session: Session,
    job: QualityJob,
    on_progress: StageProgress = lambda what, done: None,
    on_notice: Notice = log_notice,
) -> QualityResult:
    """Score a text and answers about pictures, as the reference or against it.

    Args:
        session: of the configuration; its conversation is cleared. Embeddings of pictures come from the cache on disk
            if another quant left them there. With `n_draft`, one computation gives more rows of logits.
        job: what to score. All configurations leave out the questions that the reference cannot use.
        on_progress: called with the progress of the text, the reference's own answers and the pictures.
        on_notice: called with one line for each question that the reference leaves out.

    Returns:
        Both divergences; `quant_alone` and `mmproj_alone` are None.

    Raises:
        InvalidRequestError: a set cannot be read, or the text is too short for one chunk.
        PictureError: a picture that the reference saw cannot be read any more.
        BenchmarkError: the reference's file is missing, damaged, of another set or vocabulary, or cannot be written.
        LibraryError: llama.cpp refused, or the model computes what is no number.
    """
    session.clear()
    scored_model, folder = scored_model_of(session), Path(job.folder)
    text = None if job.text == OFF else read_text(job.text)
    picture_set = None if job.pictures == OFF else read_pictures(job.pictures, scored_model.engine.model.n_vocab)
    on_text = on_pictures = None
    skipped = 0
    if text:
        passages = text_chunks(scored_model.engine, text, job.n_ctx, job.n_chunks)
        on_text = measure_text(scored_model, text, passages, folder, job.role, on_progress)
    if picture_set:
        scoring = PictureQuality(session, scored_model, picture_set, folder, on_progress)
        on_pictures = scoring.as_reference(on_notice) if job.role == "write" else scoring.against_reference()
        skipped = scoring.skipped
    return QualityResult(text=on_text, pictures=on_pictures, quant_alone=None, mmproj_alone=None, skipped=skipped)


def scored_model_of(session: Session) -> ScoredModel:
    """Return the configuration that a session runs on."""
    runtime = local_runtime(session)
    names = {"text": runtime.files.text.name, "mmproj": runtime.files.mmproj.name}
    identity = {f"identity.{name}": str(value) for name, value in asdict(runtime.identity).items()}
    return ScoredModel(runtime.engine, {**names, **identity}, vocabulary_digest(runtime.files.text))


def text_chunks(engine: Engine, text: TextSet, n_ctx: int = CHUNK, n_chunks: int | None = None) -> list[Passage]:
    """Cut a text into whole chunks of `n_ctx` tokens, or of the context's size if that is smaller.

    Raises:
        InvalidRequestError: the text is too short for one chunk.
    """
    n_ctx = min(n_ctx, engine.n_ctx)
    tokens = engine.model.tokenize(text.text)
    passages = text_passages(tokens, n_ctx)[:n_chunks]
    if not passages:
        raise InvalidRequestError(
            f"{text.name} comes to {len(tokens):,} tokens, too few for one chunk of {n_ctx:,}.",
            "Give a longer text, or use smaller chunks.",
        )
    return passages


def measure_text(
    scored_model: ScoredModel,
    text: TextSet,
    passages: Sequence[Passage],
    folder: Path,
    role: Role,
    on_progress: StageProgress = lambda what, done: None,
) -> Divergence:
    """Score the chunks of a text, as the reference or against it.

    Args:
        scored_model: the configuration.
        text: as it was read.
        passages: its `text_chunks`.
        folder: folder of the reference's distributions.
        role: role of this configuration in the comparison.
        on_progress: called with "text" and the fraction that is done.

    Raises:
        BenchmarkError, LibraryError: see `measure_quality`.
    """
    tokens = passages[0].length + 1
    name = f"{text.name} in {len(passages)} chunks of {tokens} tokens"
    head = scored_model.head(name, text.text, len(passages), tokens)
    path = folder / _FILE
    sums = DivergenceSum()
    scored_model.engine.forget()  # so that all configurations compute in the same batches
    rows = sum(len(passage.tokens) for passage in passages)
    with ReferenceWriter(path, head, rows) if role == "write" else ReferenceReader(path, head) as references:
        for number, passage in enumerate(passages):
            score(scored_model.engine, number, passage, references, sums)
            on_progress("text", (number + 1) / len(passages))
    return sums.result()
