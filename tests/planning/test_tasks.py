"""What a model is for: published scores are weighed beside memory, speed and loss, and unknown ones are not zero."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from internvl_gguf.models.listing import family, list_model
from internvl_gguf.planning import Configuration, MemoryBudget, Task, Workload, rank, reason
from internvl_gguf.planning.candidates import Candidate
from internvl_gguf.planning.task_scores import NO_SCORES, TaskScores

GIB = 2**30
ROOMY = MemoryBudget(128 * GIB, (80 * GIB,))
TASKS: tuple[Task, ...] = ("ocr", "charts", "reasoning", "video", "grounding")


@cache
def candidates() -> tuple[Candidate, ...]:
    return tuple(candidate for listing in family() for candidate in listing.candidates)


def order(ranked: list[Configuration]) -> list[str]:
    """The models in the order of their best quants."""
    return list(dict.fromkeys(each.candidate.model for each in ranked))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("gpu", [6, 12, 24])
def test_a_task_hides_nothing(task: Task, gpu: int) -> None:
    budget = MemoryBudget(32 * GIB, (gpu * GIB,))
    plain, weighed = (rank(candidates(), budget, Workload(), None, "balanced", each) for each in (None, task))
    assert {each.candidate for each in plain} == {each.candidate for each in weighed}


def test_at_one_size_the_better_release_comes_first() -> None:
    """InternVL3.5 reasons better, InternVL3 reads and sees video better: MMMU 73.4 to 62.7, OCRBench 840 to 880."""
    old, new = "InternVL3-8B-Instruct", "InternVL3_5-8B"
    eights = [each for each in candidates() if each.model in (old, new)]
    better: dict[Task, str] = {"reasoning": new, "ocr": old, "video": old}
    for task, best in better.items():
        assert order(rank(eights, ROOMY, Workload(), None, "quality", task))[0] == best


def test_points_are_weighed_beside_seconds_and_loss() -> None:
    """Five points outweigh a doubling of the seconds or a loss of 0.1, and no more."""
    (base,) = (each for each in list_model("InternVL3-8B-Instruct:Q4_K_M").candidates if each.quant == "Q4_K_M")

    def first(points: float, loss: float) -> str:
        other = replace(base, model="other", loss=base.loss + loss, scores=TaskScores("other", {"ocr": 80.0 + points}))
        own = replace(base, scores=TaskScores(base.model, {"ocr": 80.0}))
        return rank([own, other], ROOMY, Workload(), None, "balanced", "ocr")[0].candidate.model

    assert first(points=3.5, loss=0.06) == "other"
    assert first(points=2.5, loss=0.06) == base.model
    assert first(points=0.0, loss=0.0) == base.model
    assert first(points=-1.0, loss=0.0) == base.model


def test_a_model_without_figures_comes_behind_those_with_them_and_not_as_zero() -> None:
    ranked = rank(candidates(), ROOMY, Workload(), None, "balanced", "ocr")
    assert order(ranked)[-1] == "InternVL2_5-4B"
    mine = [replace(each, model="mine", scores=NO_SCORES) for each in list_model("InternVL3-8B-Instruct").candidates]
    unknown = rank(mine, ROOMY, Workload(), None, "balanced", "ocr")
    assert [each.candidate.quant for each in unknown] == [
        each.candidate.quant for each in rank(mine, ROOMY, Workload(), None)
    ]


def test_what_fits_a_gpu_whole_still_comes_before_what_scores_more() -> None:
    budget = MemoryBudget(64 * GIB, (8 * GIB,))
    ranked = rank(candidates(), budget, Workload(), None, "balanced", "ocr")
    assert ranked[0].is_full
    unfinished = [each.is_full for each in ranked]
    assert unfinished == sorted(unfinished, reverse=True) or not all(unfinished)
    best = max(each.candidate.scores.points.get("ocr", 0.0) for each in ranked)
    assert ranked[0].candidate.scores.points["ocr"] < best


def test_quality_weighs_points_and_speed_says_that_it_does_not() -> None:
    by_quality = rank(candidates(), ROOMY, Workload(), None, "quality", "reasoning")
    assert by_quality[0].candidate.model == "InternVL3_5-38B"
    assert "for the most points" in reason(by_quality, "quality", "reasoning")
    by_speed = rank(candidates(), ROOMY, Workload(), None, "speed", "reasoning")
    assert [each.candidate for each in by_speed] == [
        each.candidate for each in rank(candidates(), ROOMY, Workload(), None, "speed")
    ]
    assert "points do not count with --speed" in reason(by_speed, "speed", "reasoning")


def test_memory_and_context_of_24_tiles() -> None:
    """25 tiles of 256 tokens with their two marks, and their embeddings in host memory."""
    listing = list_model("InternVL3-14B-Instruct:Q4_K_M")
    (quant,) = (each for each in listing.candidates if each.quant == "Q4_K_M")
    plans = {}
    for tiles in (12, 24):
        workload = Workload(n_ctx=16384, pictures=2, max_tiles=tiles)
        assert workload.picture_positions(256) == 2 * ((tiles + 1) * 256 + 2)
        (plans[tiles],) = rank([quant], ROOMY, workload, None)
    assert plans[24].plan.picture_positions == 2 * (25 * 256 + 2)
    assert plans[24].plan.host.embeddings == 4 * 2 * 25 * 256 * 5120
    assert plans[24].plan.picture_kv == plans[24].plan.picture_positions * plans[24].plan.kv_bytes_per_position
    assert plans[24].plan.host.embeddings - plans[12].plan.host.embeddings == 4 * 2 * 12 * 256 * 5120
    assert plans[24].plan.host.total - plans[12].plan.host.total == 4 * 2 * 12 * 256 * 5120
    assert plans[24].speed.picture_seconds is not None
    assert plans[12].speed.picture_seconds is not None
    assert plans[24].speed.picture_seconds.low == pytest.approx(25 / 13 * plans[12].speed.picture_seconds.low, rel=0.1)
