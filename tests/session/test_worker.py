"""A model in a process of its own answers as one in this process does, and leaves nothing behind."""

from __future__ import annotations

import gc
import inspect
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from internvl_gguf import InvalidRequestError, ModelFileError, SamplingParams, Session, SessionStateError, errors
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session.worker.tiles import RemoteTile, TileSupply
from tests.support.exact import EXACT, EXACT_WITH_DISK_CACHE
from tests.support.pictures import noise
from tests.support.sessions import worker_pid

SHORT = SamplingParams(max_tokens=12)
PATIENCE = 120  # seconds, for what is waited for; nothing takes as long


@pytest.fixture
def far(tiny: ModelFiles) -> Iterator[Session]:
    """The conversation of the fixture `session`, held in another process."""
    with Session.open(tiny.text, tiny.mmproj, worker=True, system="Be brief.", n_ctx=1024, **EXACT) as opened:
        yield opened


def test_a_worker_answers_as_this_process_does(session: Session, far: Session) -> None:
    for prompt, pictures in (("What is it?", [noise(1)]), ("And now?", []), ("Both?", [noise(1), noise(2)])):
        here, there = (each.ask(prompt, pictures, sampling=SHORT) for each in (session, far))
        assert there.text == here.text
        assert there.finish_reason == here.finish_reason
        assert there.usage == here.usage
    assert there.timings.encode > 0
    assert there.timings.prefill > 0
    assert len(far.messages) == 7
    far.runtime.engine.check_integrity()


def test_logits_and_embeddings_cross_the_line_bit_for_bit(session: Session, far: Session) -> None:
    here, there = (each.next_token_logprobs("What is it?", [noise(1)]) for each in (session, far))
    assert np.array_equal(here, there)
    assert np.array_equal(session.embed_image(noise(3)), far.embed_image(noise(3)))


def test_the_line_carries_a_stream_and_its_end(session: Session, far: Session) -> None:
    stop = SamplingParams(max_tokens=40, stop=(session.ask("What is it?", sampling=SHORT).text[-1:],))
    session.clear()
    whole = session.ask("What is it?", sampling=stop)
    chunks = list(far.stream("What is it?", sampling=stop))
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert chunks[-1].reply is not None
    assert chunks[-1].reply.finish_reason == "stop"


def test_forks_and_batches_share_the_worker(session: Session, far: Session) -> None:
    for each in (session, far):
        each.ask("What is it?", [noise(3)], sampling=SHORT)
    here, there = (each.batch(["Left?", "Right?", "Up?"], sampling=SHORT) for each in (session, far))
    assert [reply.text for reply in there] == [reply.text for reply in here]
    with far.fork() as fork:
        assert fork.ask("More?", sampling=SHORT).text == session.ask("More?", sampling=SHORT).text
        assert worker_pid(fork) == worker_pid(far)


def test_a_conversation_moves_between_a_worker_and_this_process(
    tiny: ModelFiles, session: Session, far: Session, tmp_path: Path
) -> None:
    for each in (session, far):
        each.ask("What is it?", [noise(1)], sampling=SHORT)
    far.save(tmp_path / "far.session")
    session.save(tmp_path / "here.session")
    with (
        Session.restore(tmp_path / "far.session", n_threads=1, embedding_disk_bytes=0) as here,
        Session.restore(tmp_path / "here.session", worker=True, n_threads=1, embedding_disk_bytes=0) as there,
    ):
        left, right = (each.ask("And now?", sampling=SHORT) for each in (here, there))
        assert left.text == right.text
        assert left.usage == right.usage
        assert left.usage.tiles_encoded == 0


def test_an_answer_is_stopped_from_another_thread(far: Session) -> None:
    stream = far.stream("Talk.", sampling=SamplingParams(max_tokens=900))
    next(stream)
    far.abort()
    *_, last = stream
    assert last.reply is not None
    assert last.reply.finish_reason == "aborted"
    assert far.ask("And now?", sampling=SHORT).usage.cached_tokens > 0


def test_progress_of_pictures_comes_across_and_its_error_is_the_questions(far: Session) -> None:
    told: list[tuple[int, int]] = []
    far.on_tiles(lambda done, total: told.append((done, total)))
    far.ask("What is it?", [noise(5)], sampling=SHORT)
    assert told[0] == (0, 13)
    assert told[-1] == (13, 13)

    def fail(done: int, total: int) -> None:
        raise RuntimeError("no progress wanted")

    far.on_tiles(fail)
    with pytest.raises(RuntimeError, match="no progress wanted"):
        far.ask("What is it?", [noise(6)], sampling=SHORT)
    far.on_tiles(None)
    assert far.ask("What is it?", [noise(6)], sampling=SHORT).text


