"""The options of `internvl ask` that bind its answer to a form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from internvl_gguf.cli.named_text import missing_file, named_text, shown_name
from internvl_gguf.cli.run import option_errors
from internvl_gguf.cli.stdin import is_stdin
from internvl_gguf.errors import InvalidRequestError

if TYPE_CHECKING:
    from internvl_gguf.structured import AnswerFormat

_PANEL: Final = "The form of the answer"


def _option(name: str, metavar: str, about: str) -> Any:
    return typer.Option(
        name, metavar=metavar, help=about, show_default=False, allow_from_autoenv=False, rich_help_panel=_PANEL
    )


SchemaOption = Annotated[
    str | None,
    _option(
        "--schema",
        "FILE|JSON|KEYS",
        'Answer in JSON by this schema: a file (- for stdin), JSON, or keys as "name, age int".',
    ),
]
ChoicesOption = Annotated[
    str | None, _option("--choices", "A,B,...", 'Answer with one of these; \'["a, b", "c"]\' where they have commas.')
]
RegexOption = Annotated[str | None, _option("--regex", "REGEX", "Answer with a text that matches as a whole.")]
GrammarOption = Annotated[
    str | None, _option("--grammar", "FILE|TEXT", "Answer by this grammar, in Lark or GBNF; - is stdin.")
]
FormatInPromptOption = Annotated[
    bool,
    typer.Option(
        "--format-in-prompt/--no-format-in-prompt",
        help="End the question with the keys of the schema, or with the choices.",
        allow_from_autoenv=False,
        rich_help_panel=_PANEL,
    ),
]


def given_form(
    schema: str | None, choices: str | None, regex: str | None, grammar: str | None, *, draws: bool = False
) -> dict[str, Any]:
    """Return what was given as options of a question, files read; an empty dict if nothing was.

    Args:
        schema, choices, regex, grammar: as they were typed.
        draws: whether the boxes of the answer are wanted, for which the form has to leave room.

    Raises:
        InvalidRequestError: a file cannot be read, or does not hold what can be used.
        typer.Exit: the form cannot be used; the user was told.
    """
    from internvl_gguf.session.question_options import checked_options

    typed = {"schema": schema, "choices": choices, "regex": regex, "grammar": grammar}
    given: dict[str, Any] = {name: text for name, text in typed.items() if text is not None}
    with option_errors():
        if len(given) > 1:
            checked_options(given)
        if choices is not None:
            given["choices"] = _as_choices(choices)
    file = None
    for name, text in typed.items():
        if text is not None and name in ("schema", "grammar"):
            content = _content(text, f"--{name}")
            file = None if content is None else shown_name(text)
            given[name] = text if content is None else content
    if schema is not None:
        given["schema"] = _as_schema(given["schema"])
    try:
        form = checked_options(given).get("answer_format")
    except InvalidRequestError as error:
        if file is not None:
            raise InvalidRequestError(f"{file}: {error.message}", error.hint) from None
        with option_errors():
            raise
    if draws:
        with option_errors():
            _check_room_for_boxes(form)
    return given


def reads_stdin(given: str | None) -> bool:
    """Return whether a schema or a grammar comes on stdin."""
    return given is not None and is_stdin(given)


def _check_room_for_boxes(form: AnswerFormat | None) -> None:
    """Refuse a form in which no answer can name a box. A grammar and an expression may well be those of boxes.

    Raises:
        InvalidRequestError: it is one.
    """
    if form is None or form.may_name_boxes:
        return
    if form.kind == "choices":
        raise InvalidRequestError("An answer that is one of --choices has no boxes.", "Leave --choices or --boxes out.")
    raise InvalidRequestError(
        "An answer by this --schema has no boxes: there is no list in it.",
        'Leave --schema or --boxes out, or ask for lists: --schema "label, bbox list[int]".',
    )


def _content(given: str, option: str) -> str | None:
    """Return the text of a file, a pipe or stdin if one is named; None if the text itself was given.

    Raises:
        InvalidRequestError: there is no such file, or it is none of text.
    """
    if any(sign in given for sign in '\n{"'):
        return None
    text = named_text(given, option)
    is_path = bool(Path(given).suffix) or ("/" in given and " " not in given)
    if text is None and is_path and ":" not in given[2:]:  # C:\\schema.json is one, `start: /a.b/` is none
        raise missing_file(given, option)
    return text


def _as_schema(text: str) -> Any:
    """Return a JSON schema as an object; the short form stays text, and so does what the schema's own check refuses."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return schema if isinstance(schema, dict) else text


def _as_choices(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"--choices is no JSON list: {error}.", "Write A,B,C or a JSON list.") from None
        return list(found)
    return [choice.strip() for choice in text.split(",")]
