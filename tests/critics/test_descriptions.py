"""Descriptions of critics: shipped and own ones, steps split, scores joined, and mistakes told where they are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf import CatalogError, InvalidRequestError
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.critic_description import CriticDescription, template_parts
from internvl_gguf.models.critic_tables import critic_description, doubt_about, load_critics, read_critics
from internvl_gguf.models.toml_tables import Document

FIRST = "### Question:\n{pictures}{question}\n\n### Solution Process:\n{step}"
PLAIN = CriticDescription("plain", FIRST)
SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERNVL_CONFIG", str(tmp_path))
    return tmp_path / "models.toml"


def test_visualprm_is_described_as_its_code_asks_it() -> None:
    found = load_critics()["visualprm"]
    assert found.first_step == FIRST
    assert (found.next_step, found.steps, found.separator, found.max_steps) == ("{step}", "user", "\n\n", None)
    assert (found.marker, found.read, found.positive, found.negative) == ("+", "before", "+", "-")
    assert (found.system, found.aggregation, found.threshold, found.max_tiles) == (None, "mean", 0.85, 12)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("visualprm-8b", "visualprm"), ("VisualPRM-8B-v1_1:Q4_K_M", "visualprm"), ("Demo-Critic", "demo"),
        ("OpenGVLab/VisualPRM-8B-v1_1", "visualprm"), ("somebody/else-GGUF:Q8_0", "visualprm"), ("demo", "visualprm"),
    ],
)  # fmt: skip
def test_a_model_has_the_description_that_names_it_and_others_that_of_visualprm(model: str, expected: str) -> None:
    assert critic_description(None, model).name == expected


def test_an_own_critic_is_found_beside_the_shipped_ones_and_may_replace_one(own_file: Path) -> None:
    own_file.write_text(
        "[critics.mine]\n"
        'first_step = "Question: {pictures}{question}\\nProcess: {step}"\n'
        'steps = "user"\nsystem = ""\nmarker = "?"\nread = "at"\npositive = "Yes"\nnegative = "No"\n'
        'max_steps = 3\nwhole_answer = true\naggregation = "min"\nthreshold = 0.7\nmodels = ["mine-8B"]\n'
        '[critics.visualprm]\nfirst_step = "{pictures}{question}{step}"\n'
    )
    known = load_critics()
    assert list(known) == ["visualprm", "demo", "mine"]
    assert known["mine"] == CriticDescription(
        "mine", "Question: {pictures}{question}\nProcess: {step}", system="", marker="?", read="at", positive="Yes",
        negative="No", max_steps=3, whole_answer=True, aggregation="min", threshold=0.7, models=("mine-8B",),
    )  # fmt: skip
    assert known["visualprm"].first_step == "{pictures}{question}{step}"
    assert critic_description(None, "me/mine-8B:Q8_0") == known["mine"]
    assert load_catalog().find("InternVL3-8B") is not None


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        critic_description("visualprn", "demo")
    assert caught.value.message == "There is no description of a critic named 'visualprn'."
    assert caught.value.hint.startswith("Did you mean 'visualprm'? Known: visualprm, demo.")


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ('first_step = "{question}{step}"', "fields of first_step are {question}, {step}", "Write {pictures}, {quest"),
        ('first_step = "{pictures}{step}{question}"', "fields of first_step are", "in this order"),
        ('steps = "user"', "'first_step' is missing", "first_step = "),
        ('first_step = "%"\nnext_step = "more"', "fields of next_step are none", "{step} once"),
        ('first_step = "%"\nnext_step = "{question}{step}"', "{question}, {step}", "no other field"),
        ('first_step = "%"\nseparator = ""', "separator of the critic mine is empty", "Fill it in"),
        ('first_step = "%"\nnegative = "+"', "are both '+'", "two tokens"),
        ('first_step = "%"\nsteps = "system"', "steps of the critic mine is 'system'", "user, assistant"),
        ('first_step = "%"\nread = "after"', "read of the critic mine is 'after'", "before, at"),
        ('first_step = "%"\naggregation = "sum"', "'sum'", "mean, min, last, product"),
        ('first_step = "%"\nmax_steps = 0', "'max_steps' is 0", "above 0"),
        ('first_step = "%"\nthreshold = 1.5', "'threshold' is 1.5", "at most 1"),
        ('first_step = "%"\nwhole_answer = "yes"', "'whole_answer' is text", "true or false"),
        ('first_step = "%"\nsystem = 3', "'system' is a whole number", "text in quotes"),
        ('first_step = "%"\ntreshold = 0.5', "unknown key 'treshold'", "Did you mean 'threshold'"),
        ('first_step = "{step}"\nsteps = "assistant"', "fields of user and first_step are {step}", "once each"),
        ('first_step = "x"\nuser = "%"\nsteps = "assistant"', "first_step of the critic mine has no {step}", "{step}"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(line: str, message: str, hint: str) -> None:
    line = line.replace("%", "{pictures}{question}{step}")
    with pytest.raises(CatalogError) as caught:
        read_critics(Document(f"[critics.mine]\n{line}\n".encode(), "models.toml"))
    assert caught.value.message.startswith("models.toml, critics.mine")
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_a_description_made_in_python_is_checked_as_well() -> None:
    with pytest.raises(InvalidRequestError, match="threshold of the critic plain is 2"):
        replace(PLAIN, threshold=2)
    with pytest.raises(InvalidRequestError, match="max_tiles of the critic plain is 0"):
        replace(PLAIN, max_tiles=0)


def test_braces_that_are_no_field_are_text() -> None:
    parts = template_parts('{"a": 1} {question}{steps}')
    assert [(part.text, part.field) for part in parts] == [('{"a": 1} ', None), ("", "question"), ("{steps}", None)]


def test_an_answer_is_split_at_the_separator_and_empty_steps_are_none() -> None:
    assert PLAIN.split("One.\n\nTwo.\n\n\n\nThree.\n\n") == ("One.", "Two.", "Three.")
    assert PLAIN.split("One line.\nAnother.") == ("One line.\nAnother.",)
    assert PLAIN.split(" \n\n ") == ()
    assert replace(PLAIN, whole_answer=True).split("One.\n\nTwo.") == ("One.\n\nTwo.",)


def test_neighbours_are_joined_where_there_are_too_many_steps() -> None:
    seven = "\n\n".join("1234567")
    assert replace(PLAIN, max_steps=7).split(seven) == tuple("1234567")
    assert replace(PLAIN, max_steps=3).split(seven) == ("1\n\n2\n\n3", "4\n\n5\n\n6", "7")
    assert replace(PLAIN, max_steps=1).split(seven) == (seven,)


@given(st.lists(st.text("ab \n", min_size=1).filter(str.strip), min_size=1, max_size=30), st.integers(1, 12))
def test_joined_steps_are_few_enough_and_lose_nothing(parts: list[str], most: int) -> None:
    described = replace(PLAIN, separator="|", max_steps=most)
    steps = described.split("|".join(parts))
    assert 1 <= len(steps) <= most
    assert "|".join(steps) == "|".join(parts)
    assert len(steps) == math.ceil(len(parts) / math.ceil(len(parts) / most))


@given(SCORES)
def test_scores_are_joined_as_described(scores: list[float]) -> None:
    joined = {how: replace(PLAIN, aggregation=how).joined(scores) for how in ("mean", "min", "last", "product")}
    assert joined["mean"] == pytest.approx(sum(scores) / len(scores))
    assert joined["min"] == min(scores)
    assert joined["last"] == scores[-1]
    assert joined["product"] == pytest.approx(math.prod(scores))
    assert all(0 <= score <= 1 for score in joined.values())
    assert joined["product"] <= joined["min"] <= joined["mean"] + 1e-12


def test_a_model_that_no_description_names_is_doubted() -> None:
    description = load_critics()["visualprm"]
    assert "may mean nothing" in doubt_about("demo", description)
    for name in ("VisualPRM-8B", "somebody/VisualPRM-8B-v1_1-GGUF:Q4_K_M", "models/visualprm-8b-v1_1-q4_k_m.gguf"):
        assert doubt_about(name, description) == ""
