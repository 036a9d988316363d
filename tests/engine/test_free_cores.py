"""The number of threads that compute while other programs use cores: the policy alone, then through an engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest

from internvl_gguf.config import EngineConfig, SamplingParams
from internvl_gguf.engine.free_cores import CoreWatch, FreeCores
from internvl_gguf.llama.library import llama_cpp
from internvl_gguf.llama.model import TextModel
from internvl_gguf.session import Session, in_process_runtime
from tests.support.sessions import engine_of


def counts(n_cores: int, used: Iterable[float]) -> list[int]:
    """Return the count of free cores after each observation."""
    free = FreeCores(n_cores)
    found = []
    for each in used:
        free.observe(each)
        found.append(free.count)
    return found


@pytest.mark.parametrize(
    ("n_cores", "used", "left"),
    [
        (2, 0.0, 2),
        (2, 0.4, 2),  # what a desktop does beside: half of the speed would be too high a price
        (2, 0.75, 1),  # one that only loops, while our two threads still take turns with it
        (2, 1.0, 1),
        (2, 4.0, 1),  # never none
        (8, 0.2, 8),
        (8, 0.5, 7),
        (8, 1.0, 7),
        (8, 2.1, 6),
        (8, 7.9, 1),
        (1, 0.9, 1),
        (64, 0.2, 64),
        (64, 1.0, 63),
    ],
)
def test_cores_that_others_leave(n_cores: int, used: float, left: int) -> None:
    assert counts(n_cores, [used]) == [left]


def test_the_count_falls_at_once_and_rises_after_two_quiet_looks() -> None:
    assert counts(2, [0, 1.0, 0, 0]) == [2, 1, 1, 2]
    assert counts(4, [0, 3.0, 1.0, 1.0, 0, 0]) == [4, 1, 1, 3, 3, 4]


def test_noise_around_the_bound_does_not_change_the_count_back_and_forth() -> None:
    """Above half a core one of two goes; below it stays away until others use a quarter less."""
    noise = [0.45, 0.55] * 20
    assert counts(2, noise) == [2] + [1] * 39
    assert counts(8, [0.2, 0.3] * 20)[1:] == [7] * 39


def test_a_program_that_comes_and_goes_within_a_look_costs_one_change() -> None:
    found = counts(2, [1.0, 0.0] * 20)
    assert found == [1] * 40


def test_a_fall_of_what_others_use_is_followed_step_by_step() -> None:
    found = counts(8, [4, 4, 3, 3, 2, 2, 1, 1, 0, 0])
    assert found == sorted(found)
    assert (found[0], found[-1]) == (4, 8)


class Machine:
    """A clock that the test sets, and the CPU time that others have used by then."""

    def __init__(self) -> None:
        self.now = 100.0
        self.used = 7.0
        self.readings = 0

    def pass_time(self, seconds: float, others: float) -> None:
        self.now += seconds
        self.used += others * seconds

    def read(self) -> float:
        self.readings += 1
        return self.used

    def watch(self, n_cores: int) -> CoreWatch:
        return CoreWatch(n_cores, self.read, lambda: self.now)


def test_the_system_is_asked_five_times_a_second_and_not_for_each_token() -> None:
    machine = Machine()
    watch = machine.watch(2)
    for _ in range(1000):
        machine.pass_time(0.001, others=0.0)
        assert watch.free() == 2
    assert machine.readings <= 6


def test_what_others_used_is_taken_by_the_time_that_passed() -> None:
    machine = Machine()
    watch = machine.watch(2)
    machine.pass_time(3.0, others=1.0)  # one long computation
    assert watch.free() == 1
    machine.pass_time(0.1, others=0.0)
    assert watch.free() == 1
    for _ in range(3):
        machine.pass_time(0.25, others=0.1)
        watch.free()
    assert watch.free() == 2


def test_what_was_used_while_the_model_was_loaded_counts_for_the_first_token() -> None:
    """An answer of the demo model is over before a second look: it took up to 40 times as long beside others."""
    machine = Machine()
    watch = machine.watch(2)
    machine.pass_time(0.3, others=1.5)
    assert watch.free() == 1


def native_threads(session: Session) -> tuple[int, int]:
    handle = engine_of(session).context.handle
    return llama_cpp.llama_n_threads(handle), llama_cpp.llama_n_threads_batch(handle)


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Four cores, the time and the others of a stand-in machine, for sessions that are opened."""
    machine = Machine()
    monkeypatch.setattr("internvl_gguf.hardware.cpu_tuning.default_threads", lambda: 4)
    monkeypatch.setattr("internvl_gguf.hardware.cpu_tuning.recorded_tuning", lambda: None)
    monkeypatch.setattr(in_process_runtime, "core_watch", lambda: machine.watch(4))
    return machine


def test_a_session_computes_with_as_many_threads_as_others_leave(crowded: Machine) -> None:
    sampling = SamplingParams(max_tokens=2)
    with Session.open("demo", flash_attn=False) as session:
        for others, threads in ((0.0, 4), (1.0, 3), (9.0, 1), (0.0, 1), (0.0, 4)):
            crowded.pass_time(1.0, others)
            session.ask("Go on.", sampling=sampling)
            assert native_threads(session) == (threads, threads)


def test_an_answer_under_way_changes_its_threads_and_not_its_words(
    crowded: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value is summed by one thread, so logits are the same to the last bit."""
    monkeypatch.setattr(TextModel, "is_end_of_generation", lambda *_: False)
    load = itertools.cycle((0.0, 9.0, 0.0, 0.0, 2.0))

    def logprobs(session: Session) -> tuple[str, np.ndarray]:
        answer = session.ask("Tell me about circles, at length.", sampling=SamplingParams(max_tokens=40)).text
        return answer, session.next_token_logprobs("And squares?")

    with Session.open("demo", flash_attn=False) as session:
        calm, calm_logprobs = logprobs(session)
    seen = set()
    with Session.open("demo", flash_attn=False) as session:
        context = engine_of(session).context
        decode = context.decode_token

        def crowd(*arguments: int) -> None:
            crowded.pass_time(0.3, next(load))
            seen.add(native_threads(session))
            decode(*arguments)

        monkeypatch.setattr(context, "decode_token", crowd)
        busy, busy_logprobs = logprobs(session)
    assert seen >= {(4, 4), (1, 1), (2, 2)}
    assert busy == calm
    np.testing.assert_array_equal(busy_logprobs, calm_logprobs)


def test_threads_that_a_person_asks_for_stay(crowded: Machine) -> None:
    with Session.open("demo", n_threads=3) as session:
        crowded.pass_time(1.0, others=9.0)
        session.ask("Go on.", sampling=SamplingParams(max_tokens=2))
        assert native_threads(session) == (3, 3)


def test_a_system_that_does_not_tell_keeps_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def untold() -> float:
        raise NotImplementedError

    monkeypatch.setattr(in_process_runtime, "seconds_used_by_others", untold)
    assert in_process_runtime.core_watch() is None
    assert EngineConfig().n_threads is None
    with Session.open("demo") as session:
        assert session.ask("Go on.", sampling=SamplingParams(max_tokens=2)).usage.completion_tokens > 0
