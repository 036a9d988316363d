"""Choices, Lark and GBNF grammars, and regular expressions, as grammars for llguidance."""

from __future__ import annotations

import enum
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.structured.constraint import check_language, check_size, llguidance
from internvl_gguf.structured.grammar_trial import SECONDS, ends_in_time
from internvl_gguf.structured.schema_checks import has_open_escape
from internvl_gguf.utils.arguments import shown
from internvl_gguf.utils.safe_text import error_line

MAX_CHOICES: Final = 10_000
MAX_RULES: Final = 300
"""Most rules of a grammar: llguidance takes seconds to say that something is wrong in a chain of more."""
MAX_LANGUAGE_BYTES: Final = 64 * 1024
"""Most bytes of a grammar or a regular expression."""
MAX_CHOICE: Final = 4_096  # characters
_LARGEST: Final = 10**300

_GIVE_CHOICES: Final = 'Give the texts of which the answer is to be one: choices=["red", "blue"].'
_DEFINES: Final = re.compile(
    r"^[ \t]*[?!]?[A-Za-z_][\w-]*[ \t]*(?:\[[^\]\n]*\])?[ \t]*(?:\.-?\d+)?[ \t]*(?:::=|:)", re.MULTILINE
)
_COMBINES: Final = re.compile(r"[&~]|%json")
_FLAGS: Final = {re.IGNORECASE: "i", re.DOTALL: "s", re.MULTILINE: "m"}
"""Flags of a compiled expression that can be written into it."""
_GBNF: Final = re.compile(r"^\s*[A-Za-z][\w-]*\s*::=", re.MULTILINE)


def choice_items(given: object) -> dict[str, Any]:
    """Return choices by their texts, in order: text as it is, numbers by `str`, members of an Enum by their values.

    Raises:
        InvalidRequestError: none, too many, one that is empty, is there twice or is no text.
    """
    if typing.get_origin(given) is typing.Literal:
        given = typing.get_args(given)
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidRequestError(f"choices is {shown(given)}.", _GIVE_CHOICES)
    items: dict[str, Any] = {}
    for item in given:
        text = _choice_text(item)
        if not text.strip():
            what = f"the blank text {shown(text)}" if text else "an empty text"
            raise InvalidRequestError(f"choices has {what}.", "Leave it out: an answer has some text.")
        if len(text) > MAX_CHOICE:
            raise InvalidRequestError(f"A choice is longer than {MAX_CHOICE:,} characters.", "Give a shorter one.")
        if text in items:
            raise _told_twice(items[text], item)
        if len(items) == MAX_CHOICES:
            raise InvalidRequestError(f"choices has more than {MAX_CHOICES:,} texts.", "Give fewer.")
        items[text] = item
    if not items:
        raise InvalidRequestError("choices is empty.", _GIVE_CHOICES)
    return items


def _told_twice(first: object, second: object) -> InvalidRequestError:
    """Return the error of two choices that an answer would write alike."""
    one, other = (shown(each) for each in (first, second))
    if one == other:
        return InvalidRequestError(f"choices has {one} twice.", "Give each choice once.")
    return InvalidRequestError(
        f"choices has {one} and {other}, which an answer would write alike.", "Give one of them, or another text."
    )


def _choice_text(item: object) -> str:
    if isinstance(item, enum.Enum):
        return item.value if isinstance(item.value, str) else _number_text(item.value) or item.name
    if isinstance(item, str):
        return item
    if text := _number_text(item):
        return text
    raise InvalidRequestError(f"choices has {shown(item)}.", "Give texts or numbers.")


def _number_text(item: object) -> str:
    """Return a number as text; "" for anything else."""
    if isinstance(item, bool) or not isinstance(item, int | float) or not -_LARGEST < item < _LARGEST:
        return ""  # neither NaN is between them
    return str(item)


def choices_grammar(texts: Iterable[str]) -> str:
    """Return the grammar of an answer that is one of some texts. Where one begins another, the end token decides."""
    texts = list(texts)
    check_size("".join(texts), "The text of all choices together")
    # One terminal: as alternatives of a rule they would be too many for a step of the parser.
    grammar = "start: CHOICE\nCHOICE: " + "\n      | ".join(json.dumps(text, ensure_ascii=False) for text in texts)
    check_language(grammar, "choices", _GIVE_CHOICES, has_lines=False)
    return grammar


