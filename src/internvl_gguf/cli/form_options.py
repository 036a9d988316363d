"""The options of `internvl ask` that bind its answer to a form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from internvl_gguf.cli.run import option_errors
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.text_data import decode_text

_PANEL: Final = "The form of the answer"
_LONGEST_NAME: Final = 4096


def _option(name: str, metavar: str, about: str) -> Any:
    return typer.Option(
        name, metavar=metavar, help=about, show_default=False, allow_from_autoenv=False, rich_help_panel=_PANEL
    )


SchemaOption = Annotated[
    str | None,
    _option("--schema", "FILE|JSON|KEYS", 'Answer in JSON by this schema: a file, JSON, or keys as "name, age int".'),
]
ChoicesOption = Annotated[
    str | None, _option("--choices", "A,B,...", 'Answer with one of these; \'["a, b", "c"]\' where they have commas.')
]
RegexOption = Annotated[str | None, _option("--regex", "REGEX", "Answer with a text that matches as a whole.")]
GrammarOption = Annotated[str | None, _option("--grammar", "FILE|TEXT", "Answer by this grammar, in Lark or GBNF.")]
FormatInPromptOption = Annotated[
    bool,
    typer.Option(
        "--format-in-prompt/--no-format-in-prompt",
        help="End the question with the keys of the schema, or with the choices.",
        allow_from_autoenv=False,
        rich_help_panel=_PANEL,
    ),
]


def given_form(schema: str | None, choices: str | None, regex: str | None, grammar: str | None) -> dict[str, Any]:
    """Return what was given as options of a question, files read; an empty dict if nothing was.

    Raises:
        typer.Exit: a file cannot be read, or the form cannot be used; the user was told.
    """
    from internvl_gguf.session.question_options import checked_options

    given: dict[str, Any] = {}
    with option_errors():
        if schema is not None:
            given["schema"] = _as_schema(_content(schema, "--schema"))
        if choices is not None:
            given["choices"] = _as_choices(choices)
        if regex is not None:
            given["regex"] = regex
        if grammar is not None:
            given["grammar"] = _content(grammar, "--grammar")
        checked_options(given)
    return given


def _content(given: str, option: str) -> str:
    """Return the text of a file if it names one, else what was given."""
    path = Path(given)
    if len(given) > _LONGEST_NAME or "\n" in given or not path.suffix or any(char in given for char in '{"'):
        return given
    try:
        return decode_text(path.read_bytes(), given)
    except FileNotFoundError:
        raise InvalidRequestError(f"There is no file {given}.", f"Check the path given with {option}.") from None
    except OSError as error:
        raise InvalidRequestError(f"{given} cannot be read: {error.strerror}.", "Check the path.") from error


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
