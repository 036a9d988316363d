"""Answers bound to a form, through sessions: the tiny model says nothing sensible, and always in the form."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from internvl_gguf import InvalidRequestError, Message, Question, Reply, SamplingParams, Session
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.structured import format_of
from tests.support.exact import EXACT
from tests.support.pictures import noise

Word = Literal["tea", "cake", "soup"]
SEEDED = SamplingParams(temperature=1.5, top_k=0, top_p=1.0, seed=5)


class Item(BaseModel):
    name: Word
    pieces: int = Field(ge=1, le=9)


class Receipt(BaseModel):
    """What a receipt says."""

    shop: Literal["North", "South"] = Field(description="the name at the top")
    items: list[Item] = Field(min_length=1, max_length=2)
    paid: bool


@dataclass
class Point:
    x: Literal[1, 2]
    y: Literal[1, 2]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "dark blue"


SMALL = {"type": "object", "properties": {"word": {"enum": ["tea", "cake"]}}, "required": ["word"]}


@pytest.fixture(scope="module")
def worker_session(tiny: ModelFiles) -> Iterator[Session]:
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=1024, n_parallel=2, worker=True, **EXACT) as opened:
        yield opened


def test_a_model_class_gives_an_instance(session: Session) -> None:
    reply = session.ask("What does it say?", [noise(1)], schema=Receipt)
    assert isinstance(reply.parsed, Receipt)
    assert reply.parsed == Receipt.model_validate_json(reply.text)
    assert reply.finish_reason == "stop"
    assert reply.notices == ()
    assert reply.usage.forced_tokens > 20
    assert json.loads(json.dumps(reply.to_dict()))["parsed"] == json.loads(reply.text)


def test_a_dataclass_a_type_and_the_short_form(session: Session) -> None:
    assert isinstance(session.ask("Where?", schema=Point).parsed, Point)
    assert session.ask("Which?", schema=list[Point], max_tokens=400).parsed is not None
    parsed = session.ask("Which?", schema="is_round bool, is_red bool").parsed
    assert {name: type(value) for name, value in parsed.items()} == {"is_round": bool, "is_red": bool}


def test_choices_give_what_was_given(session: Session) -> None:
    assert session.ask("Which?", choices=["red", "blue"]).parsed in ("red", "blue")
    assert session.ask("Which?", choices=[1, 2.5]).parsed in (1, 2.5)
    assert isinstance(session.ask("Which?", choices=Colour).parsed, Colour)


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ({"regex": r"[A-Z]{3}-\d{2}"}, r"[A-Z]{3}-\d{2}"),
        ({"grammar": 'start: "<" /[ab]{2}/ ">"'}, "<[ab]{2}>"),
        ({"grammar": 'root ::= "x" [yz] [yz]'}, "x[yz]{2}"),
    ],
    ids=["regex", "Lark", "GBNF"],
)
def test_grammars_and_regular_expressions(session: Session, form: dict[str, str], pattern: str) -> None:
    reply = session.ask("Which?", **form)  # type: ignore[arg-type]
    assert re.fullmatch(pattern, reply.text)
    assert reply.parsed == reply.text


def test_the_question_ends_with_the_form_unless_that_is_turned_off(session: Session) -> None:
    session.ask("What?", schema=Receipt)
    assert session.messages[-2].text.startswith("What?\n\nAnswer with JSON of this form:\n{\n")
    assert '"shop": "North" | "South", // the name at the top\n' in session.messages[-2].text
    session.ask("What?", choices=["a", "b"])
    assert session.messages[-2].text == "What?\n\nAnswer with one of these: a, b"
    session.ask("What?", schema=Receipt, format_in_prompt=False)
    assert session.messages[-2].text == "What?"
    session.ask("What?", regex="a|b")
    assert session.messages[-2].text == "What?"


def test_the_next_turn_reads_nothing_again(session: Session) -> None:
    first = session.ask("What does it say?", [noise(1)], schema=Receipt)
    second = session.ask("And now?", choices=["yes", "no"])
    # The tokens that were forced at the very end were not computed: the answer was known without.
    assert second.usage.cached_tokens >= first.usage.prompt_tokens + first.usage.completion_tokens - 12
    assert second.usage.tiles_encoded == 0


def test_streams_show_what_is_there(session: Session) -> None:
    chunks = list(session.stream("What?", schema=Receipt))
    seen = [chunk.partial for chunk in chunks if chunk.partial]
    assert seen[-1] == json.loads("".join(chunk.text for chunk in chunks))
    keys = [list(each) for each in seen]
    assert keys == sorted(keys, key=len)
    assert all(isinstance(each, dict) for each in seen)
    assert chunks[-1].reply is not None
    assert isinstance(chunks[-1].reply.parsed, Receipt)
    assert all(chunk.partial is None for chunk in session.stream("What?", max_tokens=3))


@pytest.mark.parametrize("form", [{"schema": Receipt}, {"choices": ["a long choice", "another long choice"]}])
def test_an_answer_that_was_cut_off_has_no_value_and_says_so(session: Session, form: dict[str, Any]) -> None:
    reply = session.ask("What?", max_tokens=3, **form)
    assert reply.finish_reason == "length"
    assert reply.parsed is None
    assert reply.notices == ("The answer ended before its form was complete, so there is no parsed value.",)
    assert session.messages[-1].text == reply.text  # nothing is lost


def test_a_stop_string_may_end_an_answer_inside_its_form(session: Session) -> None:
    reply = session.ask("What?", schema=Receipt, stop="items")
    assert reply.text.endswith('"')
    assert reply.parsed is None
    assert "stop string" in reply.notices[0]


def test_what_checks_of_the_users_own_refuse_is_told(session: Session) -> None:
    class Strict(BaseModel):
        word: Word

        @field_validator("word")
        @classmethod
        def _never(cls, value: str) -> str:
            raise ValueError("no word is good enough")

    reply = session.ask("What?", schema=Strict)
    assert reply.parsed is None
    assert "no word is good enough" in reply.notices[0]
    assert json.loads(reply.text)["word"] in ("tea", "cake", "soup")


FORMS: tuple[dict[str, Any], ...] = ({"schema": Receipt}, {"choices": ["yes", "no"]}, {"regex": "[ab]{4}"}, {})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(forms=st.lists(st.sampled_from(FORMS), min_size=1, max_size=5), sampling=st.sampled_from([None, SEEDED]))
def test_in_a_batch_as_alone(
    worker_session: Session, forms: list[dict[str, Any]], sampling: SamplingParams | None
) -> None:
    """In another process, too."""
    questions = [Question(f"Question {index}?", max_tokens=90, **form) for index, form in enumerate(forms)]
    shared: dict[str, Any] = {"sampling": sampling, "choices": ["1", "2"]}
    together = worker_session.batch(questions, **shared)
    for question, outcome in zip(questions, together, strict=True):
        assert isinstance(outcome, Reply)
        alone = worker_session.fork()
        options = {**question.options} if len(question.options) > 1 else {"choices": ["1", "2"], **question.options}
        assert alone.ask(question.prompt, sampling=sampling, **options).parsed == outcome.parsed  # type: ignore[arg-type]
        alone.close()


def test_forks_are_bound_for_themselves(session: Session) -> None:
    session.ask("Look.", [noise(1)], max_tokens=2)
    fork = session.fork()
    assert fork.ask("Which?", choices=["a", "b"]).parsed in ("a", "b")
    assert session.ask("Which?", choices=["c", "d"]).parsed in ("c", "d")
    assert [message.text for message in fork.messages[:3]] == [message.text for message in session.messages[:3]]
    fork.close()


def test_a_form_that_was_made_before(session: Session) -> None:
    form = format_of(schema=SMALL)
    assert form is not None
    assert session.ask("What?", answer_format=form).parsed["word"] in ("tea", "cake")


def refused(options: dict[str, Any]) -> Callable[[Session], object]:
    return lambda session: session.ask("What?", **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"schema": SMALL, "choices": ["a"]}, "one form, not schema= and choices="),
        ({"schema": {"type": "nothing"}}, "schema"),
        ({"schema": {"type": "string", "minLength": 5, "maxLength": 2}}, "No answer fits"),
        ({"schema": {"$ref": "https://example.com/schema.json"}}, "example.com"),
        ({"schema": {"$ref": "#"}}, "end"),
        ({"schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"schema": "not json at: all {"}, "schema"),
        ({"schema": {"enum": ["x" * 300_000]}}, "KiB"),
        ({"choices": []}, "choices is empty"),
        ({"choices": ["a", "a"]}, "twice"),
        ({"choices": "ab"}, "choices is"),
        ({"regex": "("}, "regular expression"),
        ({"grammar": "start: nothing"}, "nothing"),
        ({"answer_format": 5}, "answer_format"),
        ({"format_in_prompt": "no"}, "format_in_prompt"),
        ({"boxes": True, "regex": "a"}, "one form"),
        ({"boxes": "x.png"}, "boxes is"),
        ({"schema": False}, "schema is false"),
        ({"schema": Point(1, 1)}, "is no type"),
        ({"schema": "schema.json"}, "is none"),
    ],
    ids=str,
)
def test_forms_that_cannot_be_used_leave_the_conversation_as_it_was(
    session: Session, options: dict[str, Any], told: str
) -> None:
    before: tuple[Message, ...] = session.messages
    with pytest.raises(InvalidRequestError, match=re.escape(told)) as caught:
        session.ask("What?", **options)
    assert "\n" not in caught.value.message + caught.value.hint
    assert session.messages == before
    assert session.ask("What?", choices=["a", "b"]).parsed in ("a", "b")


def test_a_form_of_one_question_of_a_batch_fails_alone(session: Session) -> None:
    outcomes = session.batch([Question("a", choices=["x", "y"]), Question("b", schema={"type": 5}), "c"], max_tokens=2)
    assert isinstance(outcomes[0], Reply)
    assert isinstance(outcomes[1], InvalidRequestError)
    assert isinstance(outcomes[2], Reply)


def test_a_grammar_may_name_the_tags_of_boxes() -> None:
    """Its answer was matched without them, and had no value."""
    grammar = 'start: <ref> "circle" </ref> <box> "[[100, 200, 300, 400]]" </box>'
    with Session.open("demo", n_threads=1, embedding_disk_bytes=0) as session:
        reply = session.ask("Where?", [noise(1)], grammar=grammar, max_tiles=1)
    assert reply.parsed == "<ref>circle</ref><box>[[100, 200, 300, 400]]</box>"
    assert reply.text == "circle[[100, 200, 300, 400]]"
    assert [box.thousandths for box in reply.boxes] == [(100, 200, 300, 400)]


@pytest.mark.parametrize("form", [{"regex": "<ref>ab</ref>"}, {"schema": {"const": "<ref>ab</ref>"}}])
def test_tags_in_letters_are_letters(session: Session, form: dict[str, Any]) -> None:
    reply = session.ask("What?", **form)
    assert reply.parsed == "<ref>ab</ref>"
    assert reply.notices == ()


def test_what_has_properties_is_an_object(session: Session) -> None:
    schema = {"properties": {"word": {"enum": ["tea", "cake"]}}, "required": ["word"]}
    assert session.ask("What?", schema=schema).parsed["word"] in ("tea", "cake")
