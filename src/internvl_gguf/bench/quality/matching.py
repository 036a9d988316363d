"""Decide whether an answer is right: word for word, or in other words of the same meaning.

Exact: equal but for letter case and spaces.

Relaxed: equal to any accepted answer after these rules, in this order.

1. Unicode NFKC (full-width digits and letters become plain ones), letter case folded.
2. Hyphens and slashes between words become spaces; thousands separators ("1,234"), currency and percent signs are
   removed, and other punctuation that is not inside a number or a word.
3. English number words from zero to twenty and the tens to ninety become digits; "none" is 0.
4. The articles "a", "an" and "the" are removed, unless nothing else is left: "A" may be the choice of a question.
5. Where both sides are one number, they match if they differ by at most a fraction of the accepted one, 5% unless the
   question says otherwise: the relaxed accuracy of ChartQA (Masry et al., 2022).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

TOLERANCE: Final = 0.05

_UNITS: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_TENS: Final = "thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS: Final = {
    **{word: str(value) for value, word in enumerate(_UNITS.split())},
    **{word: str(10 * value) for value, word in enumerate(_TENS.split(), 3)},
    "none": "0",
}
_ARTICLES: Final = {"a", "an", "the"}
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)")
_THOUSANDS: Final = re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?![\d,])")
_SEPARATORS: Final = re.compile(r"(?<=\w)[-/‐‑–](?=\w)")
_SIGNS: Final = re.compile(r"[$€£¥%]")


def is_exact(answer: str, accepted: Sequence[str]) -> bool:
    """Return whether an answer is one of the accepted ones word for word, letter case and spaces aside."""
    return _plain(answer) in map(_plain, accepted)


def is_relaxed(answer: str, accepted: Sequence[str], tolerance: float = TOLERANCE) -> bool:
    """Return whether an answer means the same as one of the accepted ones, by the rules above.

    Args:
        answer: the model's answer.
        accepted: the right answers.
        tolerance: largest error of a number, as a fraction of the accepted one.
    """
    words = _words(answer)
    return any(_plain(answer) == _plain(each) or _means(words, _words(each), tolerance) for each in accepted)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _words(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", text).casefold().replace("\N{MINUS SIGN}", "-")
    text = _SIGNS.sub("", _SEPARATORS.sub(" ", text))
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    words = [word for part in text.split() if (word := _bare(part))]
    words = [_NUMBER_WORDS.get(word, word) for word in words]
    return [word for word in words if word not in _ARTICLES] or words


def _bare(word: str) -> str:
    """Return a word without the punctuation around it; a number keeps its sign."""
    start, end = 0, len(word)
    while start < end and not word[start].isalnum() and not (word[start] in "+-." and _NUMBER.match(word, start)):
        start += 1
    while start < end and not word[end - 1].isalnum():
        end -= 1
    return word[start:end]


def _means(words: list[str], accepted: list[str], tolerance: float) -> bool:
    if words == accepted:
        return bool(words)
    if len(words) != 1 or len(accepted) != 1 or not all(_NUMBER.fullmatch(word) for word in (*words, *accepted)):
        return False
    value, right = float(words[0]), float(accepted[0])
    return abs(value - right) <= tolerance * abs(right)
