"""The critic inside this package: it has the demo's encoder, and knows right shapes and colours from wrong ones.

How much it is worth, of more questions, is measured by `python -m training.critic_exam` and stands in docs/critics.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from internvl_gguf import ModelFileError, Picture, Session
from internvl_gguf.critics import Critic
from internvl_gguf.demo.__main__ import EXAMPLE
from internvl_gguf.gguf.header import read_header
from internvl_gguf.models.resolve import resolve_model
from training.critic_cases import spoiled
from training.exam import items
from training.fonts import EMBEDDED, faces

EACH = 30


@pytest.fixture(scope="module")
def critic() -> Iterator[Critic]:
    with Critic.open("demo", n_threads=1, n_ctx=2048) as opened:
        yield opened


@pytest.fixture
def pillow_font_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one face that every machine has, so that the same pictures are drawn everywhere."""
    embedded = tuple(face for face in faces() if face.path == EMBEDDED)
    for module in ("scenes", "receipts"):
        monkeypatch.setattr(f"training.{module}.faces", lambda: embedded)


def test_it_is_the_demo_with_another_text_model() -> None:
    demo, found = resolve_model("demo"), resolve_model("demo-critic")
    assert found.mmproj == demo.mmproj
    assert found.text.name == "demo-critic-text-Q8_0.gguf"
    assert found.text.stat().st_size < 8_000_000
    own, other = read_header(found.text), read_header(demo.text)
    assert own.key_values["tokenizer.ggml.tokens"] == other.key_values["tokenizer.ggml.tokens"]
    assert {name: tensor.shape for name, tensor in own.tensors.items()} == {
        name: tensor.shape for name, tensor in other.tensors.items()
    }


def test_the_demo_is_still_the_demo() -> None:
    assert resolve_model("demo").text.name == "demo-text-BF16.gguf"
    with pytest.raises(ModelFileError, match="no model 'demo-critics'") as caught:
        resolve_model("demo-critics")
    assert "Did you mean" in caught.value.hint


def test_pictures_that_the_demo_has_seen_are_not_encoded_again() -> None:
    with Session.open("demo", n_threads=1) as session:
        assert session.ask("How many shapes are there?", [EXAMPLE]).usage.tiles_encoded > 0
    with Critic.open("demo", n_threads=1) as critic:
        critic.steps("How many shapes are there?", [EXAMPLE], "Two.")
        assert critic.usage.tiles > 1
        assert critic.usage.tiles_encoded == 0


def test_statements_of_an_answer_are_its_steps(critic: Critic) -> None:
    told = "A red circle at the top left, a blue square at the top right and the number 98 at the bottom."
    scores = critic.steps("Describe the picture.", [EXAMPLE], told)
    assert len(scores) == 2
    assert critic.score("Describe the picture.", [EXAMPLE], told) == scores[-1]


@pytest.mark.parametrize(("suite", "least"), [("shapes", 0.8), ("colours", 0.8)])
@pytest.mark.usefixtures("pillow_font_only")
def test_a_right_answer_mostly_scores_more_than_a_spoiled_one(critic: Critic, suite: str, least: float) -> None:
    preferred = 0
    for number, item in enumerate(items(suite, EACH, 1)):
        pictures = [Picture(image, max_tiles=1) for image in item.shown]
        wrong = spoiled(item.answer, Random(number))
        preferred += critic.score(item.question, pictures, item.answer) > critic.score(item.question, pictures, wrong)
    assert preferred >= least * EACH
