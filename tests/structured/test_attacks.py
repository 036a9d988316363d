"""Hostile schemas, grammars and expressions end no process, hang in nothing, and are refused in two lines."""

from __future__ import annotations

import pytest

from format_attack_inputs import attacks
from format_attacks import outcomes

RIGHT = {"taken", "refused"}


def judged(count: int) -> dict[str, str]:
    found = list(outcomes(count))
    assert len(found) == len(attacks(count)) == count
    return {each.name: each.verdict for each in found if each.verdict not in RIGHT}


def test_some_attacks_are_refused_or_taken() -> None:
    assert judged(60) == {}


@pytest.mark.thorough
def test_all_attacks_are_refused_or_taken() -> None:
    assert judged(3000) == {}
