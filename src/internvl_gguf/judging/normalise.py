"""One spelling of texts and numbers, so that answers of the same meaning are equal.

The rules are those of the field: of MATH and Minerva (arXiv 2206.14858) for LaTeX and numbers, and of
VQAv2 for articles and punctuation. Number words stay words, and units stay.
"""

from __future__ import annotations

import math
import re
import unicodedata
from fractions import Fraction
from typing import Final

Plain = int | float | str
"""A number, or a text in one spelling."""

_DIGITS: Final = 12
"""Significant digits in which two numbers that are not whole have to agree; whole numbers are exact."""

_NUMBER: Final = re.compile(r"[+-]?(?:(?:0|[1-9]\d{0,29})(?:\.\d{1,30})?|\.\d{1,30})")
_FRACTION: Final = re.compile(rf"({_NUMBER.pattern})/([1-9]\d{{0,29}})")
_MIXED: Final = re.compile(r"([+-]?)(\d{1,9}) (\d{1,9}/[1-9]\d{0,8})")
_WITH_UNIT: Final = re.compile(r"([+-]?[\d./]*\d)((?:°|[^\W\d_]).*)", re.DOTALL)
_THOUSANDS: Final = re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?!\d|,\d)")
_ARTICLES: Final = frozenset(("a", "an", "the"))
_LEADING: Final = "\"'`*_()[]{}<>,;:!?"
_TRAILING: Final = _LEADING + "."

_RAISED: Final = re.compile("[⁰¹²³⁴-⁹]+")
_CHARACTERS: Final = str.maketrans({"\N{MINUS SIGN}": "-", "\N{FRACTION SLASH}": "/", "’": "'", "“": '"', "”": '"'})
_LATEX: Final = (
    (re.compile(r"(\d?)\\[dt]?frac\s?(?:\{([^{}]{1,60})\}\s?\{([^{}]{1,60})\}|(\d)(\d))"), None),
    (re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it)|mbox|operatorname)\s?\{([^{}]{0,200})\}"), r"\1"),
    (re.compile(r"\^\s?\{?\\circ\}?"), "°"),
    (re.compile(r"\\(?:[;:\s]|quad\b)|~"), " "),
    (re.compile(r"\\(?:[!,()\[\]%$]|left\b|right\b)|\{(?=,\})|(?<=,)\}|[$%]"), ""),
)


def normalised(text: str) -> Plain:
    """Return a text in one spelling: a number where it is one, else words with a space between them.

    Unicode NFKC, letter case, LaTeX around a value, articles, punctuation around words, thousands separators, "$" and
    "%" do not count; 1/2, "0.5" and LaTeX's fractions are one number, as are "3.0" and "3". It returns "" for a text
    that has neither letters nor digits.
    """
    plain = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), without_latex(text))
    words = [part for word in re.sub(r",(?=\S)", ", ", plain).split() for part in _parts(word)]
    words = [word for word in words if word not in _ARTICLES] or words
    joined = " ".join(words)
    if (mixed := _MIXED.fullmatch(joined)) is not None:
        whole_and_part = int(mixed[2]) + Fraction(mixed[3])
        return one_number(-whole_and_part if mixed[1] == "-" else whole_and_part)
    spelled = [word if (value := _number(word)) is None else value for word in words]
    return spelled[0] if len(spelled) == 1 else " ".join(map(str, spelled))


def one_number(value: float | Fraction) -> int | float:
    """Return a finite number so that equal ones are equal: whole ones exact, others to 12 significant digits."""
    whole = math.floor(value)
    return whole if whole == value else float(f"{float(value):.{_DIGITS}g}")


def caseless(text: str) -> str:
    """Return a text without what letter case, spaces and forms of characters (Unicode NFKC) make of it."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def without_latex(text: str) -> str:
    """Return a text in lower case and Unicode NFKC without the LaTeX that is around values, "$" and "%"."""
    # NFKC would make 10² the number 102, and 1½ eleven halves.
    text = _RAISED.sub(lambda raised: f"^{raised[0]}", text)
    text = re.sub(r"(\d)(?=[¼-¾⅐-⅞])", r"\1 ", text)
    text = unicodedata.normalize("NFKC", text).casefold().translate(_CHARACTERS)
    for pattern, written in _LATEX:
        text = pattern.sub(_fraction if written is None else written, text)
    return text


def _fraction(found: re.Match[str]) -> str:
    above, below = (found[2], found[3]) if found[2] is not None else (found[4], found[5])
    return f"{found[1]}{' ' if found[1] else ''}{above.strip()}/{below.strip()}"


def _parts(word: str) -> list[str]:
    """Return a word without the punctuation around it, and its unit apart from its number; [] if nothing is left."""
    word = word.rstrip(_TRAILING).lstrip(_LEADING)
    if not _NUMBER.match(word):
        word = word.lstrip(".")
    if (found := _WITH_UNIT.fullmatch(word)) is not None:
        return [found[1], found[2]]
    return [word] if word else []


def _number(word: str) -> int | float | None:
    if _NUMBER.fullmatch(word):
        return one_number(Fraction(word))
    if (found := _FRACTION.fullmatch(word)) is not None:
        return one_number(Fraction(found[1]) / int(found[2]))
    return None
