"""Cascades: who is asked, what is computed only once, and what stays where a bigger model fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from internvl_gguf import (
    Cascade,
    InternVLError,
    InvalidRequestError,
    ModelFileError,
    PictureError,
    Session,
    SessionStateError,
)
from internvl_gguf.config import DEFAULT_THRESHOLD
from internvl_gguf.engine.embedding_store import EmbeddingStore
from internvl_gguf.session.cascade import CascadeStep
from internvl_gguf.session.in_process_runtime import InProcessRuntime
from tests.support.exact import EXACT_WITH_DISK_CACHE
from tests.support.pictures import noise
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPENING: dict[str, Any] = {"n_ctx": 1024, **EXACT_WITH_DISK_CACHE}
WIDE = (640, 320)  # eight tiles of 32 pixels, and a thumbnail


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two text models with one vision encoder, as two quants of a model are; another encoder with larger tiles."""
    root = tmp_path_factory.mktemp("models")
    folder, wide = root / "narrow", root / "wide"
    folder.mkdir()
    wide.mkdir()
    for seed, name in enumerate(("small", "large"), 1):
        write_tiny_text(folder / f"{name}.gguf", n_ctx=2048, seed=seed)
    write_tiny_mmproj(folder / "mmproj.gguf")
    write_tiny_text(wide / "model.gguf", n_ctx=2048, seed=3)
    write_tiny_mmproj(wide / "mmproj.gguf", image_size=64)
    (folder / "damaged.gguf").write_bytes((folder / "large.gguf").read_bytes()[:-2000])
    return folder


@pytest.fixture
def pair(folder: Path) -> tuple[str, str]:
    return str(folder / "small.gguf"), str(folder / "large.gguf")


@pytest.fixture
def cascade(pair: tuple[str, str], notices: list[str]) -> Iterator[Cascade]:
    """Of which the second is always asked: no random model is certain."""
    with Cascade(pair, threshold=1, on_notice=notices.append, **OPENING) as opened:
        yield opened


def test_the_first_answers_alone_where_it_is_sure_enough(pair: tuple[str, str]) -> None:
    with Cascade(pair, threshold=0, **OPENING) as cascade:
        answer = cascade.ask("What is it?", max_tokens=3)
        assert answer.answered_by == pair[0]
        assert [step.model for step in answer.steps] == [pair[0]]
        assert list(cascade._opened) == [0], "the second was loaded for nothing"
    confidence = answer.steps[0].confidence
    assert confidence is not None
    assert answer.why == f"it is {confidence:.2f} sure, at least 0"
    just_above = confidence + 1e-5
    with Cascade(pair, threshold=just_above, **OPENING) as cascade:
        why = cascade.ask("What is it?", max_tokens=3).why
    told = float(why.removeprefix(f"{pair[0]} was ").split()[0])
    assert told < just_above, "rounded to the other side of the threshold"


def test_the_next_is_asked_where_it_is_not_sure_and_says_what_it_would_say_alone(
    cascade: Cascade, pair: tuple[str, str]
) -> None:
    answer = cascade.ask("What is it?", [noise(1)], max_tokens=4)
    first, second = answer.steps
    assert answer.answered_by == pair[1]
    assert answer.why == f"{pair[0]} was {first.confidence:.2f} sure, below 1"
    assert answer.reply == second.reply
    with Session.open(pair[1], **OPENING) as alone:
        assert alone.ask("What is it?", [noise(1)], max_tokens=4).text == answer.reply.text
    assert answer.to_dict()["steps"][0]["text"] == (first.reply.text if first.reply else None)
    assert answer.to_dict()["text"] == answer.reply.text


def test_quants_with_one_vision_encoder_share_its_embeddings(cascade: Cascade) -> None:
    """A picture is encoded by the first; the second has nothing to look at any more."""
    usages = [step.reply.usage for step in cascade.ask("What?", [noise(2, *WIDE)], max_tokens=1).steps if step.reply]
    assert [usage.tiles for usage in usages] == [9, 9]
    assert [usage.tiles_encoded for usage in usages] == [9, 0]


@pytest.mark.parametrize("worker", [False, True])
def test_the_next_model_waits_for_embeddings_that_are_still_written(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch, worker: bool
) -> None:
    """On a slow disk an answer of one token ended before its picture was written, and the next model encoded it."""
    written, put = threading.Event(), EmbeddingStore.put

    def put_late(store: EmbeddingStore, key: bytes, embeddings: NDArray[np.float32], *, evicts: bool = True) -> bool:
        written.wait(60)
        return put(store, key, embeddings, evicts=evicts)

    def go_on(step: CascadeStep) -> None:
        threading.Timer(0.01, written.set).start()

    monkeypatch.setattr(EmbeddingStore, "put", put_late)
    with Cascade(pair, threshold=1, worker=worker, **OPENING) as cascade:
        answer = cascade.ask("What?", [noise(6, *WIDE)], max_tokens=1, on_step=go_on)
    assert [step.reply.usage.tiles_encoded for step in answer.steps if step.reply] == [9, 0]


