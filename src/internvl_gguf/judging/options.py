"""The options of a multiple-choice question, and which of them an answer names."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from internvl_gguf.judging.normalise import Plain, normalised, without_latex

_LETTERS: Final = "ABCDEFGHIJ"
_MARK: Final = re.compile(r"(?<![\w.(])\(?([A-J])[.):、](?=\s|\w)|(?<![\w.(])\(([A-J])\)")
_NAMED: Final = re.compile(r"(?:option\s{1,3})?\(?([a-j])(?:[.):,、]|\s*$)\s*(.*)", re.DOTALL)


def options_of(prompt: str) -> dict[str, Plain]:
    """Return the options of a question by their letters, A to J in order; {} if it has fewer than two.

    "A. cat", "A) cat", "A: cat" and "(A) cat" begin one, on lines of their own or not; the last list counts.
    """
    prompt = unicodedata.normalize("NFKC", prompt)
    marks: list[re.Match[str]] = []
    options: list[re.Match[str]] = []
    for mark in _MARK.finditer(prompt):
        letter = mark[1] or mark[2]
        if letter == "A":
            marks = [mark]
        elif marks and len(marks) < len(_LETTERS) and letter == _LETTERS[len(marks)]:
            marks.append(mark)
        if len(marks) > 1:
            options = marks
    ends = [mark.start() for mark in options[1:]] + [len(prompt)]
    texts = [prompt[mark.end() : end].strip() for mark, end in zip(options, ends, strict=False)]
    return {
        letter: normalised(text.splitlines()[0] if text else "") for letter, text in zip(_LETTERS, texts, strict=False)
    }


def named_option(answer: str, options: dict[str, Plain]) -> str | None:
    """Return the letter of the option that an answer names: "(B)", "B.", "B) cat" or "cat"; None if it names none."""
    bare = without_latex(answer).strip(" \t\n*_`\"'")
    found = _NAMED.fullmatch(bare)
    if found is not None and (letter := found[1].upper()) in options:
        return letter
    spelled = normalised(bare)
    same = [letter for letter, text in options.items() if text == spelled and text != ""]
    return same[0] if len(same) == 1 else None
