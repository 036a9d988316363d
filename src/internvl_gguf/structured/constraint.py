"""llguidance: grammars made, checked within bounds, and finished texts matched against them.

A grammar is a text that `llguidance.LLMatcher` takes. It is tried here with a vocabulary of single bytes and the
control tokens that Qwen2.5 and InternVL write as `<...>`, so that a fault is found before any model is asked.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from typing import Any, Final

from internvl_gguf.errors import InsufficientMemoryError, InvalidRequestError
from internvl_gguf.structured.libraries import library
from internvl_gguf.structured.schema_checks import contradiction, empty_union
from internvl_gguf.structured.schema_tree import MAX_BYTES, walk
from internvl_gguf.utils.safe_text import safe_line, safe_name, shortened

CONTROL_TOKENS: Final = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "</tool_call>", "<img>", "</img>"),
    *("<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"),
)
"""Tokens that a Lark grammar names bare. The byte vocabulary has them after its 256 bytes."""
WRITING: Final = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrtbf\\"',
}
"""JSON on one line with the separators that models write: others lower the quality of what stands between them.

Without `\\u`, in which a key that is bound could be spelled so that llguidance takes it for another.
"""
LIMITS: Final = {
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_items_in_row": 10_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 500_000,
    "verbose_errors": False,
}
"""`llguidance.LLParserLimits` of every matcher, here and in the engine: what a step may compute and keep."""

_A_BOUND_ANSWER: Final = "An answer bound to a form"
_STACK_BYTES: Final = 256 * 1024 * 1024  # of addresses; memory is taken as far as it is used
_STACK_LOCK: Final = threading.Lock()
_MOST_FORCED: Final = 4096
_LIMITS_PAGE: Final = "docs/structured.md lists the limits."
_PAGE: Final = "docs/structured.md lists what works."
_LONGEST: Final = 160
_CONTROL: Final = re.compile("|".join(map(re.escape, CONTROL_TOKENS)))
_UNSATISFIABLE: Final = "Unsatisfiable schema: "
_UNSUPPORTED: Final = re.compile(r"Unimplemented keys: (\[.*?\])")
_MISSING: Final = re.compile(r"Resource '(.*?)' is not present in a registry")
_TOO_COMPLEX: Final = "it is too complex"
_BEYOND_LIMITS: Final = re.compile(r"too many (?:expressions|items|states)|\bfuel\b|too large", re.IGNORECASE)
"""llguidance's words for what is beyond `LIMITS`, which speak of its insides."""
_KNOWN_TOKENS: Final = "; following special tokens are available"
_LARK_PLACE: Final = re.compile(r"^(?:at )?(\d+)\((\d+)\): ")
_REGEX_ERROR: Final = re.compile(r"regex parse error:\s*(.*?)\n\s*\^*\s*\n?error: (.*)", re.DOTALL)


def llguidance() -> Any:
    """Return the module llguidance.

    Raises:
        InvalidRequestError: it is not installed.
    """
    return library("llguidance", _A_BOUND_ANSWER)


def parser_limits() -> Any:
    """Return `LIMITS` as llguidance takes them."""
    return llguidance().LLParserLimits(**LIMITS)


class _ByteVocabulary:
    """The vocabulary of single bytes, as llguidance reads one."""

    tokens: Final = [bytes([byte]) for byte in range(256)] + [name.encode() for name in CONTROL_TOKENS]
    special_token_ids: Final = list(range(256, 256 + len(CONTROL_TOKENS)))
    eos_token_id: Final = 256 + CONTROL_TOKENS.index("<|im_end|>")
    bos_token_id: Final = None

    def __call__(self, text: str | bytes, **_: object) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@functools.cache
def byte_tokenizer() -> Any:
    """Return llguidance's tokenizer of the byte vocabulary: ids 0 to 255, then `CONTROL_TOKENS`."""
    library_ = llguidance()
    return library_.LLTokenizer(library_.TokenizerWrapper(_ByteVocabulary()))


def byte_tokens(text: str) -> list[int]:
    """Return a text in the byte vocabulary, control tokens as tokens."""
    tokens: list[int] = []
    place = 0
    for control in _CONTROL.finditer(text):
        tokens += text[place : control.start()].encode(errors="replace")
        tokens.append(256 + CONTROL_TOKENS.index(control.group()))
        place = control.end()
    return tokens + list(text[place:].encode(errors="replace"))


def new_matcher(tokenizer: Any, grammar: str) -> Any:
    """Return an `llguidance.LLMatcher` within `LIMITS`; one that has an error where the grammar is wrong.

    It is made in a thread with a deep stack: llguidance recurses along references and rules, and at the end of a stack
    it ends the process. No grammar of `MAX_BYTES` needs more than this one.
    """
    box: list[Any] = []
    limits = parser_limits()
    matcher = llguidance().LLMatcher

    def make() -> None:
        box.append(matcher(tokenizer, grammar, log_level=0, limits=limits))

    with _STACK_LOCK:
        before = threading.stack_size(_STACK_BYTES)
        try:
            thread = threading.Thread(target=make, name="grammar")
            thread.start()
        except (RuntimeError, MemoryError):
            raise InsufficientMemoryError(
                "There is no memory to read a grammar.", "Close other programs, or raise the limit of this process."
            ) from None
        finally:
            threading.stack_size(before)
    thread.join()
    return box[0]


def matches(grammar: str, text: str, *, has_tags: bool = True) -> bool:
    """Return whether a finished text is one that a grammar allows.

    Args:
        grammar: what llguidance takes.
        text: the text, control tokens written out.
        has_tags: whether what is written as a control token is one; else it is letters, as everywhere but in Lark.
    """
    matcher = new_matcher(byte_tokenizer(), grammar)
    tokens = byte_tokens(text) if has_tags else list(text.encode(errors="replace"))
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


