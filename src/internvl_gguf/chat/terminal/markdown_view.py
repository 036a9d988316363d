"""Rendering blocks of Markdown as lines for a terminal."""

from __future__ import annotations

from typing import ClassVar

from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.segment import Segment, Segments
from rich.syntax import Syntax
from rich.text import Text

from internvl_gguf.chat.terminal.markdown_blocks import BlockStream, parser
from internvl_gguf.utils.safe_text import safe_text


class _Heading(Heading):
    """A heading aligned to the left."""

    LEVEL_ALIGN: ClassVar[dict[str, JustifyMethod]] = {}


class _Code(CodeBlock):
    """Code in the terminal's own colours, without a margin, so that it can be copied."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        if self.lexer_name == "text":
            yield Text(code, style="markdown.code", overflow="fold")
            return
        yield Syntax(code, self.lexer_name, theme="ansi_dark", background_color="default", word_wrap=True)


class _Answer(Markdown):
    """Markdown of a model: without control characters, with its line breaks, with the addresses of links."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = parser().parse(text)
        for token in self.parsed:
            _make_safe(token)


def _make_safe(token: Token) -> None:
    """Remove control characters (entities are decoded by now), keep line breaks, and show pictures as their address."""
    token.content, token.info = safe_text(token.content), safe_text(token.info)
    token.attrs = {name: safe_text(value) if isinstance(value, str) else value for name, value in token.attrs.items()}
    if token.type == "softbreak":
        token.type = "hardbreak"
    elif token.type == "image":
        token.type, token.tag, token.children = "text", "", None
        token.content = f"{token.content} ({token.attrs.get('src', '')})"
    for child in token.children or ():
        _make_safe(child)


class MarkdownView:
    """Renders blocks.

    Args:
        console: console whose colours are used.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def lines(self, block: str, width: int) -> list[str]:
        """Render a block as lines of at most `width` columns; their only escape sequences are colours."""
        options = self._console.options.update(width=width, height=None)
        text = safe_text(block)
        try:
            rendered = self._console.render_lines(_Answer(text), options, pad=False)
        except Exception:  # Markdown that the renderer fails on is shown as it was written
            rendered = self._console.render_lines(Text(text), options, pad=False)
        lines = [_without_end(line) for line in rendered]
        shown = [index for index, line in enumerate(lines) if line]
        return self._coloured(lines[shown[0] : shown[-1] + 1]) if shown else []

    def _coloured(self, lines: list[list[Segment]]) -> list[str]:
        segments = [segment for line in lines for segment in (*line, Segment.line())]
        with self._console.capture() as capture:
            self._console.print(Segments(segments[:-1]), end="", soft_wrap=True)
        return capture.get().split("\n")

    def whole(self, text: str, width: int) -> list[str]:
        """Render a whole answer, with a blank line between its blocks."""
        stream = BlockStream()
        blocks = [self.lines(block, width) for block in [*stream.feed(text), *stream.finish()]]
        return join_blocks([block for block in blocks if block])


def _without_end(line: list[Segment]) -> list[Segment]:
    """Return a line without the invisible spaces at its end."""
    kept = list(line)
    while kept:
        segment = kept.pop()
        text = segment.text.rstrip(" \n")
        if text or (segment.style and segment.style.bgcolor and not segment.style.bgcolor.is_default):
            return [*kept, Segment(text or segment.text, segment.style)]
    return kept


def join_blocks(blocks: list[list[str]]) -> list[str]:
    """Join the lines of blocks, with a blank line between blocks."""
    joined: list[str] = []
    for block in blocks:
        joined += ["", *block] if joined else block
    return joined
