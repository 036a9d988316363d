"""Read a user's TOML file: values by key and type; errors name the value's path, as "model 3, text.layers"."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import Any

from internvl_gguf.errors import CatalogError, InvalidRequestError
from internvl_gguf.utils.safe_text import safe_line
from internvl_gguf.utils.text_data import decode_text, has_wide_mark

KeyPath = tuple[str | int, ...]
"""Keys, and places in lists from 0, that lead to a value."""


class Document:
    """A parsed file, and errors about what is in it: a syntax error has a line, any other the path of its value."""

    def __init__(self, data: bytes, origin: str) -> None:
        self.origin = origin
        self.content = self._parse(self._decode(data))

    def error(self, path: KeyPath, what: str, hint: str) -> CatalogError:
        """Return an error about the value at `path`."""
        place = ", ".join(part for part in (self.origin, shown_path(path)) if part)
        return CatalogError(f"{place}: {what}.", hint, file=self.origin)

    def _error_at(self, line: int | None, what: str, hint: str) -> CatalogError:
        place = self.origin if line is None else f"{self.origin}, line {line}"
        return CatalogError(f"{place}: {what}.", hint, file=self.origin, line=line)

    def _decode(self, data: bytes) -> str:
        try:
            # Editors on Windows begin the file with a mark that TOML has no place for, or write UTF-16.
            return decode_text(data, self.origin) if has_wide_mark(data) else data.decode("utf-8-sig")
        except InvalidRequestError as error:
            raise CatalogError(error.message, error.hint, file=self.origin) from None
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise self._error_at(line, "not UTF-8 text", "Save the file with the encoding UTF-8.") from error

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            return tomllib.loads(text)
        except ValueError as error:  # tomllib's own, and what a number of thousands of digits raises
            reason, _, where = str(error).partition(" (at ")
            found = re.match(r"line (\d+)", where)
            at_end = where.startswith("end of document")
            last = text.rstrip().count("\n") + 1
            line = int(found[1]) if found else last if at_end else None
            raise self._error_at(line, f"not TOML: {reason}", "Correct it; text stands in quotes.") from error
        except RecursionError as error:
            hint = "Write the entries as the shipped models.toml does."
            raise self._error_at(None, "nested too deeply", hint) from error


class Table:
    """A table of the file, whose values are read by key and type; unknown keys are refused when it is opened."""

    def __init__(self, document: Document, path: KeyPath, content: Any, known: tuple[str, ...]) -> None:
        self._document = document
        self._path = path
        if not isinstance(content, dict):
            raise self.error(f"{_shown(path)} is {_kind(content)}, not a table", f"Known keys: {', '.join(known)}.")
        self._content: dict[str, Any] = content
        for key in content:
            if key not in known:
                raise self.error(f"unknown key {key!r}", _nearest_key(key, known), key)

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def error(self, what: str, hint: str, *keys: str | int) -> CatalogError:
        """Return an error about the value that `keys` lead to from here."""
        return self._document.error((*self._path, *keys), what, hint)

    def is_text(self, key: str) -> bool:
        """Return whether there is text at a key."""
        return isinstance(self._content.get(key), str)

    def require(self, *keys: str) -> None:
        """Refuse a table that lacks one of `keys`."""
        for key in keys:
            if key not in self._content:
                raise self.error(f"{key!r} is missing in {_shown(self._path)}", f"Add a line: {key} = ...")

    def text(self, key: str) -> str | None:
        """Return the text at a key, None if absent; empty text is refused."""
        return self._text_value(self._content[key], key) if key in self._content else None

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts at a key, empty if absent."""
        return tuple(self._text_value(value, key, place) for place, value in enumerate(self.items(key)))

    def wording(self, key: str) -> str:
        """Return the text at a key that is there; it may be empty, or white space only."""
        value = self._content[key]
        if not isinstance(value, str):
            raise self._wrong_kind(value, "text in quotes", key)
        return value

    def switch(self, key: str) -> bool:
        """Return true or false at a key that is there."""
        value = self._content[key]
        if not isinstance(value, bool):
            raise self._wrong_kind(value, "true or false", key)
        return value

    def items(self, key: str) -> list[Any]:
        """Return a list at a key, empty if absent."""
        value = self._content.get(key, [])
        if not isinstance(value, list):
            raise self._wrong_kind(value, "a list", key)
        return value

    def number(self, key: str) -> int | None:
        """Return a whole number above 0 at a key, None if absent."""
        value = self._content.get(key)
        if value is None:
            return None
        if type(value) is not int:  # true is an int to Python
            raise self._wrong_kind(value, "a whole number", key)
        if value < 1:
            raise self.error(f"{key!r} is {value}", "Write a whole number above 0.", key)
        return value

    def decimal(self, key: str, most: float) -> float:
        """Return a number above 0 and at most `most` at a key that is there."""
        value = self._content[key]
        if type(value) not in (int, float):
            raise self._wrong_kind(value, "a number", key)
        if not 0 < value <= most:
            raise self.error(f"{key!r} is {value}", f"Write a number above 0, at most {most:g}.", key)
        return float(value)

    def choice(self, key: str, choices: tuple[str, ...]) -> str | None:
        """Return one of the texts of `choices` at a key, None if absent."""
        value = self.text(key)
        if value is not None and value not in choices:
            raise self.error(f"{key!r} is {value!r}", f"Use one of {', '.join(choices)}.", key)
        return value

    def table(self, key: str, known: tuple[str, ...]) -> Table | None:
        """Return the table at a key, None if absent."""
        if key not in self._content:
            return None
        return Table(self._document, (*self._path, key), self._content[key], known)

    def named_tables(self, key: str, known: tuple[str, ...]) -> dict[str, Table]:
        """Return the tables in the table at a key by their names, empty if absent."""
        content = self._content.get(key, {})
        if not isinstance(content, dict):
            raise self._wrong_kind(content, "a table of tables", key)
        return {name: Table(self._document, (*self._path, key, name), value, known) for name, value in content.items()}

    def tables(self, key: str, known: tuple[str, ...]) -> list[Table]:
        """Return the tables of a list at a key, empty if absent."""
        return [
            Table(self._document, (*self._path, key, place), value, known)
            for place, value in enumerate(self.items(key))
        ]

    def _text_value(self, value: Any, *keys: str | int) -> str:
        if not isinstance(value, str):
            raise self._wrong_kind(value, "text in quotes", *keys)
        if not value.strip():
            raise self.error(f"{_shown(keys)} is empty", "Fill it in, or leave the key out.", *keys)
        return value

    def _wrong_kind(self, value: Any, wanted: str, *keys: str | int) -> CatalogError:
        return self.error(f"{_shown(keys)} is {_kind(value)}, not {wanted}", f"Write {wanted}.", *keys)


def shown_path(path: KeyPath) -> str:
    """Return a path as errors name it, entries of lists counted from 1: "model 3, text.layers"; "" for the file."""
    shown = ""
    for part, before in zip(path, ("", *path), strict=False):
        if isinstance(part, int):
            shown += f" {part + 1}"
        else:
            shown += f"{', ' if isinstance(before, int) else '.' if shown else ''}{safe_line(part)}"
    return shown


def _nearest_key(key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    return f"{meant}Known keys: {', '.join(known)}."


def _shown(path: KeyPath) -> str:
    """Return the name of the value at a path in errors: its key, or the list it is an entry of."""
    keys = [key for key in path if isinstance(key, str)]
    if not keys:
        return "the file"
    return repr(keys[-1]) if isinstance(path[-1], str) else f"an entry of {keys[-1]!r}"


def _kind(value: Any) -> str:
    kinds = {str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list"}
    return kinds.get(type(value), "a table" if isinstance(value, dict) else "a date or time")
