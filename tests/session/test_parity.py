"""The runtime against transformers' `InternVLForConditionalGeneration`, by golden outputs that the repository carries.

`tests/parity/make_reference.py` made them; docs/parity.md tells the method. The limits: tile embeddings within 1e-3
relative, next-token KL at most 1e-6 with F32 KV and flash attention off, at most 5e-3 with defaults.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from internvl_gguf.hardware.trial.usable_settings import find_usable_settings
from tests.parity.cases import FULL_CASES, REFERENCES, TILE_COUNTS, Case, Picture, Reference
from tests.parity.measures import divergence, relative_error, worst_tile_error
from tests.parity.runtime import DEFAULTS, EXACT, answer, embed, open_session

DATA = Path(__file__).parents[1] / "parity" / "data"
EMBEDDING_LIMIT = 1e-3
EXACT_LIMIT, DEFAULT_LIMIT = 1e-6, 5e-3

CASES = [pytest.param(r, case, id=f"{r.name}-{case.name}") for r in REFERENCES for case in r.cases]
# The longest prompt takes ten seconds; one test of it is enough here, `make parity` asks it both ways.
EXACT_CASES = [param for param in CASES if param.values[1].name != "two pictures of 13 tiles of 448"]
PICTURES = [pytest.param(r, picture, id=f"{r.name}-{picture.name}") for r in REFERENCES for picture in r.embedded]
references = pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)


@lru_cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / name / "golden.npz") as file:
        return dict(file)


@pytest.mark.parametrize(("reference", "picture"), PICTURES)
def test_tile_embeddings_are_those_of_transformers(reference: Reference, picture: Picture) -> None:
    expected = golden(reference.name)[f"embeddings/{picture.name}"]
    with open_session(DATA / reference.name, EXACT) as session:
        embeddings = embed(session, picture)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (len(expected), reference.tokens_per_tile, reference.width)
    assert worst_tile_error(expected, embeddings[:, :: reference.token_stride]) < EMBEDDING_LIMIT


@pytest.mark.parametrize(("reference", "case"), EXACT_CASES)
def test_next_token_is_that_of_transformers_in_exact_arithmetic(reference: Reference, case: Case) -> None:
    expected = golden(reference.name)[f"logprobs/{case.name}"]
    logprobs, answers = answer(DATA / reference.name, EXACT, case)
    assert answers == golden(reference.name)[f"answers/{case.name}"].tolist()
    assert divergence(expected, logprobs) <= EXACT_LIMIT
    assert expected.max() - expected[logprobs.argmax()] < 0.01


@pytest.mark.parametrize(("reference", "case"), CASES)
def test_next_token_is_that_of_transformers_with_defaults(reference: Reference, case: Case) -> None:
    expected = golden(reference.name)[f"logprobs/{case.name}"]
    logprobs, answers = answer(DATA / reference.name, DEFAULTS, case)
    assert answers == golden(reference.name)[f"answers/{case.name}"].tolist()
    assert divergence(expected, logprobs) <= DEFAULT_LIMIT


@references
def test_without_the_position_row_correction_pictures_are_far_off(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault that the tests above guard against moves the numbers by far more than their limits.

    llama.cpp gives every patch its neighbour's position embedding; the runtime corrects it by rolling the rows in a
    copy of the mmproj. An early version wrote the rolled rows at a wrong offset of that copy, where they damaged other
    weights: pictures were as far off as without any correction, and nothing but this reference noticed.
    """
    picture, case = reference.embedded[0], next(case for case in reference.cases if case.turns[0].pictures)
    monkeypatch.setattr(
        "internvl_gguf.session.in_process_runtime.find_usable_settings",
        lambda *asked: replace(find_usable_settings(*asked), positions_are_shifted=False),
    )
    with open_session(DATA / reference.name, EXACT) as session:
        embeddings = embed(session, picture)
    expected = golden(reference.name)[f"embeddings/{picture.name}"]
    assert relative_error(expected, embeddings[:, :: reference.token_stride]) > 0.3
    logprobs, _ = answer(DATA / reference.name, EXACT, case)
    assert divergence(golden(reference.name)[f"logprobs/{case.name}"], logprobs) > 100 * EXACT_LIMIT


@references
def test_the_reference_hangs_on_its_pictures(reference: Reference) -> None:
    """Golden outputs of one picture differ from those of another by far more than the limits."""
    outputs = golden(reference.name)
    with_pictures = [case.name for case in reference.cases if case.turns[-1].pictures]
    first = outputs[f"logprobs/{with_pictures[0]}"]
    assert all(divergence(first, outputs[f"logprobs/{name}"]) > 2 * DEFAULT_LIMIT for name in with_pictures[1:])


def test_the_reference_covers_one_to_thirteen_tiles() -> None:
    small, full = (golden(reference.name) for reference in REFERENCES[:2])
    assert [len(small[f"embeddings/{TILE_COUNTS[count].name}"]) for count in range(1, 14)] == list(range(1, 14))
    full_counts = [len(full[f"embeddings/{case.turns[0].pictures[0].name}"]) for case in FULL_CASES[:3]]
    assert full_counts == [1, 7, 13]
