"""Cutting streamed Markdown into blocks that are final.

CommonMark parses blocks line by line: a block that a complete line has ended stays ended, whatever follows. So all
blocks of the complete lines but the last are final. Two constructs are treated as plain text here: link definitions,
which would change the text above them, and HTML, which would hide what the model wrote.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


@cache
def parser() -> MarkdownIt:
    """Return the parser of answers: CommonMark with tables and ~~strikethrough~~, no HTML, no link definitions."""
    from markdown_it import MarkdownIt  # imported here: plain answers do not need it

    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("reference")


class BlockStream:
    """Cuts an answer into the top-level blocks of its Markdown as it comes.

    Attributes:
        rest: the text that may not be final yet.
    """

    def __init__(self) -> None:
        self.rest = ""

    def feed(self, text: str) -> list[str]:
        """Add a piece of the answer; return the blocks that became final."""
        self.rest += text
        if "\n" not in text:
            return []
        complete = self.rest.rfind("\n") + 1
        starts = _starts(self.rest[:complete])
        if len(starts) < 2:
            return []
        lines = self.rest[:complete].split("\n")
        blocks = ["\n".join(lines[start:end]) for start, end in pairwise(starts)]
        self.rest = "\n".join(lines[starts[-1] :]) + self.rest[complete:]
        return blocks

    def finish(self) -> list[str]:
        """End the answer and return the remaining blocks."""
        blocks = self.feed("\n")
        rest, self.rest = self.rest, ""
        return [*blocks, rest] if rest.strip() else blocks


def _starts(text: str) -> list[int]:
    """Return the line on which each top-level block begins."""
    tokens = parser().parse(text)
    return [token.map[0] for token in tokens if token.level == 0 and token.nesting >= 0 and token.map]
