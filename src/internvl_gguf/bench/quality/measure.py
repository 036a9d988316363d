"""What a configuration loses against a reference: KL divergence on a text, and on answers about pictures.

One configuration, the reference, writes its next-token distributions into a folder; each other one is asked to score
the same tokens and reads them. A text is cut into chunks as llama-perplexity cuts it. An answer about a picture is
scored behind the prompt that the model card lays out, its end included: one that the set gives, or what the reference
answered greedily.

The reference's own result compares it with what it wrote, so it shows what the file cannot tell apart.
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
from internvl_gguf.bench.quality.scoring import Passage, Subject, score, text_passages
from internvl_gguf.bench.quality.sets import OFF, TextSet, read_pictures, read_text
from internvl_gguf.bench.results import Divergence, QualityResult
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.notices import Notice, log_notice

if TYPE_CHECKING:
    from internvl_gguf.bench.speed import Tell
    from internvl_gguf.engine import Engine
    from internvl_gguf.session import Session

CHUNK: Final = 512
"""Tokens of a chunk of text, llama-perplexity's default."""

_SHORTEST_CHUNK: Final = 8
_FILE: Final = "text.reference"


@dataclass(frozen=True)
class QualityJob:
    """What to score, and on which side of the comparison.

    Attributes:
        folder: of the reference's distributions.
        role: "write" for the reference itself, "read" for all others.
        text: path of a text in UTF-8; None for the one that comes with the package, "off" for none.
        pictures: path of a folder of pictures or of a file of questions (see `sets`); likewise.
        n_ctx: tokens of a chunk of text; where the context has fewer positions, it is the chunk.
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
    tell: Tell = lambda what, done: None,
    on_notice: Notice = log_notice,
) -> QualityResult:
    """Score a text and answers about pictures, as the reference or against it.

    Args:
        session: of the configuration; its conversation is forgotten. Embeddings of pictures come from the cache on disk
            where another quant left them. With `n_draft`, more rows of logits come from one computation.
        job: what to score. A question that the reference cannot use is left out by all.
        tell: how far the text, the reference's own answers and the pictures are.
        on_notice: told of each question that the reference leaves out.

    Returns:
        Both divergences; those of crossed pairs are not known here.

    Raises:
        InvalidRequestError: a set cannot be read, or the text is too short for one chunk.
        PictureError: a picture that the reference saw cannot be read any more.
        BenchmarkError: the reference's file is missing, damaged, of another set or vocabulary, or cannot be written.
        LibraryError: llama.cpp refused, or the model computes what is no number.
    """
    session.clear()
    subject, folder = subject_of(session), Path(job.folder)
    text = None if job.text == OFF else read_text(job.text)
    asked = None if job.pictures == OFF else read_pictures(job.pictures, subject.engine.model.n_vocab)
    on_text = on_pictures = None
    skipped = 0
    if text:
        passages = text_chunks(subject.engine, text, job.n_ctx, job.n_chunks)
        on_text = measure_text(subject, text, passages, folder, job.role, tell)
    if asked:
        scoring = PictureQuality(session, subject, asked, folder, tell)
        on_pictures = scoring.as_reference(on_notice) if job.role == "write" else scoring.against_reference()
        skipped = scoring.skipped
    return QualityResult(text=on_text, pictures=on_pictures, quant_alone=None, mmproj_alone=None, skipped=skipped)


def subject_of(session: Session) -> Subject:
    """The configuration that a session runs on."""
    runtime = local_runtime(session)
    names = {"text": runtime.files.text.name, "mmproj": runtime.files.mmproj.name}
    identity = {f"identity.{name}": str(value) for name, value in asdict(runtime.identity).items()}
    return Subject(runtime.engine, {**names, **identity}, vocabulary_digest(runtime.files.text))


def text_chunks(engine: Engine, text: TextSet, n_ctx: int = CHUNK, n_chunks: int | None = None) -> list[Passage]:
    """A text as it is scored: in whole chunks of `n_ctx` tokens, or of the context where that is less.

    Raises:
        InvalidRequestError: there is not one chunk.
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
    subject: Subject,
    text: TextSet,
    passages: Sequence[Passage],
    folder: Path,
    role: Role,
    tell: Tell = lambda what, done: None,
) -> Divergence:
    """Score the chunks of a text, as the reference or against it.

    Args:
        subject: the configuration.
        text: as it was read.
        passages: its `text_chunks`.
        folder: of the reference's distributions.
        role: which side of the comparison this is.
        tell: how far it is.

    Raises:
        BenchmarkError, LibraryError: as `measure_quality`.
    """
    tokens = passages[0].length + 1
    name = f"{text.name} in {len(passages)} chunks of {tokens} tokens"
    head = subject.head(name, text.text, len(passages), tokens)
    path = folder / _FILE
    sums = DivergenceSum()
    subject.engine.forget()  # all configurations are to compute in the same batches
    rows = sum(len(passage.tokens) for passage in passages)
    with ReferenceWriter(path, head, rows) if role == "write" else ReferenceReader(path, head) as references:
        for number, passage in enumerate(passages):
            score(subject.engine, number, passage, references, sums)
            tell("text", (number + 1) / len(passages))
    return sums.result()