def schema_grammar(schema: dict[str, Any], *, coerce_one_of: bool = False) -> str:
    """Return the grammar of a plain JSON schema: one line of JSON as models write it.

    A text in it has no longest length: a bound of ours would cut what the caller asked for. Where a model does not
    close a string, its `max_tokens` ends the answer, which says so.
    """
    options = {**WRITING, "lenient": False, "coerce_one_of": coerce_one_of}
    grammar: str = llguidance().LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
    return grammar


def fault(grammar: str) -> str:
    """Return why no answer can be bound to a grammar, in llguidance's words without its backtrace; "" if one can."""
    matcher = new_matcher(byte_tokenizer(), grammar)
    mask = b"" if matcher.is_error() else matcher.compute_bitmask()
    if any(mask) and (forced := matcher.compute_ff_tokens()[:_MOST_FORCED]):
        # What an object begins with is forced, and the choice of a key, which may be too large, comes after it.
        matcher.consume_tokens(forced)
        mask = b"" if matcher.is_error() else matcher.compute_bitmask()
    if matcher.is_error():
        return _without_backtrace(matcher.get_error())
    return "" if any(mask) else "NoExtension"


def check_schema(grammar: str, schema: dict[str, Any]) -> None:
    """Refuse a schema that llguidance cannot bind an answer to.

    Raises:
        InvalidRequestError: it has a key that is not supported, nothing fits it, or it is too complex.
    """
    problem = fault(grammar)
    if not problem:
        return
    if unsupported := _UNSUPPORTED.search(problem):
        keys = sorted(json.loads(unsupported.group(1)))
        place = next((path for path, node in walk(schema) if set(keys) & node.keys()), "#")
        raise InvalidRequestError(
            f"The schema has {' and '.join(f'`{safe_name(key)}`' for key in keys)} at {safe_name(place, 80)}, "
            "to which an answer cannot be bound.",
            f"Leave {'it' if len(keys) == 1 else 'them'} out, and check what comes back. {_PAGE}",
        )
    if problem.startswith((_UNSATISFIABLE, "NoExtension")):
        told = _in_one_line(problem.removeprefix(_UNSATISFIABLE)) if problem.startswith(_UNSATISFIABLE) else ""
        empty = empty_union(schema)
        why = (empty if "empty" in told else "") or contradiction(schema) or empty or told
        raise InvalidRequestError(
            f"No answer fits the schema{': ' if why else ''}{why}.", "Change it so that some value fits it."
        )
    if "oneOf constraints are not supported" in problem:
        raise InvalidRequestError(
            "The schema has a oneOf whose parts cannot be told apart.",
            "Use anyOf, or give each part a const of its own.",
        )
    if missing := _MISSING.search(problem):
        raise InvalidRequestError(
            f"The schema refers to {safe_name(missing.group(1))}, and nothing is fetched.",
            "Put the definition into the schema, under $defs, without addresses; leave an unknown $schema out.",
        )
    raise InvalidRequestError(f"The schema cannot be used: {_in_one_line(problem)}.", f"Correct it. {_PAGE}")


def check_language(grammar: str, what: str, hint: str, *, has_lines: bool = True) -> None:
    """Refuse a grammar or regular expression that llguidance cannot bind an answer to.

    Args:
        grammar: what llguidance is given.
        what: what the caller gave, as the subject of a sentence: "The grammar".
        hint: what to do about it.
        has_lines: whether lines and columns that llguidance names are those of what the caller gave.

    Raises:
        InvalidRequestError: it is wrong, allows no text, or is too complex.
    """
    problem = fault(grammar)
    if problem.startswith("NoExtension"):
        raise InvalidRequestError(f"{what} allows no text.", "Change it so that some finished text fits it.")
    if problem:
        where = ""
        if place := _LARK_PLACE.match(problem):
            where = f" at line {place.group(1)}, column {place.group(2)}" if has_lines else ""
            problem = problem[place.end() :]
        if (known := problem.find(_KNOWN_TOKENS)) >= 0:
            problem, hint = problem[:known], f"Control tokens are {', '.join(CONTROL_TOKENS)}."
        told = _in_one_line(problem)
        if told == _TOO_COMPLEX:
            raise InvalidRequestError(f"{what} is too complex.", f"Make it simpler. {_LIMITS_PAGE}")
        raise InvalidRequestError(f"{what} is wrong{where}: {told}.", hint)


def check_size(text: str, what: str, most: int = MAX_BYTES) -> None:
    """Refuse a text of more than `most` bytes, or that UTF-8 cannot hold."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError(
            f"{what} has half a surrogate pair.", "Give it as text that UTF-8 can hold."
        ) from None
    if size > most:
        raise InvalidRequestError(f"{what} is larger than {most // 1024} KiB.", "Give a smaller one.")


def _without_backtrace(text: str) -> str:
    """Return the message of an error, or of a panic that llguidance caught, without state and backtrace."""
    text = text.split("\n<state>")[0].split("<state>")[0]
    if "panick" in text.lower() or "backtrace" in text.lower():
        return _TOO_COMPLEX
    return text.strip()


def _in_one_line(problem: str) -> str:
    """Return a message of llguidance as part of a sentence: no drawing of the place, one line, 160 characters."""
    if regex := _REGEX_ERROR.search(problem):
        problem = f"{regex.group(2).splitlines()[0]} (in /{shortened(_first_line(regex.group(1)), 60)}/)"
    if not problem or _BEYOND_LIMITS.search(problem):
        problem = _TOO_COMPLEX
    return shortened(safe_line(_first_line(problem)), _LONGEST).rstrip(". ")


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0].strip()
