"""The queue: what runs, who is next, and what is refused."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.server.admission import Admission, Place
from internvl_gguf.server.api_errors import RefusedRequestError


def begun(places: list[Place]) -> list[int]:
    return [number for number, place in enumerate(places) if place.has_begun.is_set()]


def test_a_client_with_many_requests_delays_another_by_one() -> None:
    admission = Admission(1, 100)
    many = [admission.enter("many") for _ in range(10)]
    one = admission.enter("one")
    assert one.waiting_before == 1
    many[0].release()
    assert begun(many) == [0, 1] or one.has_begun.is_set()
    many[1].release()
    assert one.has_begun.is_set()


def test_the_queue_is_bounded() -> None:
    admission = Admission(1, 2)
    places = [admission.enter("a") for _ in range(3)]
    with pytest.raises(RefusedRequestError) as caught:
        admission.enter("b")
    assert (caught.value.status, caught.value.code) == (503, "queue_full")
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1
    places[2].release()
    admission.enter("b")


def test_requests_that_are_being_prepared_count() -> None:
    admission = Admission(1, 2)
    admission.enter("a")
    admission.check_room(1)
    with pytest.raises(RefusedRequestError):
        admission.check_room(2)


def test_a_queue_of_none_still_answers_one() -> None:
    admission = Admission(1, 0)
    first = admission.enter("a")
    with pytest.raises(RefusedRequestError):
        admission.enter("a")
    first.release()
    admission.enter("a")


def test_those_that_wait_are_refused_at_the_end() -> None:
    admission = Admission(1, 5)
    running, waiting = admission.enter("a"), admission.enter("a")
    error = RuntimeError("stopping")
    admission.refuse_waiting(error)
    assert waiting.refusal is error
    assert waiting.has_begun.is_set()
    waiting.release()
    assert (admission.running, admission.waiting) == (1, 0)
    running.release()
    assert admission.running == 0


@given(
    parallel=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(["enter", "release"]), st.integers(0, 50)), max_size=80),
)
def test_places_are_neither_lost_nor_doubled(parallel: int, steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        admission = Admission(parallel, 1000)
        places: list[Place] = []
        for kind, number in steps:
            if kind == "enter":
                places.append(admission.enter(number % 3))
            elif places:
                place = places.pop(number % len(places))
                place.release()
                place.release()  # the second time changes nothing
            running = [place for place in places if place.has_begun.is_set()]
            assert admission.running == len(running) == min(parallel, len(places))
            assert admission.waiting == len(places) - len(running)
            assert Counter(place.client for place in running) == {k: v for k, v in admission._running.items() if v}
            assert all(0 <= place.waiting_before < len(places) for place in places)

    asyncio.run(run())