def test_a_picture_is_read_and_cut_once(cascade: Cascade, tmp_path: Path) -> None:
    """Its file is gone before the second model is asked."""
    path = tmp_path / "photo.png"
    noise(3).save(path)
    answer = cascade.ask("What?", [path], max_tokens=1, on_step=lambda step: path.unlink(missing_ok=True))
    assert len([step for step in answer.steps if step.reply]) == 2
    assert answer.reply.notices == ()


def test_models_of_other_tiles_cut_the_pictures_again_and_say_so(folder: Path, notices: list[str]) -> None:
    models = [folder / "small.gguf", folder.parent / "wide"]
    with Cascade(models, threshold=1, on_notice=notices.append, **OPENING) as cascade:
        answer = cascade.ask("What?", [noise(4, *WIDE)], max_tokens=1)
        plain = cascade.ask("What?", max_tokens=1)
    said = f"{models[1]} sees tiles of 64 pixels and {models[0]} of 32: the pictures are cut and encoded again."
    assert answer.answered_by == str(models[1])
    assert answer.reply.notices == (said,)
    assert said in notices
    assert plain.reply.notices == ()
    assert answer.reply.usage.tiles_encoded == answer.reply.usage.tiles > 0


def test_a_vote_says_how_sure_an_answer_is(cascade: Cascade) -> None:
    answer = cascade.ask("What?", best_of=3, max_tokens=2, seed=1)
    for step in answer.steps:
        assert step.reply is not None
        assert step.reply.selection is not None
        assert step.confidence == step.reply.selection.confidence


def test_each_question_stands_alone(cascade: Cascade) -> None:
    once = cascade.ask("What is it?", max_tokens=4)
    again = cascade.ask("What is it?", max_tokens=4)
    assert once.reply.text == again.reply.text
    assert once.reply.usage.prompt_tokens == again.reply.usage.prompt_tokens


def test_open_sessions_stay_the_callers(pair: tuple[str, str]) -> None:
    """Their conversations come before each question, and stay as they are."""
    with Session.open(pair[0], **OPENING) as small, Session.open(pair[1], **OPENING) as large:
        small.ask("Before?", max_tokens=1)
        with Cascade([small, large], threshold=1, **OPENING) as cascade:
            answer = cascade.ask("What is it?", max_tokens=1)
        first, second = (step.reply.usage.prompt_tokens for step in answer.steps if step.reply)
        assert first > second
        assert len(small.messages) == 3
        assert small.ask("And now?", max_tokens=1).finish_reason == "length"


@pytest.mark.parametrize("worker", [False, True])
def test_a_bigger_model_that_cannot_be_loaded_loses_nothing(folder: Path, notices: list[str], worker: bool) -> None:
    models = [folder / "small.gguf", folder / "damaged.gguf"]
    with Cascade(models, threshold=1, on_notice=notices.append, worker=worker, **OPENING) as cascade:
        answer = cascade.ask("What is it?", max_tokens=2)
        again = cascade.ask("What is it?", max_tokens=2)
    assert answer.answered_by == str(models[0])
    assert answer.steps[1].reply is None
    assert answer.steps[1].error
    assert answer.why.endswith(f"sure, below 1; {models[1]} could not be asked")
    said = f"{models[1]} could not be asked, so the answer of {models[0]} stays: {answer.steps[1].error}"
    assert answer.reply.notices[0].startswith(said)
    assert again.reply.notices == answer.reply.notices
    assert notices == [*answer.reply.notices, *again.reply.notices]


def test_one_that_fails_is_passed_over(folder: Path) -> None:
    models = [folder / name for name in ("small.gguf", "damaged.gguf", "large.gguf")]
    with Cascade(models, threshold=1, on_notice=lambda line: None, **OPENING) as cascade:
        answer = cascade.ask("What is it?", max_tokens=2)
    assert answer.answered_by == str(models[2])
    assert [step.reply is None for step in answer.steps] == [False, True, False]


def test_the_same_model_under_another_name_is_not_asked_again(pair: tuple[str, str]) -> None:
    small, large = map(Path, pair)
    other = small.with_name("other.gguf")
    other.symlink_to(small)
    try:
        with Cascade([small, other, large], threshold=1, on_notice=lambda line: None, **OPENING) as cascade:
            answer = cascade.ask("What is it?", max_tokens=2)
    finally:
        other.unlink()
    assert answer.steps[1].error == f"{other} is {small} once more: it has the same files."
    assert answer.answered_by == str(large)


def test_what_the_first_cannot_do_is_an_error(cascade: Cascade, folder: Path) -> None:
    with pytest.raises(PictureError, match="no such file"):
        cascade.ask("What?", [folder / "missing.png"])
    assert cascade.ask("What?", max_tokens=1).reply.text is not None
    with Cascade([folder / "damaged.gguf", folder / "large.gguf"], **OPENING) as other, pytest.raises(ModelFileError):
        other.ask("What?")


