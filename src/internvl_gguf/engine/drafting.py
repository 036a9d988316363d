"""Prompt-lookup decoding: guess the next tokens from the text so far, and verify them in one computation.

An answer that repeats its prompt or itself (a table read out, JSON, a corrected text) goes on with what followed the
same few tokens the last time. Decoding such a guess together with the newest token costs less than decoding one by one,
and each guess is kept only if the sampler, asked in order, chooses the same token: so the text does not change
(Saxena 2023, "Prompt Lookup Decoding"; the acceptance of Leviathan et al. 2023 for a deterministic draft).

A wrong guess costs time; how much depends on the machine. So two running measurements decide whether to guess: how
often the lookup is right, which every token shows whether it was guessed or not, and how long a computation of n tokens
takes relative to one of a single token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.types import Span, TokenSpan

_TILE: Final = -1  # stands for a tile: no guess reaches across a picture
_LONGEST, _SHORTEST = 4, 2
_MARGIN: Final = 1.05  # speed-up that a guess has to promise
_DECAY: Final = 0.85  # weight of the old value of a running mean when a new observation comes
_INITIAL_RATE: Final = 0.6  # rate of right guesses before the first observation
_MOST_DECLINED: Final = 64  # then one guess is made anyway: a disturbance may have made the measured cost too high


class PromptLookup:
    """The tokens of one conversation with an index of their n-grams: it finds what followed the last few tokens before.

    Args:
        prompt: the prompt that the answer follows.

    Attributes:
        rate: running mean of how often a guess of the next token was right.
        declined: number of consecutive tokens for which a guess was known but not made.
    """

    def __init__(self, prompt: Sequence[Span]) -> None:
        self.rate = _INITIAL_RATE
        self.declined = 0
        self._tokens: list[int] = []
        self._followers: dict[tuple[int, ...], int] = {}
        self._source = -1
        for span in prompt:
            for token in span.ids if isinstance(span, TokenSpan) else (_TILE,):
                self._append(token)

    def add(self, token: int) -> None:
        """Append the next token of the conversation, guessed or not."""
        if self._source >= 0:
            is_right = self._tokens[self._source] == token
            self.rate += (is_right - self.rate) * (1 - _DECAY)
        self._append(token)

    def guess(self, most: int, cost: DecodeCost) -> list[int]:
        """Return guesses of the next tokens: as many as are worth verifying, at most `most`."""
        likely = self.next_tokens(most)
        length = worthwhile_length(len(likely), self.rate, cost)
        if length or not likely or not cost.has_single_token:
            self.declined = 0
            return likely[:length]
        self.declined += 1
        if self.declined <= _MOST_DECLINED:
            return []
        self.declined = 0
        return likely

    def next_tokens(self, limit: int) -> list[int]:
        """Return the tokens that followed the last few tokens before, at most `limit`; empty if these are new.

        A source that reaches the newest token starts again: text that repeats itself is expected to go on repeating.
        """
        if self._source < 0:
            return []
        period = len(self._tokens) - self._source
        found: list[int] = []
        for offset in range(limit):
            token = self._tokens[self._source + offset % period]
            if token == _TILE:
                break
            found.append(token)
        return found

    def _append(self, token: int) -> None:
        tokens = self._tokens
        goes_on = self._source >= 0 and tokens[self._source] == token
        tokens.append(token)
        end = len(tokens)
        # A source that was right stays the source: another place with the same two tokens is seldom a better one.
        self._source = self._source + 1 if goes_on else -1
        for length in range(_LONGEST, _SHORTEST - 1, -1):
            key = tuple(tokens[-length:])
            if len(key) < length or _TILE in key:
                continue
            if self._source < 0:
                self._source = self._followers.get(key, -1)
            self._followers[key] = end


class DecodeCost:
    """Measured seconds of decoding n tokens in one call, by n."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def observe(self, n_tokens: int, seconds: float) -> None:
        """Record how long one computation of `n_tokens` tokens took."""
        known = self._seconds.get(n_tokens, seconds)
        # Disturbances only ever add time.
        self._seconds[n_tokens] = min(seconds, known + (seconds - known) * (1 - _DECAY))

    def ratio(self, n_tokens: int) -> float:
        """Return the cost of decoding `n_tokens` in one call relative to one token.

        It is interpolated between measured sizes, and 1.0 if no other size was measured, so that one is tried.
        """
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
    def has_single_token(self) -> bool:
        """Whether the time of a single token is known."""
        return 1 in self._seconds


def worthwhile_length(most: int, rate: float, cost: DecodeCost) -> int:
    """Return how many tokens to guess: the number with the most tokens per second, 0 if guessing gains nothing.

    With each guess right at `rate`, k guesses give (1 - rate^(k+1)) / (1 - rate) tokens (Leviathan et al. 2023, eq. 1).

    Args:
        most: length of the longest guess available.
        rate: how often a guess is right.
        cost: measured cost of computations on this machine.
    """
    if not cost.has_single_token:
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
