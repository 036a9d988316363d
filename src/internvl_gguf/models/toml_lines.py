"""Find the lines of the keys of a TOML file, for error messages."""

from __future__ import annotations

import re
import tomllib
from typing import cast

KeyPath = tuple[str | int, ...]


class KeyLines:
    """Finds the line of every key and array item of a text that tomllib accepted.

    tomllib gives lines for syntax errors only. Because it has accepted the text, the scan can rely on every bracket and
    quote being closed.
    """

    _BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
    _BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
    _STRING = re.compile(
        r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'  # a long string may end in up to two quotes of its own
        r"|'''.*?'''(?:'{0,2})"
        r'|"(?:\\.|[^"\\])*"'
        r"|'[^']*'",
        re.DOTALL,
    )
    _SCALAR = re.compile(r"[^,\]}#\n]*")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[KeyPath, int] = {}
        self._tables: dict[KeyPath, int] = {}  # how many tables of each array of tables have begun

    def scan(self) -> dict[KeyPath, int]:
        """Return the lines, from 1, by path of keys and indices."""
        table: KeyPath = ()
        self._skip_blank()
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip_blank()
        return self._lines

    def _header(self) -> KeyPath:
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        start = self._at
        self._at += brackets
        keys = self._keys()
        self._at += brackets
        path = self._resolve(keys[:-1])
        if brackets == 2:
            array = (*path, keys[-1])
            index = self._tables.get(array, 0)
            self._tables[array] = index + 1
            self._lines.setdefault(array, self._line_at(start))
            path = (*array, index)
        else:
            path = self._resolve(keys)
        self._lines.setdefault(path, self._line_at(start))
        return path

    def _resolve(self, keys: list[str]) -> KeyPath:
        """Return the path that keys of a header mean: an array of tables stands for its last table so far."""
        path: KeyPath = ()
        for key in keys:
            path = (*path, key)
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._line_at(self._at)
        path = table
        for key in self._keys():
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._at += 1  # =
        self._value(path)

    def _keys(self) -> list[str]:
        """Read the parts of a dotted key; stop at the text after it."""
        keys = []
        while True:
            self._skip_blank()
            key = self._BARE_KEY.match(self._text, self._at)
            if key:
                keys.append(key[0])
            else:
                key = self._match(self._STRING)
                keys.append(next(iter(tomllib.loads(f"{key[0]} = 0"))))
            self._at = key.end()
            self._skip_blank()
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        self._skip_blank()
        opening = self._text[self._at]
        if opening == "[":
            self._items(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._at = self._match(self._STRING if opening in "\"'" else self._SCALAR).end()

    def _items(self, path: KeyPath) -> None:
        index = 0
        while not self._closes("]"):
            self._lines[(*path, index)] = self._line_at(self._at)
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while not self._closes("}"):
            self._pair(path)

    def _closes(self, bracket: str) -> bool:
        """Skip the opening bracket or a comma; return whether the closing bracket follows, which is skipped too."""
        self._skip_blank()
        if self._text[self._at] in "[{,":
            self._at += 1
            self._skip_blank()
        if self._text[self._at] != bracket:
            return False
        self._at += 1
        return True

    def _skip_blank(self) -> None:
        self._at = self._match(self._BLANK).end()

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        return cast(re.Match[str], pattern.match(self._text, self._at))

    def _line_at(self, position: int) -> int:
        return self._text.count("\n", 0, position) + 1
