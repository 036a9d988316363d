"""Markdown as it streams: which of its blocks can change no more.

CommonMark decides on blocks line by line: what a complete line has ended stays ended, whatever follows. So all blocks
of the complete lines but the last are final. Two things reach further and are taken as plain text here: definitions
of links, which would change what stands above them, and HTML, which would hide what the model wrote.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


@cache
def parser() -> MarkdownIt:
    """Parses the Markdown of answers: CommonMark with tables and ~~strikethrough~~, no HTML, no link definitions."""
    from markdown_it import MarkdownIt  # only now: plain answers do without

    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("reference")


class BlockStream:
    """Cuts an answer into the top-level blocks of its Markdown as it comes.

    Attributes:
        rest: what is not known to be final yet.
    """

    def __init__(self) -> None:
        self.rest = ""

    def feed(self, text: str) -> list[str]:
        """Take more of the answer; returns the blocks that are final now."""
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
        """The answer is over: the blocks that are left."""
        blocks = self.feed("\n")
        rest, self.rest = self.rest, ""
        return [*blocks, rest] if rest.strip() else blocks


def _starts(text: str) -> list[int]:
    """The line on which each top-level block begins."""
    tokens = parser().parse(text)
    return [token.map[0] for token in tokens if token.level == 0 and token.nesting >= 0 and token.map]