def test_the_earlier_is_freed_where_the_next_has_no_room_beside_it(cascade: Cascade) -> None:
    """The plan counts: here the machine is said to have room for one of them."""
    cascade._session(0)
    runtime = cascade._opened[0].runtime
    assert isinstance(runtime, InProcessRuntime)
    configuration = runtime.configuration
    room = configuration.plan.host.total * 3 // 2
    runtime.configuration = replace(configuration, budget=replace(configuration.budget, host=room))
    answer = cascade.ask("What?", [noise(5)], max_tokens=1)
    assert list(cascade._opened) == [1]
    assert answer.reply.usage.tiles_encoded == 0, "embeddings outlive the model that made them"
    assert len(cascade.ask("What?", max_tokens=1).steps) == 2, "the first is loaded again"


@pytest.mark.parametrize("while_it_answers", [False, True])
def test_stopping_keeps_the_answer_that_is_there(
    cascade: Cascade, pair: tuple[str, str], while_it_answers: bool
) -> None:
    """The second model is stopped before its first token, or with several answers under way."""

    def stop(name: str, session: Session) -> None:
        if name == pair[1] and while_it_answers:
            session.on_candidates(lambda ended, n, tokens: cascade.abort())
        elif name == pair[1]:
            cascade.abort()

    answer = cascade.ask("What?", max_tokens=500, best_of=2, seed=1, on_session=stop)
    assert answer.answered_by == pair[0]
    assert answer.reply.finish_reason != "aborted"
    assert answer.why.endswith(f"{pair[1]} was stopped")
    assert answer.reply.notices == ()


def test_stopping_the_first_gives_what_is_there_of_it(cascade: Cascade, pair: tuple[str, str]) -> None:
    def stop(name: str, session: Session) -> None:
        session.on_candidates(lambda ended, n, tokens: cascade.abort())

    answer = cascade.ask("What?", max_tokens=500, best_of=2, seed=1, on_session=stop)
    assert [step.model for step in answer.steps] == [pair[0]]
    assert answer.reply.finish_reason == "aborted"


def test_ctrl_c_tells_what_was_answered(cascade: Cascade, pair: tuple[str, str]) -> None:
    told: list[CascadeStep] = []

    def interrupt(name: str, session: Session) -> None:
        if name == pair[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cascade.ask("What?", max_tokens=2, on_session=interrupt, on_step=told.append)
    assert [step.model for step in told] == [pair[0]]
    assert cascade.ask("What?", max_tokens=2).answered_by == pair[1]


REFUSED: list[tuple[Any, dict[str, Any], str, str]] = [
    (["small.gguf"], {}, "A cascade of 1 model.", "two models or more"),
    ([], {}, "A cascade of 0 models.", "two models or more"),
    ("small.gguf", {}, "models is 'small.gguf'.", "two models or more"),
    (["small.gguf", "./small.gguf"], {}, "./small.gguf is in the cascade twice.", "name another model"),
    (["demo", "Demo"], {}, "Demo is in the cascade twice.", "name another model"),
    (["small.gguf", "missing.gguf"], {}, "There is no file ", "Check the path"),
    (["small.gguf", "InternVL9-1B"], {}, "There is no model 'InternVL9-1B'.", "internvl list"),
    (["small.gguf", "large.gguf"], {"threshold": 1.1}, "threshold is 1.1.", "0 to 1"),
    (["small.gguf", "large.gguf"], {"threshold": -0.1}, "threshold is -0.1.", "0 to 1"),
    (["small.gguf", "large.gguf"], {"threshold": float("nan")}, "threshold is nan.", "0 to 1"),
    (["small.gguf", "large.gguf"], {"threshold": "0.8"}, "threshold is '0.8'.", "Give a number"),
    (["small.gguf", "large.gguf"], {"threshold": [0, 1]}, "There are 2 thresholds for 2 models.", "Give one number"),
    (["small.gguf", "large.gguf"], {"n_ctx": 0}, "n_ctx is 0.", "positive"),
]  # fmt: skip


@pytest.mark.parametrize(("models", "options", "message", "hint"), REFUSED)
def test_what_is_no_cascade_is_refused_before_a_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, models: Any, options: dict[str, Any], message: str, hint: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InternVLError) as refused:
        Cascade(models, **options)
    assert refused.value.message.startswith(message)
    assert hint in refused.value.hint
    assert os.linesep not in str(refused.value)


def test_a_session_twice_is_refused(session: Session) -> None:
    with session.fork() as fork, pytest.raises(InvalidRequestError, match="in the cascade twice"):
        Cascade([session, fork])


def test_a_closed_cascade_answers_nothing(pair: tuple[str, str]) -> None:
    cascade = Cascade(pair)
    assert cascade.thresholds == (DEFAULT_THRESHOLD,)
    assert cascade.models == pair
    cascade.close()
    cascade.close()
    with pytest.raises(SessionStateError, match="closed"):
        cascade.ask("What?")