def regex_grammar(given: object) -> str:
    """Return the grammar of an answer that a regular expression matches as a whole.

    Raises:
        InvalidRequestError: it is no text, wrong, too large or too complex, or nothing matches it.
    """
    if isinstance(given, re.Pattern):
        given = _with_flags(given)
    if not isinstance(given, str) or not given:
        raise InvalidRequestError(f"regex is {shown(given)}.", r'Give a regular expression: regex=r"\d{4}-\d{2}".')
    check_size(given, "The regular expression", MAX_LANGUAGE_BYTES)
    if has_open_escape(given):  # llguidance would leave it out
        raise InvalidRequestError(
            "The regular expression is wrong: it ends in a backslash, which escapes nothing.",
            "Leave it out, or write two of them for a backslash.",
        )
    grammar: str = llguidance().LLMatcher.grammar_from_regex(given)
    hint = "Correct it; look-around and backreferences do not work, and ^ and $ only at its ends."
    check_language(grammar, "The regular expression", hint, has_lines=False)
    return grammar


def _with_flags(given: re.Pattern[Any]) -> Any:
    """Return what a compiled expression says, its flags written into it.

    Raises:
        InvalidRequestError: it has a flag that cannot be: of `re.VERBOSE`, comments would swallow what follows.
    """
    if not isinstance(given.pattern, str):
        return given.pattern
    letters = "".join(letter for flag, letter in _FLAGS.items() if given.flags & flag)
    others = re.RegexFlag(given.flags) & ~re.UNICODE
    for flag in _FLAGS:
        others &= ~flag
    if others:
        raise InvalidRequestError(
            f"regex is compiled with {others!r}, which cannot be kept.",
            "Give the expression as text, without the flag.",
        )
    return f"(?{letters}:{given.pattern})" if letters else given.pattern


def language_grammar(given: object) -> str:
    """Return a grammar in Lark or GBNF, which its `::=` tells apart, as llguidance takes it.

    Raises:
        InvalidRequestError: it is no text, wrong, too large or too complex, or it allows no text.
    """
    if not isinstance(given, str) or not given.strip():
        raise InvalidRequestError(
            f"grammar is {shown(given)}.",
            "Give a grammar in Lark, which begins at `start:`, or in GBNF, at `root ::=`.",
        )
    check_size(given, "The grammar", MAX_LANGUAGE_BYTES)
    if len(_DEFINES.findall(given)) > MAX_RULES:
        raise InvalidRequestError(f"The grammar has more than {MAX_RULES} rules.", "Give fewer.")
    if "x-guidance" in given:  # its option `lenient` lets through what a schema in the grammar refuses
        raise InvalidRequestError("The grammar has the key x-guidance.", "Leave it out of the schemas in it.")
    if _GBNF.search(given):
        grammar = _from_gbnf(given)
        check_language(
            grammar, "The grammar", "Correct it; docs/structured.md says what of GBNF works.", has_lines=False
        )
        return grammar
    if given.lstrip().startswith("{"):
        raise InvalidRequestError(
            "grammar is JSON, not a grammar.", "Give a JSON schema as schema=, or a grammar in Lark or GBNF."
        )
    if _COMBINES.search(given) and not ends_in_time(given):
        raise InvalidRequestError(
            f"The grammar is not read within {SECONDS:g} seconds.",
            "Combine fewer expressions by &, or fewer parts of a schema by allOf.",
        )
    check_language(given, "The grammar", "Correct it; docs/structured.md shows the form of a Lark grammar.")
    return given


def _from_gbnf(given: str) -> str:
    """Return a GBNF grammar in Lark, by llguidance's own converter."""
    llguidance()
    from llguidance.gbnf_to_lark import gbnf_to_lark

    convert: Callable[[str], str] = gbnf_to_lark
    try:
        return convert(given)
    except RecursionError:
        problem = "it is nested too deep"
    except Exception as error:  # the converter raises Exception itself
        problem = error_line(error)
    raise InvalidRequestError(
        f"The grammar is wrong: {problem}.", "Correct it; docs/structured.md says what of GBNF works."
    )
