"""Ask all questions of the models of a cascade, one model after the other; results of earlier runs are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from internvl_gguf.bench.cascade.answers import SEED, ModelAnswers, answer_all
from internvl_gguf.bench.keys import RunIdentity
from internvl_gguf.bench.quality.sets import PictureSet
from internvl_gguf.bench.store import Key, Store
from internvl_gguf.bench.sweep import RunConfig
from internvl_gguf.errors import InternVLError
from internvl_gguf.hardware.identity import machine_identity
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.session import Session
from internvl_gguf.utils.notices import Notice

_PART: Final = "cascade"

Progress = Callable[[str, float], None]
"""Called with what is done, and the fraction of it that is done, 0 to 1."""


@dataclass(frozen=True)
class MeasuredModel:
    """One model of a cascade, ready to be measured.

    Attributes:
        name: as it was asked for.
        files: its files.
        run_config: how it is run.
    """

    name: str
    files: ModelFiles
    run_config: RunConfig


@dataclass(frozen=True)
class Measuring:
    """The questions to the models, and who is told of their progress.

    Attributes:
        task: path of the questions; None for those of the demo model.
        questions: the questions.
        counts: numbers of answers to each question; 1 is among them.
        store: results of earlier runs.
        build: build of llama.cpp.
        on_progress: see `Progress`.
        on_notice: called with one line about what the user should know.
    """

    task: str | None
    questions: PictureSet
    counts: Sequence[int]
    store: Store
    build: str
    on_progress: Progress
    on_notice: Notice


def measure(models: Sequence[MeasuredModel], measuring: Measuring) -> dict[int, list[ModelAnswers]]:
    """Return the answers of each model, by the number of answers to a question.

    Each model runs in a process of its own, alone on the machine, with no embeddings known.

    Raises:
        InternVLError: a model cannot be loaded, or cannot answer. What was measured before is kept.
    """
    found: dict[int, list[ModelAnswers]] = {best_of: [] for best_of in measuring.counts}
    for model in models:
        keys = {best_of: _key(model, measuring, best_of) for best_of in measuring.counts}
        for best_of, answers in _of_model(model, measuring, keys).items():
            found[best_of].append(answers)
    return found


def _of_model(model: MeasuredModel, measuring: Measuring, keys: Mapping[int, Key]) -> dict[int, ModelAnswers]:
    kept = {best_of: measuring.store.get(_PART, key, ModelAnswers) for best_of, key in keys.items()}
    known = {best_of: answers for best_of, answers in kept.items() if answers is not None}
    if known:
        measuring.on_notice(f"{model.name}: kept from an earlier run; --fresh measures it anew.")
    if len(known) == len(keys):
        return known
    engine: dict[str, Any] = {
        **model.run_config.engine,
        "n_parallel": 1,  # chosen, so that no batch suggests another
        "embedding_cache_bytes": 0,
        "embedding_disk_bytes": 0,
    }
    measuring.on_progress(f"{model.name}: load", 0.0)
    is_loading = True

    def note(line: str) -> None:
        if is_loading:  # what is told of single answers is not of the measurement
            measuring.on_notice(f"{model.name}: {line}")

    with Session.open(model.files.text, model.files.mmproj, worker=True, on_notice=note, **engine) as session:
        is_loading = False
        for best_of in keys:
            if best_of not in known:
                known[best_of] = _answers(session, model, measuring, best_of)
                _keep(measuring, keys[best_of], known[best_of])
    return {best_of: known[best_of] for best_of in keys}


def _answers(session: Session, model: MeasuredModel, measuring: Measuring, best_of: int) -> ModelAnswers:
    what = f"{model.name}: {measuring.questions.name}" + (f", {best_of} answers each" if best_of > 1 else "")
    try:
        return answer_all(
            session,
            measuring.questions,
            best_of,
            lambda done: measuring.on_progress(what, done),
            measuring.on_notice,
        )
    except InternVLError as error:
        error.message = f"{model.name}: {error.message}"
        raise


def _keep(measuring: Measuring, key: Key, answers: ModelAnswers) -> None:
    try:
        measuring.store.put(_PART, key, answers)
    except OSError as error:
        measuring.on_notice(f"Results cannot be kept for the next time: {error.strerror}.")


def _key(model: MeasuredModel, measuring: Measuring, best_of: int) -> Key:
    """Return everything that the answers and their times depend on."""
    identity = RunIdentity.of(model.files, measuring.build, model.run_config)
    threads = f"{model.run_config.n_threads} {model.run_config.n_threads_batch}"
    several = {"best_of": best_of, "seed": SEED, "threads": threads, "machine": machine_identity()}
    return {**identity.accuracy_key(measuring.task), **several}
