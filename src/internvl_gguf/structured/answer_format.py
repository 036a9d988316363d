"""`AnswerFormat`: what an answer is bound to, what the prompt says of it, and how its text is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from internvl_gguf.errors import InvalidAnswerError, InvalidRequestError
from internvl_gguf.structured.constraint import check_schema, matches, schema_grammar
from internvl_gguf.structured.languages import choice_items, choices_grammar, language_grammar, regex_grammar
from internvl_gguf.structured.outline import outline
from internvl_gguf.structured.partial_constants import partial_reader
from internvl_gguf.structured.schema_checks import check_schema_tree
from internvl_gguf.structured.schema_rewrite import closed, rewritten
from internvl_gguf.structured.schema_source import SchemaSource, schema_source
from internvl_gguf.structured.schema_tree import may_hold_list
from internvl_gguf.utils.safe_text import quoted, safe_name

FormatKind = Literal["schema", "choices", "grammar", "regex", "boxes", "tools"]

_CHECK_VALUES = "It is whole JSON: check its values, and the order of its keys, by the schema."
_MORE_TOKENS = "It may have been cut off: give it more max_tokens."


@dataclass(frozen=True)
class AnswerFormat:
    """The form that an answer is bound to. `format_of` makes one from what a caller gives.

    Attributes:
        kind: what the caller gave; "tools" where the answer may be or must be calls of tools.
        grammar: what `llguidance.LLMatcher` takes, checked.
        note: what the prompt ends with so that the model knows the form; "" for nothing.
        otherwise: of "tools", what an answer without calls is bound to; None for any text.
        may_name_boxes: whether an answer can name a box: a choice does not, nor does JSON without a list.
    """

    kind: FormatKind
    grammar: str
    note: str
    _read: Callable[[str], Any] = field(repr=False, compare=False)
    _read_partial: Callable[[str], Any] = field(repr=False, compare=False)
    otherwise: AnswerFormat | None = None
    may_name_boxes: bool = True

    def parse(self, text: str) -> Any:
        """Return the value of a finished answer.

        Of a schema it is what the JSON says, or an instance of the type that was given; of choices the one that was
        given; of a grammar or regular expression the text; of tools the text before the calls, and the calls.

        Raises:
            InvalidAnswerError: the answer does not have the form (it was cut off), or a check of the type refuses it.
        """
        return self._read(text)

    def parse_partial(self, text: str) -> Any:
        """Return what is there of an answer that is still being written; None while there is nothing. Never raises.

        Of a schema it is plain JSON, never an instance. A choice, and a text of which the schema lists all, is there
        once no other can follow.
        """
        return self._read_partial(text)


def format_of(
    *, schema: Any = None, choices: Any = None, grammar: str | None = None, regex: str | None = None
) -> AnswerFormat | None:
    """Return the format of an answer, checked; None if nothing is given.

    Args:
        schema: a JSON schema as a dict or as JSON text, True for any JSON, a pydantic model, a dataclass or any type
            that pydantic takes, or the short form "name, age int, tags list".
        choices: texts or numbers of which the answer is one; an Enum.
        grammar: a grammar in llguidance's Lark, or in GBNF.
        regex: a regular expression for the whole answer.

    Raises:
        InvalidRequestError: more than one is given; it is wrong, too large or too complex; no answer fits it; or the
            package llguidance is missing.
    """
    given = {"schema": schema, "choices": choices, "grammar": grammar, "regex": regex}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise InvalidRequestError(f"{names[0]} and {names[1]} are both given.", "Give one of them.")
    if schema is not None:
        return _schema_format(schema_source(schema))
    if choices is not None:
        return _choices_format(choice_items(choices))
    if grammar is not None:
        return _text_format("grammar", language_grammar(grammar))
    if regex is not None:
        return _text_format("regex", regex_grammar(regex))
    return None


def _schema_format(source: SchemaSource) -> AnswerFormat:
    plain = rewritten(source.schema)
    check_schema_tree(plain)
    schema = closed(plain)
    # pydantic tells the parts of its own oneOf apart by their discriminator.
    grammar = schema_grammar(schema, coerce_one_of=source.is_checked)
    check_schema(grammar, schema)

    def read(text: str) -> Any:
        text = text.strip()
        value = source.read(text)
        if not source.is_checked and not any(
            matches(grammar, each, has_tags=False) for each in (text, json.dumps(value, ensure_ascii=False))
        ):  # from elsewhere it may have other spaces than a bound answer
            raise InvalidAnswerError(f"The answer does not fit the schema: {safe_name(text)}.", _CHECK_VALUES)
        return value

    form = outline(plain)
    note = f"Answer with JSON of this form:\n{form}" if form != "any" else "Answer with JSON."
    return AnswerFormat("schema", grammar, note, read, partial_reader(schema), may_name_boxes=may_hold_list(plain))


def _choices_format(items: dict[str, Any]) -> AnswerFormat:
    grammar = choices_grammar(items)

    def read(text: str) -> Any:
        for reading in (text, text.strip()):
            if reading in items:
                return items[reading]
        raise InvalidAnswerError(f"The answer is none of the choices: {quoted(text)}.", _MORE_TOKENS)

    def read_partial(text: str) -> Any:
        possible = [each for each in items if each.startswith(text)] if text else []
        return items[possible[0]] if len(possible) == 1 else None

    note = f"Answer with one of these: {', '.join(items)}"
    return AnswerFormat("choices", grammar, note, read, read_partial, may_name_boxes=False)


def _text_format(kind: FormatKind, grammar: str) -> AnswerFormat:
    def read(text: str) -> str:
        if not matches(grammar, text, has_tags=kind == "grammar"):
            what = "grammar" if kind == "grammar" else "regular expression"
            raise InvalidAnswerError(f"The answer does not fit the {what}: {quoted(text)}.", _MORE_TOKENS)
        return text

    return AnswerFormat(kind, grammar, "", read, lambda text: text or None)
