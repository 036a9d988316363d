"""OpenVINO's encoder against transformers' `InternVLForConditionalGeneration`, by the golden outputs of llama.cpp's.

In float32 tile embeddings are within 1e-4 of the reference (llama.cpp's are within 1e-3), and the next token within the
same KL of 1e-6. In bfloat16 the bar is a KL of 1e-3 and the same first choice.
"""

from __future__ import annotations

import pytest

from tests.parity.cases import Case, Picture, Reference
from tests.parity.measures import divergence, worst_tile_error
from tests.parity.runtime import EXACT, answer, embed, open_session
from tests.session.test_parity import CASES, DATA, EXACT_CASES, EXACT_LIMIT, PICTURES, golden
from tests.support.exact import ExactArithmetic

EMBEDDING_LIMIT = 1e-4
BFLOAT16_LIMIT = 1e-3

FLOAT32: ExactArithmetic = {**EXACT, "encoder": "openvino", "encoder_precision": "f32"}
BFLOAT16: ExactArithmetic = {**EXACT, "encoder": "openvino", "encoder_precision": "bf16"}
WITH_PICTURES = [param for param in EXACT_CASES if any(turn.pictures for turn in param.values[1].turns)]


@pytest.mark.parametrize(("reference", "picture"), PICTURES)
def test_tile_embeddings_are_those_of_transformers(reference: Reference, picture: Picture) -> None:
    expected = golden(reference.name)[f"embeddings/{picture.name}"]
    with open_session(DATA / reference.name, FLOAT32) as session:
        embeddings = embed(session, picture)
    assert worst_tile_error(expected, embeddings[:, :: reference.token_stride]) < EMBEDDING_LIMIT


@pytest.mark.parametrize(("reference", "case"), WITH_PICTURES)
def test_next_token_is_that_of_transformers(reference: Reference, case: Case) -> None:
    expected = golden(reference.name)[f"logprobs/{case.name}"]
    logprobs, answers = answer(DATA / reference.name, FLOAT32, case)
    assert answers == golden(reference.name)[f"answers/{case.name}"].tolist()
    assert divergence(expected, logprobs) <= EXACT_LIMIT


@pytest.mark.parametrize(("reference", "case"), WITH_PICTURES)
def test_in_bfloat16_the_first_choice_is_the_same(reference: Reference, case: Case) -> None:
    """A CPU without units for bfloat16 computes it by rounding what float32 gives, if OpenVINO does so at all."""
    expected = golden(reference.name)[f"logprobs/{case.name}"]
    logprobs, _ = answer(DATA / reference.name, BFLOAT16, case)
    assert divergence(expected, logprobs) <= BFLOAT16_LIMIT
    assert logprobs.argmax() == expected.argmax()


def test_cases_without_pictures_are_left_to_the_other_encoder() -> None:
    assert 0 < len(WITH_PICTURES) < len(CASES)
