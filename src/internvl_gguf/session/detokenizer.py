"""The detokenizer: token bytes to text that can be shown at once, whole characters only, stop strings held back."""

from __future__ import annotations

import codecs


class TextStream:
    """Assembles an answer piece by piece.

    A character whose bytes are spread over tokens is returned when it is complete, and never if the answer ends inside
    it; bytes that are not UTF-8 become U+FFFD. Text that could be the beginning of a stop string is held back until it
    is known not to be one.

    Attributes:
        stopped: whether a stop string was found; later bytes are ignored.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = stop
        self._held = ""
        self.stopped = False

    def feed(self, data: bytes) -> str:
        """Add the bytes of a token; return the text that is now certain."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """End the answer and return the text still held back, without an incomplete character."""
        text, self._held = self._held, ""
        return text

    def _release(self, new: str) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        ends = [position for position in (text.find(stop) for stop in self._stop) if position >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of the text that is a prefix of the stop string."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
