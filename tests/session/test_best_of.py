"""Several answers to one question: read once, judged, and one of them kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf import InvalidRequestError, Question, Reply, SamplingParams, Session
from internvl_gguf.judging import Candidate, JudgedQuestion
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session.candidate_answers import ranked
from internvl_gguf.session.candidate_samplings import samplings_of
from tests.support.exact import EXACT
from tests.support.pictures import noise
from tests.support.sessions import engine_of

WILD: dict[str, Any] = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "max_tokens": 12, "seed": 5}
PICTURE = Path(__file__).parents[2] / "src/internvl_gguf/demo/example.png"


@pytest.fixture
def session(tiny: ModelFiles) -> Iterator[Session]:
    with Session.open(tiny.text, tiny.mmproj, system="Be brief.", n_ctx=512, **EXACT) as opened:
        yield opened


@pytest.fixture(params=[False, True], ids=["here", "in a worker"])
def anywhere(tiny: ModelFiles, request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session.open(tiny.text, tiny.mmproj, n_ctx=512, system="", worker=request.param, **EXACT) as opened:
        yield opened


def test_each_answer_is_what_its_seed_gives_alone(anywhere: Session) -> None:
    found = anywhere.best_of("What?", [noise(1)], n=5, judge="certainty", **WILD)
    for candidate in found.candidates:
        anywhere.clear()
        alone = anywhere.ask("What?", [noise(1)], **{**WILD, "seed": candidate.seed})
        assert candidate.reply.text == alone.text
    assert [candidate.seed for candidate in found.candidates] == [5, 6, 7, 8, 9]


def test_pictures_are_encoded_and_the_prompt_is_read_once(session: Session) -> None:
    found = session.best_of("What?", [noise(1)], n=4, judge="certainty", **WILD)
    usages = [candidate.reply.usage for candidate in found.candidates]
    assert [usage.tiles_encoded for usage in usages] == [13, 0, 0, 0]
    assert [usage.prompt_tokens - usage.cached_tokens for usage in usages[1:]] == [1, 1, 1]


@pytest.mark.parametrize("best", [0, 2])
def test_the_usage_is_that_of_the_question_whichever_answer_is_chosen(session: Session, best: int) -> None:
    def takes(_: object, candidates: Sequence[Candidate]) -> list[float]:
        return [float(each.index == best) for each in candidates]

    reply = session.ask("What is it?", [noise(40)], best_of=3, judge=takes, max_tokens=3)
    assert (reply.usage.cached_tokens, reply.usage.tiles_encoded) == (0, reply.usage.tiles)
    assert reply.timings.prefill > 0
    assert reply.timings.encode > 0


def test_the_conversation_goes_on_from_the_chosen_answer(session: Session) -> None:
    def third(question: JudgedQuestion, candidates: Sequence[Candidate]) -> list[float]:
        return [float(candidate.index == 2) for candidate in candidates]

    found = session.best_of("What?", [noise(1)], n=4, judge=third, **WILD)
    assert found.reply.text == found.candidates[2].reply.text == session.messages[-1].text
    assert found.reply.selection is not None
    assert (found.reply.selection.best, found.scores) == (2, (0.0, 0.0, 1.0, 0.0))
    after = session.ask("And now?", max_tokens=3)
    known = found.reply.usage.prompt_tokens + found.reply.usage.completion_tokens
    assert after.usage.cached_tokens >= known - 1


def test_a_judge_is_told_what_was_asked(session: Session) -> None:
    told: list[JudgedQuestion] = []

    def first(question: JudgedQuestion, candidates: Sequence[Candidate]) -> list[float]:
        told.append(question)
        return [0.0] * len(candidates)

    session.ask("Who?", max_tokens=3)
    session.best_of("What?", [noise(1)], n=2, judge=first, choices=["a", "b"], **WILD)
    assert (told[0].prompt.split("\n")[0], len(told[0].pictures), len(told[0].messages)) == ("What?", 1, 3)
    assert told[0].format is not None


def test_a_vote_ends_once_nothing_can_change_it() -> None:
    ended: list[int] = []
    with Session.open("demo", n_ctx=512, n_candidates=2) as session:
        found = session.best_of(
            "What number is written?", PICTURE, n=8, seed=1, on_candidate=lambda each: ended.append(each.index)
        )
    reasons = [candidate.reply.finish_reason for candidate in found.candidates]
    assert found.reply.text == "98"
    assert reasons.count("stop") < 8
    assert sorted(ended) == list(range(8))


def test_ask_stream_and_batch_take_the_best_of_several(session: Session) -> None:
    told: list[tuple[int, int, int]] = []
    session.on_candidates(lambda ended, count, tokens: told.append((ended, count, tokens)))
    asked = session.ask("What?", best_of=3, judge="certainty", **WILD)
    session.clear()
    *_, last = chunks = list(session.stream("What?", best_of=3, judge="certainty", **WILD))
    session.clear()
    (answered,) = session.batch([Question("What?", options={"best_of": 3})], judge="certainty", **WILD)
    assert isinstance(answered, Reply)
    assert last.reply is not None
    assert "".join(chunk.text for chunk in chunks) == last.reply.text == asked.text
    assert answered.selection is not None
    assert asked.selection is not None
    texts = [[candidate.text for candidate in each.candidates] for each in (answered.selection, asked.selection)]
    assert texts[0] == texts[1]
    assert len(asked.to_dict()["selection"]["candidates"]) == 3
    assert told[-1][:2] == (3, 3)


def test_abort_keeps_the_best_so_far(session: Session) -> None:
    def stop(candidate: Candidate) -> None:
        threading.Thread(target=session.abort).run()

    found = session.best_of("What?", n=6, judge="certainty", on_candidate=stop, **{**WILD, "max_tokens": 40})
    reasons = [candidate.reply.finish_reason for candidate in found.candidates]
    assert "aborted" in reasons
    assert found.reply.finish_reason != "aborted" or set(reasons) == {"aborted"}
    assert session.messages[-1].text == found.reply.text


def test_the_value_of_a_form_is_that_of_the_chosen_answer(session: Session) -> None:
    found = session.best_of("What?", n=4, choices=["red", "blue"], **WILD)
    assert found.reply.parsed in ("red", "blue")
    assert found.reply.parsed == found.candidates[found.verdict.best].reply.parsed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 0}, "best_of is 0"),
        ({"n": 1000}, "best_of is 1000"),
        ({"n": "many"}, "best_of is 'many'"),
        ({"n": 4, "judge": 5}, "judge is 5"),
        ({"n": 4, "sampling": SamplingParams(judge="jury")}, "judge is 'jury'"),
        ({"n": 4, "temperature": 0.0}, "all 4 answers would be equal"),
        ({"n": 4, "top_k": 1}, "all 4 answers would be equal"),
        ({"n": 4, "judge": "jury"}, "judge is 'jury'"),
        ({"n": 4, "on_candidate": 5}, "on_candidate"),
        ({"n": 2, "judge": lambda question, candidates: [1.0]}, "judge"),
        ({"n": 2, "judge": lambda question, candidates: 1 / 0}, "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_lost(session: Session, options: dict[str, Any], said: str) -> None:
    session.ask("Who?", max_tokens=3)
    before = session.messages
    with pytest.raises(InvalidRequestError, match=said) as refused:
        session.best_of("What?", max_tokens=3, **options)
    assert refused.value.hint
    assert session.messages == before
    session.ask("And now?", max_tokens=3)


def test_ctrl_c_in_between_leaves_the_conversation_as_it_was(session: Session) -> None:
    def interrupt(candidate: Candidate) -> None:
        raise KeyboardInterrupt

    before = session.messages
    with pytest.raises(KeyboardInterrupt):
        session.best_of("What?", n=4, judge="certainty", on_candidate=interrupt, **WILD)
    assert session.messages == before
    session.ask("And now?", max_tokens=3)


def test_the_published_protocol_is_the_default() -> None:
    first, *others = samplings_of(SamplingParams(best_of=4, seed=7))
    assert (first.effective_temperature, first.seed) == (0.0, None)
    assert [(each.temperature, each.top_p, each.seed) for each in others] == [(0.7, 0.95, seed) for seed in (8, 9, 10)]
    assert {each.temperature for each in samplings_of(SamplingParams(best_of=4, temperature=0.3))} == {0.3}
    assert {each.effective_temperature for each in samplings_of(SamplingParams(best_of=4, thinking=True))} == {0.6}


def test_a_judge_may_be_named_by_the_sampling(session: Session) -> None:
    by_sampling = session.ask("What?", best_of=3, sampling=SamplingParams(judge="certainty", **WILD))
    assert by_sampling.selection is not None
    assert by_sampling.selection.reason.startswith("certainty ")


def test_a_judge_with_one_answer_is_said_to_have_nothing_to_choose_from(session: Session) -> None:
    reply = session.ask("What?", judge="certainty", max_tokens=3)
    assert reply.selection is None
    assert "nothing to choose from" in reply.notices[0]
    assert session.ask("And?", sampling=SamplingParams(judge="a critic"), max_tokens=3).notices == ()


def test_answers_that_were_all_cut_are_said_to_be(session: Session) -> None:
    found = session.best_of("What?", n=3, judge="certainty", **{**WILD, "max_tokens": 1})
    assert {candidate.reply.finish_reason for candidate in found.candidates} == {"length"}
    assert "All 3 answers were cut at their limit" in found.reply.notices[0]


def test_answers_that_wait_for_room_are_said_to_wait(tiny: ModelFiles) -> None:
    long = {**WILD, "max_tokens": 100}
    with Session.open(tiny.text, tiny.mmproj, n_ctx=256, n_candidates=12, system="", **EXACT) as session:
        found = session.best_of("What?", n=12, judge="certainty", **long)
        session.clear()
        short = session.best_of("Why?", n=2, judge="certainty", **{**long, "max_tokens": 4})
    (waited,) = [notice for notice in found.reply.notices if "waited for others" in notice]
    assert "no room for all 12 answers" in waited
    assert not any("waited" in notice for notice in short.reply.notices)


def test_a_judge_of_ones_own_is_not_asked_about_answers_that_abort_cut(session: Session) -> None:
    judged: list[list[str]] = []

    def first(question: JudgedQuestion, candidates: Sequence[Candidate]) -> list[float]:
        judged.append([candidate.reply.finish_reason for candidate in candidates])
        return [float(candidate.index) for candidate in candidates]

    def stop(candidate: Candidate) -> None:
        session.abort()

    found = session.best_of("What?", n=12, judge=first, on_candidate=stop, **WILD)
    assert judged
    assert "aborted" not in judged[0]
    assert len(judged[0]) < len(found.candidates) == len(found.scores)
    assert found.reply.finish_reason != "aborted"
    assert "unfinished" in found.verdict.reason
    assert max(found.scores) == found.scores[found.verdict.best]


def test_where_none_has_ended_no_judge_is_asked(session: Session) -> None:
    def never(question: JudgedQuestion, candidates: Sequence[Candidate]) -> list[float]:
        raise AssertionError("nothing to judge")

    session.on_candidates(lambda ended, every, tokens: session.abort() if tokens else None)
    found = session.best_of("What?", n=3, judge=never, **WILD)
    assert found.reply.finish_reason == "aborted"
    assert found.verdict.reason == "none had ended"


def test_the_candidates_are_ranked_with_the_best_first(session: Session) -> None:
    def by_index(question: JudgedQuestion, candidates: Sequence[Candidate]) -> list[float]:
        return [float(candidate.index) for candidate in candidates]

    found = session.best_of("What?", n=5, judge=by_index, **WILD)
    assert ranked(found)[0] == found.verdict.best == 4
    of_their_own = [index for index in ranked(found)[1:] if found.candidates[index].reply.finish_reason == "stop"]
    cut = [index for index in ranked(found)[1:] if found.candidates[index].reply.finish_reason == "length"]
    assert of_their_own == sorted(of_their_own, reverse=True)
    assert ranked(found)[1:] == of_their_own + cut


def test_a_question_after_several_answers_has_the_room_that_those_took(tiny: ModelFiles) -> None:
    with Session.open(tiny.text, tiny.mmproj, n_ctx=256, n_candidates=12, system="", **EXACT) as session:
        session.best_of("What?", n=12, judge="certainty", **{**WILD, "max_tokens": 40})
        after = session.ask("And which of the many others would it be, if it were none of these?", max_tokens=3)
        engine_of(session).check_integrity()
    assert after.finish_reason in ("stop", "length")
