"""The lessons of the demo model: their prompts are the runtime's, and their targets lie where the answers say."""

from __future__ import annotations

import json
from random import Random

import pytest

from internvl_gguf.structured.outline import outline
from training.albums import album, ask_album
from training.boxes import ask_box, ask_detection, boxes_in, thousandths
from training.forms import FORM, ask_form
from training.frames import random_clip
from training.packing import beginning, pack
from training.questions import Question, ask_description, ask_reading
from training.read_gguf import read, training_tokenizer
from training.receipts import ask_receipt_form, random_receipt
from training.scenes import EDGE_STEPS, shapes_scene, text_scene
from training.tokenizer import Tokenizer

SEEDS = range(0, 300, 3)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    from internvl_gguf.models.resolve import resolve_model

    return training_tokenizer(read(resolve_model("demo").text.parent).tokenizer)


def any_form(seed: int) -> Question:
    """A form about shapes or a receipt."""
    rng = Random(seed)
    if seed % 2:
        return ask_form(shapes_scene(rng, (200, 200), text=seed % 3 == 0), rng)
    return ask_receipt_form(random_receipt(rng), rng)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_form_is_shown_as_the_runtime_shows_its_schema(seed: int) -> None:
    question = any_form(seed)
    assert question.schema is not None
    assert question.text.split(FORM)[1] == outline(question.schema)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_to_a_form_is_json_as_python_writes_it(seed: int) -> None:
    question = any_form(seed)
    value = json.loads(question.answer)
    if seed % 2:  # amounts of receipts keep their two decimals
        assert json.dumps(value) == question.answer


def test_values_of_a_form_are_marked_where_they_begin() -> None:
    for seed in SEEDS:
        question = any_form(seed)
        for at, _ in question.marks:
            before, after = question.answer[:at], question.answer[at:]
            value_begins = before.endswith((":", "[", ",")) and not after.startswith(("}", "]"))
            letter_follows = after[0].isalnum() or after[0] == "."
            assert value_begins or letter_follows, (before, after)


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_are_the_targets_of_their_labels(seed: int) -> None:
    rng = Random(seed)
    scene = shapes_scene(rng, (300, 200), text=seed % 2 == 0)
    question = ask_box(scene, rng)
    if question is not None and question.target is not None:
        assert [box for _, box in boxes_in(question.answer)] == [thousandths(question.target)]
    found = ask_detection(scene, rng)
    if found is not None:
        boxes = [box for _, box in boxes_in(found.answer)]
        marked = [thousandths(target) for _, target in found.marks]
        assert all(box in marked for box in boxes)


@pytest.mark.parametrize("seed", SEEDS)
def test_edges_lie_in_the_picture_and_in_order(seed: int) -> None:
    rng = Random(seed)
    asked = [
        ask_description(shapes_scene(rng, text=True), rng),
        ask_reading(text_scene(rng), rng),
        ask_album(album(rng, 3), rng),
        *random_clip(rng, 4).questions,
    ]
    for question in asked:
        for target in (*(mark for _, mark in question.marks), *([question.target] if question.target else [])):
            assert target.picture >= 1
            if target.edges:
                left, top, right, bottom = target.edges
                assert 0 <= left <= right <= EDGE_STEPS
                assert 0 <= top <= bottom <= EDGE_STEPS


def test_targets_stand_at_the_token_before_their_part(tokenizer: Tokenizer) -> None:
    rng = Random(7)
    scene = text_scene(rng, (300, 200), text="STOP")
    question = Question("reading", "Read the word.", "STOP", marks=ask_reading(scene, rng).marks)
    packed = pack(tokenizer, beginning(tokenizer, None, (36,)), [[question]])
    before = [tokenizer.decode([packed.ids[token]]) for token in packed.targets[:, 0]]
    assert before == ["S", "T", "O"]