def test_what_cannot_be_asked_is_refused_as_in_this_process(far: Session, session: Session) -> None:
    for each in (session, far):
        with pytest.raises(errors.ContextOverflowError) as caught:
            each.ask("word " * 2000, sampling=SHORT)
        assert caught.value.needed > caught.value.available
    assert len(far.messages) == 1


def test_a_model_that_cannot_be_loaded_is_refused_as_in_this_process(tiny: ModelFiles, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny.text.read_bytes()[:-2000])
    messages = []
    for worker in (False, True):
        with pytest.raises(ModelFileError) as caught:
            Session.open(damaged, tiny.mmproj, worker=worker)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("seconds", [-1, "10", float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(InvalidRequestError, match="worker_timeout"):
        Session.open("demo", worker=True, worker_timeout=seconds)


def test_who_has_a_worker_does_not_load_the_native_library() -> None:
    """A build that this CPU cannot run would otherwise end the process that was to be spared."""
    script = (
        "import sys; from internvl_gguf import Session\n"
        "with Session.open('demo', worker=True, n_threads=1) as s: print(bool(s.ask('Hello?').text))\n"
        "print('llama_cpp' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


def test_the_log_of_the_library_comes_across(tiny: ModelFiles, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG, "internvl_gguf"),
        Session.open(tiny.text, tiny.mmproj, worker=True, system="Be brief.", n_ctx=1024, **EXACT),
    ):
        pass
    assert any(record.name == "internvl_gguf.llama" for record in caplog.records)


def test_lines_of_the_library_are_shown_to_nobody_who_set_up_no_log() -> None:
    """Ctrl-C spilled "llama_decode: failed to decode, ret = 2": the parent had no handler for the worker's warnings."""
    script = (
        "import logging; from internvl_gguf import Session\n"
        "logging.getLogger('internvl_gguf.llama').warning('llama_decode: failed to decode, ret = 2')\n"
        "logging.getLogger('internvl_gguf').warning('A line of our own.')\n"
        "print(Session.__name__)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr == "A line of our own.\n"


def test_a_session_that_is_dropped_ends_its_worker(tiny: ModelFiles) -> None:
    session = Session.open(tiny.text, tiny.mmproj, worker=True, system="Be brief.", n_ctx=1024, **EXACT)
    worker = psutil.Process(worker_pid(session))
    del session
    gc.collect()
    worker.wait(PATIENCE)
    assert not worker.is_running()


def test_closing_ends_the_worker_and_writes_what_is_to_be_on_disk(tiny: ModelFiles, cache_folder: Path) -> None:
    with Session.open(
        tiny.text, tiny.mmproj, worker=True, system="Be brief.", n_ctx=1024, **EXACT_WITH_DISK_CACHE
    ) as far:
        worker = psutil.Process(worker_pid(far))
        assert far.ask("What is it?", [noise(8)], sampling=SHORT).usage.tiles_encoded == 13
    assert not worker.is_running()
    with Session.open(tiny.text, tiny.mmproj, system="Be brief.", n_ctx=1024, **EXACT_WITH_DISK_CACHE) as here:
        assert here.ask("What is it?", [noise(8)], sampling=SHORT).usage.tiles_encoded == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_process_is_told_that_the_session_is_not_its(far: Session) -> None:
    """Parent and child would read each other's answers."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def ask() -> None:
        try:
            far.ask("What is it?")
        except SessionStateError as error:
            answers.put(str(error))

    process = context.Process(target=ask)
    process.start()
    assert "spawn" in answers.get()
    process.join(PATIENCE)
    assert far.ask("What is it?", sampling=SHORT).text


@pytest.mark.parametrize(
    "kind",
    [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.InternVLError)],
)
def test_every_error_crosses_the_line(kind: type[errors.InternVLError]) -> None:
    keywords = {
        name: 7 if parameter.annotation in ("int", "int | None") else "text"
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    error = kind("What happened.", "What to do.", **keywords)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_pixels_are_asked_for_once_and_not_kept() -> None:
    asked: list[bytes] = []
    supply = TileSupply(asked.extend)
    supply.want([b"a", b"b", b"a"])
    supply.want([b"b"])
    assert asked == [b"a", b"b"]
    for key in (b"a", b"b"):
        supply.put(key, key * 3)
    assert RemoteTile(b"a", supply).pixels == b"aaa"
    supply.release([b"a", b"b", b"a"])
    assert RemoteTile(b"b", supply).pixels == b"bbb"  # one request still wants it
    supply.release([b"b"])
    supply.put(b"c", b"late")  # no request wants it any more
    supply.want([b"c"])
    assert asked == [b"a", b"b", b"c"]
    supply.put(b"c", None)
    with pytest.raises(errors.LibraryError, match="not there any more"):
        supply.take(b"c")
