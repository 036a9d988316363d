"""Prompt-lookup decoding: guess the next tokens from what was said before, and verify them in one computation.

An answer that repeats its prompt or itself (a table read out, JSON, a corrected text) says next what stood after the
same few tokens the last time. Decoding such a guess together with the newest token costs less than decoding one by one,
and each guess is kept only where the sampler, asked in order, chooses the same: so the text does not change
(Saxena 2023, "Prompt Lookup Decoding"; the acceptance of Leviathan et al. 2023 for a deterministic draft).

A wrong guess costs time, how much depends on the machine. So whether to guess is decided by two measurements made on
the way: how often the lookup is right, which is known from every token whether it was guessed or not, and how long a
computation of so many tokens takes beside that of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.types import Span, TokenSpan

_BREAK: Final = -1  # stands for a tile: no guess reaches across a picture
_LONGEST, _SHORTEST = 4, 2
_MARGIN: Final = 1.05  # a guess has to promise this much
_MEMORY: Final = 0.85  # weight of what was known of a rate when one more observation comes
_HOPE: Final = 0.6  # rate of right guesses before the first
_PATIENCE: Final = 64  # declined guesses after which one is made all the same: a disturbance may have made them dear


class PromptLookup:
    """The tokens of one conversation, and what followed when the last few of them stood there before.

    Args:
        prompt: what the answer follows.

    Attributes:
        rate: how often a guess of the next token was right, of late.
        declined: tokens since a guess was made, though there was one.
    """

    def __init__(self, prompt: Sequence[Span]) -> None:
        self.rate = _HOPE
        self.declined = 0
        self._tokens: list[int] = []
        self._followers: dict[tuple[int, ...], int] = {}
        self._source = -1
        for span in prompt:
            for token in span.ids if isinstance(span, TokenSpan) else (_BREAK,):
                self._append(token)

    def add(self, token: int) -> None:
        """The conversation goes on with a token, guessed or not."""
        if self._source >= 0:
            is_right = self._tokens[self._source] == token
            self.rate += (is_right - self.rate) * (1 - _MEMORY)
        self._append(token)

    def guess(self, most: int, cost: DecodeCost) -> list[int]:
        """The tokens that may come next: as many as promise to be worth verifying, at most `most`."""
        likely = self.next_tokens(most)
        length = worthwhile_length(len(likely), self.rate, cost)
        if length or not likely or not cost.knows_one:
            self.declined = 0
            return likely[:length]
        self.declined += 1
        if self.declined <= _PATIENCE:
            return []
        self.declined = 0
        return likely

    def next_tokens(self, limit: int) -> list[int]:
        """The tokens that followed the last time, at most `limit`; empty where nothing like the last ones stood before.

        Where the source runs into the newest token, it goes round: text that repeats itself goes on repeating.
        """
        if self._source < 0:
            return []
        period = len(self._tokens) - self._source
        found: list[int] = []
        for offset in range(limit):
            token = self._tokens[self._source + offset % period]
            if token == _BREAK:
                break
            found.append(token)
        return found

    def _append(self, token: int) -> None:
        tokens = self._tokens
        goes_on = self._source >= 0 and tokens[self._source] == token
        tokens.append(token)
        end = len(tokens)
        # A source that was right stays the source: another place with the same two tokens seldom knows better.
        self._source = self._source + 1 if goes_on else -1
        for length in range(_LONGEST, _SHORTEST - 1, -1):
            key = tuple(tokens[-length:])
            if len(key) < length or _BREAK in key:
                continue
            if self._source < 0:
                self._source = self._followers.get(key, -1)
            self._followers[key] = end


class DecodeCost:
    """Seconds that a computation of so many tokens takes, measured on the way."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def observe(self, n_tokens: int, seconds: float) -> None:
        """One computation of `n_tokens` tokens took so long."""
        known = self._seconds.get(n_tokens, seconds)
        # Disturbances only ever add time.
        self._seconds[n_tokens] = min(seconds, known + (seconds - known) * (1 - _MEMORY))

    def ratio(self, n_tokens: int) -> float:
        """Time of `n_tokens` at once by the time of one: measured, or drawn between sizes that were; 1 where nothing is
        known, which makes somebody try it."""
        one = self._seconds.get(1)
        if one is None or len(self._seconds) == 1:
            return 1.0
        below = max(size for size in self._seconds if size <= n_tokens)
        above = min((size for size in self._seconds if size >= n_tokens), default=None)
        if above is None:
            return max(self._seconds[below] * n_tokens / below / one if below > 1 else 1.0, 1.0)
        if above == below:
            return self._seconds[below] / one
        part = (n_tokens - below) / (above - below)
        return (self._seconds[below] + (self._seconds[above] - self._seconds[below]) * part) / one

    @property
    def knows_one(self) -> bool:
        """Whether the time of a single token is known."""
        return 1 in self._seconds


def worthwhile_length(most: int, rate: float, cost: DecodeCost) -> int:
    """How many tokens to guess: as many as give most tokens for the time, 0 where guessing gains nothing.

    With each guess right at `rate`, k guesses give (1 - rate^(k+1)) / (1 - rate) tokens (Leviathan et al. 2023, eq. 1).

    Args:
        most: longest guess there is.
        rate: how often a guess is right.
        cost: of computations on this machine.
    """
    if not cost.knows_one:
        return 0
    best, best_gain = 0, _MARGIN
    tokens = power = 1.0
    for length in range(1, most + 1):
        power *= rate
        tokens += power
        gain = tokens / cost.ratio(1 + length)
        if gain > best_gain:
            best, best_gain = length, gain
    return best
