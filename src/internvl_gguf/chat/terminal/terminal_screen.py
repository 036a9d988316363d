"""The output of a chat on a terminal: streamed answers as rendered Markdown, animated progress, picture previews."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text
from rich.theme import Theme

from internvl_gguf.chat.terminal.live_area import LiveArea
from internvl_gguf.chat.terminal.markdown_blocks import BlockStream
from internvl_gguf.chat.terminal.markdown_view import MarkdownView
from internvl_gguf.chat.terminal.preview import (
    BOXES_COLUMNS,
    BOXES_ROWS,
    PREVIEW_COLUMNS,
    PREVIEW_ROWS,
    Protocol,
    draw,
)
from internvl_gguf.chat.terminal.screen import Screen
from internvl_gguf.errors import InsufficientMemoryError, InternVLError
from internvl_gguf.utils.safe_text import can_show, cells, safe_name, safe_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from internvl_gguf.types import Box

_FRAMES_A_SECOND = 25
_SHARE_OF_DRAWING = 0.1
"""Largest share of the time spent on drawing: the model needs the processor, too."""
_TICKS_BEFORE_PROGRESS = 2
"""Progress that ends sooner is not shown."""
_HANG = 4
_SPINNER, _PLAIN_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "-\\|/"
_BLOCK = "▀"
_THEME = Theme(
    {
        "markdown.code": "cyan",
        "markdown.code_block": "cyan",
        "markdown.block_quote": "dim",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
        "markdown.link_url": "underline",
    }
)


class TerminalScreen(Screen):
    """Shows a chat on a terminal that understands escape sequences.

    Args:
        out: the terminal.
        preview: its graphics protocol; None shows no pictures.
    """

    def __init__(self, out: TextIO, preview: Protocol | None) -> None:
        self._out = out
        self._console = Console(file=out, force_terminal=True, theme=_THEME, highlight=False, legacy_windows=False)
        self._view = MarkdownView(self._console)
        self._area = LiveArea(out)
        draws_blocks = preview in (Protocol.BLOCKS, Protocol.BLOCKS_256)
        self._preview = None if draws_blocks and not can_show(out, _BLOCK) else preview
        self.shows_pictures = self._preview is not None
        self._answer: BlockStream | None = None
        self._is_stale = False
        self._draws_next = 0.0
        self._progress = ""
        self._ticks = 0
        self._spinner = itertools.cycle(_SPINNER if can_show(out, _SPINNER) else _PLAIN_SPINNER)

    def say(self, text: str = "") -> None:
        self._print(Text(safe_text(text)))

    def show_lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            for part in self._broken(safe_text(line)):
                self._print(part)

    def quote(self, role: str, text: str) -> None:
        if role == "user":
            question = safe_text(text).replace("\n", "\n  ")
            self._print(Text(f"> {question}", style="dim"))
            return
        self._area.leave([])
        self._area.leave(["", *self._view.whole(text, self.columns), ""])

    def progress(self, phase: str = "", detail: str = "", *, at_once: bool = False) -> None:
        if not phase:
            self._ticks = 0
            if self._progress:
                self._area.show([])
        self._progress = f"{phase}{', ' if detail else ''}{detail}" if phase else ""
        if phase and (at_once or self._ticks >= _TICKS_BEFORE_PROGRESS):
            self._draw_progress()

    def tick(self) -> None:
        if self._progress:
            self._ticks += 1
            if self._ticks >= _TICKS_BEFORE_PROGRESS:
                self._draw_progress()
        elif self._is_stale:
            self._draw_answer()

    def begin_answer(self) -> None:
        self._answer, self._is_stale = BlockStream(), False

    def write(self, text: str) -> None:
        if not text or self._answer is None:
            return
        self.progress()
        for block in self._answer.feed(text):
            self._leave_block(block)
        self._is_stale = True
        if time.monotonic() >= self._draws_next:
            self._draw_answer()

    def end_answer(self) -> None:
        self.progress()
        for block in self._answer.finish() if self._answer else ():
            self._leave_block(block)
        self._area.leave([])
        self._answer, self._is_stale = None, False

    def status(self, parts: Sequence[str]) -> None:
        lines, line = [], ""
        for part in parts:
            longer = f"{line} · {part}" if line else part
            if line and cells(longer) > self.columns:
                lines.append(line)
                longer = part
            line = longer
        for each in [*lines, line]:
            self._print(Text(each, style="dim"))
        self._print(Text())

    def fail(self, error: InternVLError) -> None:
        if isinstance(error, InsufficientMemoryError) and error.table:
            self.show_lines(error.table.splitlines())
        self._print(Text.assemble(("Error: ", "bold red"), safe_text(error.message)))
        self.show_lines([f"  {error.hint}"])

    def preview(self, picture: Image, boxes: Sequence[Box] = ()) -> None:
        if self._preview is None or self.columns < PREVIEW_COLUMNS:
            return
        room = (min(BOXES_COLUMNS, self.columns), BOXES_ROWS) if boxes else (PREVIEW_COLUMNS, PREVIEW_ROWS)
        self._area.show([])
        self._out.write(draw(picture, self._preview, room, boxes))
        self._out.flush()

    def _print(self, text: Text) -> None:
        self._area.show([])
        self._console.print(text, width=self.columns)
        self._out.flush()

    def _broken(self, line: str) -> list[Text]:
        """Wrap a line; its continuation is indented."""
        if cells(line) <= self.columns:
            return [Text(line)]
        indent = len(line) - len(line.lstrip())
        room = max(self.columns - indent - _HANG, 10)
        first, *rest = Text(line.strip()).wrap(self._console, room)
        return [Text(" " * indent) + first, *(Text(" " * (indent + _HANG)) + part for part in rest)]

    def _draw_progress(self) -> None:
        line = Text(f"{next(self._spinner)} {safe_name(self._progress, 200)}")
        line.truncate(self.columns, overflow="ellipsis")
        self._area.show([line.plain])

    def _leave_block(self, block: str) -> None:
        lines = self._view.lines(block, self.columns)
        if lines:
            self._area.leave(["", *lines])

    def _draw_answer(self) -> None:
        if self._answer is None:
            return
        begun = time.monotonic()
        lines = self._view.lines(self._answer.rest, self.columns)
        # A block taller than the screen cannot be redrawn: only its end is shown until it is final.
        most = max(shutil.get_terminal_size().lines - 2, 1)
        self._area.show(["", *lines][-most:] if lines else [])
        ended = time.monotonic()
        self._draws_next = ended + max(1 / _FRAMES_A_SECOND, (ended - begun) / _SHARE_OF_DRAWING)
        self._is_stale = False
