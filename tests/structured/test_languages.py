"""Grammars in Lark and GBNF, and regular expressions."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from internvl_gguf.errors import InvalidAnswerError, InvalidRequestError
from internvl_gguf.structured import format_of, grammar_trial
from internvl_gguf.structured.constraint import matches
from internvl_gguf.structured.grammar_trial import ends_in_time


@pytest.mark.parametrize(
    ("grammar", "fits", "fits_not"),
    [
        ('start: "a" b\nb: /[0-9]+/', ["a1", "a123"], ["a", "1", "a1 "]),
        (
            "start: <ref> /[a-z ]+/ </ref> <box> /[0-9]+/ </box>",
            ["<ref>a cat</ref><box>12</box>"],
            ["<ref>a</ref>", "a"],
        ),
        ('start: "x=" value\nvalue: %json {"type": "integer"}', ["x=12"], ["x=a"]),
        ('root ::= "a" digit+\ndigit ::= [0-9]', ["a1", "a12"], ["a", "1"]),
        ('root ::= item ("," item)* # a list\nitem ::= [a-z]{1,3} | "\\n"?', ["a,bcd"], ["a,", "abcd"][1:]),
        ('root ::= ("yes" | "no")', ["yes", "no"], ["maybe", ""]),
    ],
)
def test_an_answer_fits_its_grammar(grammar: str, fits: list[str], fits_not: list[str]) -> None:
    made = format_of(grammar=grammar)
    assert made.note == ""
    assert [text for text in fits if not matches(made.grammar, text)] == []
    assert [text for text in fits_not if matches(made.grammar, text)] == []
    assert made.parse(fits[0]) == fits[0]
    assert made.parse_partial("") is None
    assert made.parse_partial("a") == "a"


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("start: x", 'The grammar is wrong at line 1, column 8: unknown name: "x".'),
        ("start: x\n\nx: y", 'The grammar is wrong at line 3, column 4: unknown name: "y".'),
        ('start: "a" (', "The grammar is wrong at line 1, column 13"),
        ("x: /a/", "The grammar is wrong: no start rule found."),
        ("start: /(/", "unclosed group (in /(/)"),
        ("start: <nothing>", 'column 8: unknown special token: "<nothing>".'),
        ('start: a\na: "b" a', "The grammar is too complex."),
        ('start: %json {"uniqueItems": true}', "Unimplemented keys"),
        ('start: %json {"x-guidance": {"lenient": true}, "uniqueItems": true}', "x-guidance"),
        ('start: start "a"', "The grammar allows no text."),
        ("start: /[^\\s\\S]/", "The grammar allows no text."),
        ("root ::= x", "Rule 'x' not found"),
        ('root ::= "a', "Unexpected end of input at line 1"),
        ("a ::= [a-z]", "No 'root' rule"),
        ("", "grammar is ''."),
        ('{"type": "object"}', "grammar is JSON"),
        ("start: /a/ " + "/b/ " * 30_000, "larger than 64 KiB"),
        ("\n".join(f'r{i}: "a"' for i in range(301)) + '\nstart: "a"', "more than 300 rules"),
        ("start: /\ud800/", "surrogate"),
        (3, "grammar is 3."),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_grammar_that_is_wrong_is_refused_with_its_place(grammar: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        format_of(grammar=grammar)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("regex", "fits", "fits_not"),
    [
        (r"\d{4}-\d{2}", ["2024-12"], ["2024-1", "x2024-12", "2024-12 "]),
        ("^a+$", ["a", "aaa"], ["", "ab"]),
        ("(red|green) [a-z]*", ["red ", "green x"], ["blue x"]),
        ("a?", ["", "a"], ["aa"]),
        ('[^"/]+', ["abc"], ['a"', "a/"]),
        (re.compile("ab*"), ["abb"], ["b"]),
        (re.compile("ab.", re.IGNORECASE | re.DOTALL), ["AB\n", "abc"], ["b"]),
        (r"a\\", ["a\\"], ["a", "a\\\\"]),
    ],
)
def test_an_answer_matches_its_expression_as_a_whole(regex: Any, fits: list[str], fits_not: list[str]) -> None:
    made = format_of(regex=regex)
    assert [text for text in fits if not matches(made.grammar, text)] == []
    assert [text for text in fits_not if matches(made.grammar, text)] == []
    with pytest.raises(InvalidAnswerError, match="does not fit the regular expression"):
        made.parse(fits_not[-1])


@pytest.mark.parametrize(
    ("regex", "message"),
    [
        ("(", "The regular expression is wrong: unclosed group (in /(/)."),
        ("(?=a)b", "look-around"),
        (r"(a)\1", "backreferences"),
        ("a$b", "lookarounds not supported yet"),
        (r"[^\s\S]", "The regular expression allows no text."),
        ("", "regex is ''."),
        (3, "regex is 3."),
        ("a" * 70_000, "larger than 64 KiB"),
        ("(a{1000}){1000}", "The regular expression is too complex."),
        ("a{1000000}", "The regular expression is too complex."),
        ("\\", "ends in a backslash"),
        ("a\\\\\\", "ends in a backslash"),
        (re.compile("a # b", re.VERBOSE), "compiled with re.VERBOSE"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_expression_that_is_wrong_is_refused(regex: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        format_of(regex=regex)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


EXPLODES = "start: A\nA: " + " & ".join(f"/(?s:.*){'ab' * count}(?s:.*)/" for count in range(1, 30))
COMBINED = {"allOf": [{"type": "string", "pattern": f"^.*{'ab' * count}.*$"} for count in range(1, 30)]}


@pytest.mark.parametrize("grammar", [EXPLODES, f"start: %json {json.dumps(COMBINED)}"], ids=["&", "allOf"])
def test_a_grammar_that_would_keep_the_process_for_ever_is_refused(
    grammar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_trial, "SECONDS", 1.0)
    ends_in_time.cache_clear()
    with pytest.raises(InvalidRequestError, match="not read within"):
        format_of(grammar=grammar)
