r"""The final answer in a text, as the field finds it.

InternVL's evaluation asks for "Answer: \boxed{$FINAL_ANSWER}" or "Answer: \boxed{$LETTER}" in the last line, and its
thinking mode for "the final answer within \boxed{}" (VLMEvalKit, vlmeval/vlm/internvl/utils.py). Models also write
"Final answer: ..", "The answer is .." and "答案：..". The last one counts, and a box before any of the others.
"""

from __future__ import annotations

import re
from typing import Final

MOST_WORDS: Final = 12
"""Words of a text that is compared whole where it names no final answer; in scripts without spaces, characters."""

_MARK: Final = re.compile(
    r"(?P<colon>(?:\banswer|答案)[*_]{0,3}\s{0,3}[:：])"
    r"|\bthe\s{1,3}(?:\w{1,12}\s{1,3}){0,2}answer\s{1,3}is\b|答案[是为]",
    re.IGNORECASE,
)
_SENTENCE_END: Final = re.compile(
    r"(?<!\bmr)(?<!\bms)(?<!\bmrs)(?<!\bdr)(?<!\bst)(?<!\bvs)[.!?](?=\s)|。", re.IGNORECASE
)
_WORD: Final = re.compile(r"[\u3040-\u9fff\uac00-\ud7af]|[^\s\u3040-\u9fff\uac00-\ud7af]+")
_MOST_CHARACTERS: Final = 200


def final_answer(text: str) -> str | None:
    """Return the final answer that a text names, or the text itself if it is a short line; None if there is none."""
    boxed = _boxed(text)
    if boxed is not None:
        return boxed
    for mark in reversed(list(_MARK.finditer(text))):
        if answer := _behind(text, mark):
            return answer
    return text.strip() if _is_short(text.strip()) else None


def names_answer(text: str) -> bool:
    """Return whether a text names its final answer, however long it is."""
    return _boxed(text) is not None or any(_behind(text, mark) for mark in _MARK.finditer(text))


def _boxed(text: str) -> str | None:
    r"""Return what the last \boxed{} holds, its braces balanced; None without one, or if it is not closed."""
    _, command, rest = text.rpartition("\\boxed")
    rest = rest.lstrip()
    if not command or not rest:
        return None
    if not rest.startswith("{"):
        return rest.split(maxsplit=1)[0]  # "Answer: \boxed B", which some prompts ask for
    depth = 0
    for found in re.finditer(r"\\.|[{}]", rest, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0 and found[0] == "}":
            return rest[1 : found.start()].strip() or None
    return None


def _behind(text: str, mark: re.Match[str]) -> str:
    """Return the answer behind a mark: the first line with text behind a colon, else the rest of the sentence."""
    rest = text[mark.end() : mark.end() + 2000].lstrip(" \t*_:：")
    if mark["colon"]:
        lines = [bare for line in rest.splitlines() if (bare := line.strip(" \t*_"))]
        return lines[0] if lines else ""
    sentence = _SENTENCE_END.split(rest.splitlines()[0] if rest else "", maxsplit=1)[0]
    return sentence.strip(" \t*_.")


def _is_short(text: str) -> bool:
    return bool(text) and len(text) <= _MOST_CHARACTERS and "\n" not in text and len(_WORD.findall(text)) <= MOST_WORDS
