"""The input and output of a chat: an editor and rendered answers, plain lines, or a script."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

from internvl_gguf.cli.stdin import read_picture
from internvl_gguf.errors import InvalidRequestError

if TYPE_CHECKING:
    from pathlib import Path

    from internvl_gguf.chat.reader import Reader
    from internvl_gguf.chat.suggestions import Sources
    from internvl_gguf.chat.terminal.screen import Screen

try:
    import termios
except ImportError:  # Windows, whose consoles echo only what is read
    termios = None  # type: ignore[assignment]

_KEYS = "CONIN$" if os.name == "nt" else "/dev/tty"


@dataclass(frozen=True)
class Terminal:
    """The terminal of this process, or what stands in for it.

    Attributes:
        screen: where the chat is shown.
        kind: how lines come: from an editor, by lines that are echoed only, or from a script.
        keys: where keys come from, if that is not stdin.
        stdin: what stdin held, where a picture came that way.
    """

    screen: Screen
    kind: Literal["editor", "plain", "script"]
    keys: TextIO | None = None
    stdin: bytes | None = None

    @classmethod
    def found(cls, takes_stdin: bool, *, plain: bool, preview: bool) -> Terminal:
        """Return the terminal that this process was started with.

        Args:
            takes_stdin: whether a picture comes on stdin, so that keys have to come from elsewhere.
            plain: whether nothing may be redrawn.
            preview: whether pictures may be shown.

        Raises:
            InvalidRequestError: a picture on stdin, and no terminal to ask about it.
        """
        from internvl_gguf.chat.terminal.screen import PlainScreen

        data = keys = None
        if takes_stdin:
            data, keys = read_picture(), _open_keys()
        is_script = keys is None and not sys.stdin.isatty()
        shows = sys.stdout.isatty()
        is_simple = plain or not shows or os.environ.get("TERM") in ("dumb", "unknown")
        if is_script or is_simple or os.environ.get("NO_COLOR") or not _obeys_sequences():
            rest = sys.stdout if shows and not is_script else sys.stderr
            screen: Screen = PlainScreen(sys.stdout, rest, is_script=is_script, for_screen_reader=plain)
        else:
            from internvl_gguf.chat.terminal.preview import protocol_of
            from internvl_gguf.chat.terminal.terminal_screen import TerminalScreen

            screen = TerminalScreen(sys.stdout, protocol_of(os.environ) if preview else None)
        return cls(screen, "script" if is_script else "plain" if is_simple else "editor", keys, data)

    @contextlib.contextmanager
    def without_echo(self) -> Iterator[None]:
        """Switch the echo off: keys pressed during an answer wait for the editor, and are not shown in the answer."""
        if self.kind != "editor" or termios is None:
            yield
            return
        keys = (self.keys or sys.stdin).fileno()
        before = termios.tcgetattr(keys)
        silent = [before[0] & ~termios.ICRNL, *before[1:3], before[3] & ~(termios.ECHO | termios.ICANON), *before[4:]]
        termios.tcsetattr(keys, termios.TCSADRAIN, silent)
        try:
            yield
        finally:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)

    def reader(self, sources: Sources, folder: Path | None) -> Reader:
        """Return the reader of lines.

        Args:
            sources: what completion asks the chat.
            folder: where lines are kept for the next run; None for nowhere.
        """
        from internvl_gguf.chat.reader import PlainReader, ScriptReader

        if self.kind == "script":
            return ScriptReader(sys.stdin.buffer)
        if self.kind == "editor":
            from internvl_gguf.chat.editor import LineEditor

            return LineEditor(sources, folder, self.keys)
        if self.keys is not None:
            sys.stdin = self.keys
        return PlainReader("You: " if self.screen.for_screen_reader else "> ")


def _obeys_sequences() -> bool:
    """Return whether the terminal acts on escape sequences: all do except old consoles of Windows."""
    if os.name != "nt":
        return True
    from rich.console import Console

    return not Console().legacy_windows


def _open_keys() -> TextIO:
    try:
        return open(_KEYS, encoding="utf-8")  # noqa: PTH123  (for as long as the chat lasts)
    except OSError:
        raise InvalidRequestError(
            "A picture came on stdin, and there is no terminal to type questions at.",
            "Use internvl ask, or give the picture's path.",
        ) from None
