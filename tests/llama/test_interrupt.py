"""Ctrl-C and abort during encoding, prefill and decoding: the session stays usable."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from internvl_gguf import SamplingParams, Session, SessionStateError
from internvl_gguf.llama.context import Context, DecodeAbortedError, TokenRun
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.types import TokenSpan
from tests.support.pictures import noise
from tests.support.sessions import engine_of

SHORT = SamplingParams(max_tokens=8)


@pytest.mark.parametrize("tile", [1, 13])
def test_abort_while_encoding_and_before_prefill(session: Session, tile: int) -> None:
    """After tile 1 the encoder stops; after tile 13 the abort meets the first native decode of the picture."""
    session.on_tiles(lambda done, total: session.abort() if done == tile else None)
    reply = session.ask("What is it?", [noise(1)], sampling=SHORT)
    assert reply.finish_reason == "aborted"
    assert reply.text == ""
    session.runtime.engine.check_integrity()
    session.on_tiles(None)
    session.clear()
    again = session.ask("What is it?", [noise(1)], sampling=SHORT)
    assert again.usage.tiles_encoded == 13 - tile
    assert again.finish_reason != "aborted"


def test_an_aborted_native_decode_leaves_nothing_the_ledger_does_not_know(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The flag is up when the native call begins; nobody was cancelled, so the request begins again and is answered.

    llama.cpp logs three errors ("failed to decode, ret = 2"), which are none.
    """
    engine = engine_of(session)
    prompt = [TokenSpan(tuple(range(60, 90)))]
    expected = engine.submit_logits(prompt).result()
    engine.forget()
    native = Context.decode_many
    aborted: list[int] = []

    def decode_many(context: Context, runs: list[TokenRun]) -> list[int]:
        if not aborted:
            context.abort()
            with pytest.raises(DecodeAbortedError):
                native(context, runs)
            aborted.append(context.last_position(0))
            raise DecodeAbortedError
        return native(context, runs)

    monkeypatch.setattr(Context, "decode_many", decode_many)
    handle = engine.submit_logits(prompt)
    assert np.array_equal(handle.result(), expected)
    assert len(aborted) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    engine.check_integrity()


def test_abort_of_a_question_with_one_result(session: Session) -> None:
    """The flag of an earlier abort must not stop what is asked next."""
    session.on_tiles(lambda done, total: session.abort() if done == 1 else None)
    asks: list[Callable[[], object]] = [
        lambda: session.embed_image(noise(2)),
        lambda: session.next_token_logprobs("What?", [noise(3)]),
    ]
    for ask in asks:
        with pytest.raises(SessionStateError, match="abort"):
            ask()
    session.on_tiles(None)
    session.abort()
    assert session.embed_image(noise(2)).shape == (13, 4, 64)
    session.runtime.engine.check_integrity()


CHILD = """
import os
import sys
from internvl_gguf import SamplingParams, Session
from tests.support.pictures import noise

place = sys.argv[3]
with Session.open(sys.argv[1], sys.argv[2], n_threads=1, system="") as session:
    if place == "encoding":
        session.on_tiles(lambda done, total: print("ready", flush=True) if done == 2 else None)
    sampling = SamplingParams(max_tokens=1500, temperature=2.0, top_k=0, top_p=1.0, seed=1)
    try:
        # Enough to do that the signal always comes in time: thousands of tiles, or answers without end.
        for round in range(100000):
            for chunk in session.stream("What is it?", [noise(round)], sampling=sampling, max_tiles=12):
                if place == "decoding" and chunk.text:
                    os.write(1, b"ready\\n")  # in one piece: the signal may come within print
            session.clear()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    session.on_tiles(None)
    session.clear()
    session.runtime.engine.check_integrity()
    print("alive", session.ask("Still there?", sampling=SamplingParams(max_tokens=4)).usage.prompt_tokens > 0)
"""


@pytest.mark.parametrize("place", ["encoding", "decoding"])
def test_ctrl_c_raises_keyboard_interrupt_and_the_session_answers_again(tiny: ModelFiles, place: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tiny.text), str(tiny.mmproj), place],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=60)
    assert output.replace("ready\n", "") == "interrupted\nalive True\n"
    assert errors == ""
    assert child.returncode == 0


HANGING = """
import ctypes, sys
from internvl_gguf.llama.interrupts import deferred_interrupts

system = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(128)
system.pthread_mutex_lock(mutex)
print("an answer that nobody flushed", end="")
with deferred_interrupts():
    print("ready", file=sys.stderr, flush=True)
    system.pthread_mutex_lock(mutex)  # for ever: this thread holds it, and no signal wakes it
"""


@pytest.mark.skipif(sys.platform == "win32", reason="hangs in a mutex of POSIX")
def test_the_second_ctrl_c_ends_a_process_whose_native_call_hangs() -> None:
    """A server that does not answer, a driver that is stuck: every Ctrl-C waited for a call that never returned."""
    child = subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stderr.readline() == "ready\n"
    presses = 0
    while child.poll() is None:  # one that comes before the one before was seen is the same to the system
        child.send_signal(signal.SIGINT)
        presses += 1
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.2)
    output, errors = child.communicate()
    assert child.returncode == 130
    assert presses > 1
    assert output == "an answer that nobody flushed"
    assert errors == "Interrupted in the middle of a native call.\n"


def test_a_ctrl_c_of_an_earlier_call_does_not_count_in_the_next() -> None:
    """A thousand calls, each interrupted once: each of them is one KeyboardInterrupt, and no process ends."""
    script = """
import os, signal
from internvl_gguf.llama.interrupts import deferred_interrupts
caught = 0
for _ in range(1000):
    try:
        with deferred_interrupts(), deferred_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        caught += 1
print(caught)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1000\n", "")
