"""Self-certainty of one distribution, by the formula of the paper."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.engine.certainty import self_certainty


@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=50), st.floats(-5, 5, width=32))
def test_it_is_the_divergence_of_the_uniform_distribution(values: list[float], shift: float) -> None:
    logits = np.array(values, dtype=np.float64)
    logprobs = logits - np.log(np.exp(logits).sum())
    direct = -np.mean(np.log(len(values)) + logprobs)
    assert self_certainty(logprobs) == pytest.approx(max(0.0, direct), abs=1e-9)
    assert self_certainty(logits + shift) == pytest.approx(self_certainty(logprobs), abs=1e-9)


def test_knowing_nothing_has_no_certainty() -> None:
    assert self_certainty(np.full(151_674, 3.0, np.float32)) == pytest.approx(0.0, abs=1e-6)
    assert self_certainty(np.array([12.0, 0.0, 0.0, 0.0], np.float32)) > 5
