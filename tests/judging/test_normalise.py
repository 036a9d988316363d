"""Answers of one meaning are spelled alike, and answers of two are not."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.judging.normalise import normalised


@pytest.mark.parametrize(
    "spellings",
    [
        ["3", "3.0", "+3", "3.", " 3 ", "**3**", "$3$", "３", "\\(3\\)", "$3.00", "3%", "3\\%", "\\text{3}"],
        ["0.5", ".5", "1/2", "\\frac{1}{2}", "\\dfrac12", "½", "0.50"],
        ["1.5", "1 1/2", "1½", "1\\frac{1}{2}", "3/2"],
        ["-0.5", "\N{MINUS SIGN}0.5", "-1/2", "-\\frac{1}{2}"],
        ["1234567", "1,234,567", "1{,}234{,}567", "1\\,234\\,567", "$1,234,567.00"],
        ["5 cm", "5cm", "5.0 cm", "5\\,\\text{cm}", "5 CM."],
        ["30°", "30 °", "30^\\circ", "$30^{\\circ}$"],
        ["cat", "The cat.", "a CAT", '"cat"', "**cat**!"],
        ["red car", "a red car", "Red  car.", "the red car"],
        ["3 4", "(3, 4)", "(3,4)", "[3, 4]"],
        ["a", "A", "A."],
    ],
)
def test_one_meaning_has_one_spelling(spellings: list[str]) -> None:
    assert {normalised(each) for each in spellings} == {normalised(spellings[0])}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 cm", "5 m"),
        ("5 cm", "5"),
        ("5 €", "5"),
        ("10²", "102"),
        ("1½", "11/2"),
        ("007", "7"),
        ("12:30", "1230"),
        ("two", "2"),
        ("-3", "3"),
        ("12345678901234567890", "12345678901234567891"),
        ("1234567.89", "1234567.88"),
        ("cats", "cat"),
    ],
)
def test_two_meanings_have_two(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def test_punctuation_alone_is_nothing() -> None:
    assert normalised(" **.** ") == ""


@given(st.fractions(max_denominator=10_000).filter(lambda value: abs(value) < 10**9))
def test_a_number_is_itself_however_it_is_written(value: Fraction) -> None:
    written = [f"{value.numerator}/{value.denominator}"]
    decimal = value * 10**6
    if decimal.denominator == 1:
        written.append(f"{float(value):.6f}")
    assert {normalised(each) for each in written} == {normalised(str(value))}
    assert normalised(str(value)) == pytest.approx(float(value))


@given(st.text())
def test_any_text_is_spelled_and_what_is_spelled_stays(text: str) -> None:
    assert normalised(str(normalised(text))) == normalised(str(normalised(str(normalised(text)))))
