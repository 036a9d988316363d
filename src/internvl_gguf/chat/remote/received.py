"""The answer of a server as it comes: its chunks put together to text, progress and a reply."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, Final

from internvl_gguf.chat.show_answer import AnswersWritten, Phase, TilesEncoded
from internvl_gguf.config import MAX_BEST_OF
from internvl_gguf.types import Chunk, FinishReason, Reply, SelectedFrom, Selection, Timings, Usage
from internvl_gguf.utils.safe_text import safe_name
from internvl_gguf.utils.sizes import counted

LONGEST_ANSWER: Final = 16 * 2**20
"""Most characters of an answer."""
_LONGEST_NOTICE: Final = 300
_MOST_NOTICES: Final = 20
_LONG_ENOUGH: Final = 0.2
"""Seconds of an answer from which its arrival says how fast it was made."""
_LARGEST_NUMBER: Final = 10**12


class ReceivedAnswer:
    """One answer, from its request to its end.

    Attributes:
        text: what has come so far.
        thinking: what has come of the thought before it.
        is_over: whether the server said how it ended.
        notices: what the server changed so that the question fits, one line each.
    """

    def __init__(self) -> None:
        self.text = ""
        self.thinking = ""
        self.is_over = False
        self.notices: tuple[str, ...] = ()
        self._finish: FinishReason = "stop"
        self._selection: Selection | None = None
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._started = time.perf_counter()
        self._first: float | None = None
        self._last = 0.0

    def take(self, chunk: Mapping[str, Any]) -> Chunk | None:
        """Take one chunk, and return its piece of the answer or of the thought; None if it has none."""
        choices = chunk.get("choices")
        choice = _mapping(choices[0] if isinstance(choices, list) and choices else None)
        delta = _mapping(choice.get("delta"))
        piece = _clean(delta.get("content"))
        thought = _clean(delta.get("reasoning_content")) or _clean(delta.get("reasoning"))
        finish = choice.get("finish_reason")
        if isinstance(finish, str):
            self.is_over = True
            self._finish = "length" if finish == "length" else "stop"
        self._usage = _mapping(chunk.get("usage")) or self._usage
        self._timings = _mapping(chunk.get("timings")) or self._timings
        self._selection = _selection(chunk.get("selection")) or self._selection
        notices = chunk.get("notices")
        if isinstance(notices, list):
            self.notices = tuple(safe_name(str(line), _LONGEST_NOTICE) for line in notices[:_MOST_NOTICES])
        if piece:
            self._last = time.perf_counter()
            self._first = self._first or self._last
            self.text += piece
        self.thinking += thought
        return Chunk(piece, thinking=thought) if piece or thought else None

    @property
    def positions(self) -> int | None:
        """Positions that the conversation takes with the answer; None where the server counts nothing."""
        usage = self._usage_of_answer()
        return usage.prompt_tokens + usage.completion_tokens if usage.prompt_tokens else None

    def reply(self, *, is_stopped: bool = False) -> Reply:
        """Return the reply. Numbers that the server does not send are 0.

        Args:
            is_stopped: whether the user ended it.
        """
        finish: FinishReason = "aborted" if is_stopped else self._finish
        usage, timings = self._usage_of_answer(), self._timings_of_answer()
        thinking = self.thinking.strip()
        return Reply(self.text, finish, usage, timings, self.notices, thinking=thinking, selection=self._selection)

    def _usage_of_answer(self) -> Usage:
        usage, details = self._usage, _mapping(self._usage.get("prompt_tokens_details"))
        answer = _mapping(usage.get("completion_tokens_details"))
        return Usage(
            prompt_tokens=_count(usage, "prompt_tokens"),
            cached_tokens=_count(details, "cached_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
            images=_count(usage, "images"),
            tiles=_count(usage, "tiles"),
            tiles_encoded=_count(usage, "tiles_encoded"),
            thinking_tokens=_count(answer, "reasoning_tokens"),
        )

    def _timings_of_answer(self) -> Timings:
        """Return the durations: the server's where it sends them in seconds, else those that were seen here."""
        first = (self._first - self._started) if self._first else 0.0
        decode = (self._last - self._first) if self._first else 0.0
        tokens = _count(self._usage, "completion_tokens")
        is_long = decode > _LONG_ENOUGH and tokens > 1
        times = self._timings if "time_to_first_token" in self._timings else {}
        return Timings(
            preprocess=_number(times, "preprocess"),
            encode=_number(times, "encode"),
            prefill=_number(times, "prefill"),
            time_to_first_token=first,  # with the way to the server, as the user sees it
            decode=_number(times, "decode") if times else decode,
            decode_tokens_per_second=(
                _number(times, "decode_tokens_per_second") if times else (tokens - 1) / decode if is_long else 0.0
            ),
        )


def progress_event(chunk: Mapping[str, Any]) -> object | None:
    """Return the event that a chunk of our server's progress means; None if it is no such chunk."""
    progress = _mapping(chunk.get("progress"))
    done, total = _count(progress, "done"), _count(progress, "total")
    phase = progress.get("phase")
    if phase == "encoding" and total:
        return TilesEncoded(min(done, total), total)
    if phase == "answering" and total:
        return AnswersWritten(min(done, total), total)
    if phase == "reading":
        return Phase("Reading the question", f"{done:,} of {total:,} tokens" if total else "")
    if phase == "loading":
        return Phase("The server loads the model", f"{min(done / total, 1):.0%}" if total else "")
    if phase == "queued":
        return Phase("Waiting for the server", f"{counted(done, 'question')} before this one" if done else "")
    return None


def _selection(value: object) -> Selection | None:
    """Return how an answer was chosen, of which a chat shows the reason and how many there were."""
    found = _mapping(value)
    reason, candidates = found.get("reason"), found.get("candidates")
    if not isinstance(reason, str) or not isinstance(candidates, list):
        return None
    told = [
        SelectedFrom(_clean(_mapping(each).get("text")), "stop", _number(_mapping(each), "score"), None, None, None, 0)
        for each in candidates[:MAX_BEST_OF]
    ]
    best = _count(found, "best")
    return Selection(best, min(_number(found, "confidence"), 1.0), safe_name(reason, _LONGEST_NOTICE), tuple(told))


def _clean(content: object) -> str:
    """Return a piece of text without halves of characters, which nothing can write."""
    if not isinstance(content, str):
        return ""
    return content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(values: Mapping[str, Any], name: str) -> float:
    """Return a number that a server sent: 0 for anything that is none, or none that can be."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return float(value) if 0 <= value <= _LARGEST_NUMBER else 0.0


def _count(values: Mapping[str, Any], name: str) -> int:
    return int(_number(values, name))
