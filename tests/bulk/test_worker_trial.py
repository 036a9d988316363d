"""How many workers are worth it, by rates that are made up and by a clock that is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.bulk.worker_trial import Measured, RateWindow, WorkerTrial, is_worth_a_trial, known_workers
from internvl_gguf.utils.records import WORKERS


def found_by(rate: Callable[[int], float], most: int, *, may_grow: bool = True) -> WorkerTrial:
    trial = WorkerTrial(most)
    while not trial.is_settled:
        trial.add(rate(trial.workers), may_grow=may_grow)
    return trial


def test_more_are_tried_while_that_helps() -> None:
    assert found_by(lambda workers: min(workers, 4), 16).rates == {1: 1, 2: 2, 4: 4, 8: 4}
    assert found_by(lambda workers: min(workers, 4), 16).workers == 4
    assert found_by(lambda workers: workers, 6).workers == 6
    assert list(found_by(lambda workers: workers, 6).rates) == [1, 2, 4, 6]


def test_what_is_no_faster_is_not_worth_its_memory() -> None:
    assert found_by(lambda workers: 1 + 0.04 * workers, 8).workers == 1
    assert found_by(lambda workers: 1 / workers, 8).workers == 1


@given(st.lists(st.floats(0, 10), min_size=8, max_size=8), st.integers(1, 128))
def test_every_trial_ends_with_a_number_that_was_tried(rates: list[float], most: int) -> None:
    trial = found_by(lambda workers: rates[workers.bit_length() - 1], most)
    assert trial.workers in trial.rates
    assert trial.workers <= most
    assert trial.rates[trial.workers] >= max(trial.rates.values()) / 1.1


def test_where_few_lines_are_left_nothing_is_proven() -> None:
    trial = found_by(lambda workers: workers, 8, may_grow=False)
    assert (trial.workers, trial.is_proven) == (1, False)
    assert found_by(lambda workers: 0.0, 8).is_proven is False
    assert found_by(lambda workers: 1.0, 1).is_proven is True
    assert is_worth_a_trial(1000, 4)
    assert not is_worth_a_trial(100, 4)


def test_a_window_begins_behind_the_first_answers_and_counts_work() -> None:
    now = 0.0
    window = RateWindow(2, lambda: now)
    for second, work in enumerate([100.0, 100.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]):
        now = 10.0 * second
        assert not window.is_over
        window.add(work)
    assert window.is_over
    assert window.rate == pytest.approx(18 / 60)


def test_a_number_is_remembered_and_damage_is_not_believed(cache_folder: Path) -> None:
    assert known_workers("here") is None
    Measured(3, {1: 1.0, 2: 1.5, 3: 2.0}).keep("here")
    assert known_workers("here") == 3
    for damaged in (0, "many", None):
        kept = json.loads(WORKERS.path.read_text())
        kept["entries"]["here"]["workers"] = damaged
        WORKERS.path.write_text(json.dumps(kept))
        assert known_workers("here") is None
    WORKERS.path.unlink()
