"""The ledger of a KV cache sequence: the tokens and tiles it holds, span by span.

llama.cpp knows positions only: two pictures of the same size look the same to a cache that matches token ids, and the
answer would be about the wrong picture. The ledger compares tiles by content.

Contract: the engine appends to a ledger only after llama.cpp decoded the span, and cuts it whenever it cuts the
cache; `check_integrity` compares both and must hold between any two calls of the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from internvl_gguf.types import Span, TileSpan, TokenSpan

_Run = list[int] | TileSpan
"""Token runs are lists, so that a generated token is appended without copying what came before."""


def total_length(spans: Iterable[Span]) -> int:
    """Return the number of positions that the spans take together."""
    return sum(span.length for span in spans)


def drop_prefix(spans: Sequence[Span], length: int) -> list[Span]:
    """Return the spans after the first `length` positions.

    Raises:
        ValueError: the prefix ends inside a tile.
    """
    rest: list[Span] = []
    for span in spans:
        if length >= span.length:
            length -= span.length
            continue
        if isinstance(span, TokenSpan):
            rest.append(TokenSpan(span.ids[length:]))
        elif length:
            raise ValueError(f"a prefix ends {length} positions into a tile")
        else:
            rest.append(span)
        length = 0
    return rest


def _runs(spans: Iterable[Span]) -> list[_Run]:
    runs: list[_Run] = []
    for span in spans:
        _append(runs, span)
    return runs


def _append(runs: list[_Run], span: Span) -> None:
    if isinstance(span, TileSpan):
        runs.append(span)
    elif runs and isinstance(runs[-1], list):
        runs[-1].extend(span.ids)
    elif span.ids:
        runs.append(list(span.ids))


def _length(run: _Run) -> int:
    return run.length if isinstance(run, TileSpan) else len(run)


def _common_ids(left: list[int], right: list[int]) -> int:
    shortest = min(len(left), len(right))
    if left[:shortest] == right[:shortest]:
        return shortest
    return next(index for index in range(shortest) if left[index] != right[index])


class SequenceLedger:
    """The spans that one sequence of the KV cache holds, from position 0 without gaps."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._length = 0

    @property
    def length(self) -> int:
        """Number of positions held."""
        return self._length

    @property
    def spans(self) -> list[Span]:
        """The spans that the sequence holds, neighbouring token spans joined."""
        return [run if isinstance(run, TileSpan) else TokenSpan(tuple(run)) for run in self._runs]

    def append(self, span: Span) -> None:
        """Record a span that was decoded at the end of the sequence."""
        _append(self._runs, span)
        self._length += span.length

    def append_token(self, token: int) -> None:
        """Record one token that was decoded at the end of the sequence."""
        if self._runs and isinstance(self._runs[-1], list):
            self._runs[-1].append(token)
        else:
            self._runs.append([token])
        self._length += 1

    def common_prefix(self, spans: Iterable[Span]) -> int:
        """Return the length of the prefix that this sequence and the given spans share; it never ends inside a tile."""
        shared = 0
        for ours, theirs in zip(self._runs, _runs(spans), strict=False):
            if isinstance(ours, list) and isinstance(theirs, list):
                equal = _common_ids(ours, theirs)
                shared += equal
                if equal < max(len(ours), len(theirs)):
                    break
            elif ours == theirs:
                shared += _length(ours)
            else:
                break
        return shared

    def truncate(self, length: int) -> int:
        """Keep at most the first `length` positions, whole tiles only.

        Returns:
            Number of positions kept; fewer than `length` if that would end inside a tile.
        """
        kept: list[_Run] = []
        position = 0
        for run in self._runs:
            if position + _length(run) <= length:
                kept.append(run)
                position += _length(run)
                continue
            if isinstance(run, list) and position < length:
                kept.append(run[: length - position])
                position = length
            break
        self._runs, self._length = kept, position
        return position

    def copy_prefix(self, other: SequenceLedger, length: int) -> None:
        """Replace the contents by the first `length` positions of `other`."""
        self._runs = [run if isinstance(run, TileSpan) else list(run) for run in other._runs]
        self._length = other._length
        self.truncate(length)

    def check_integrity(self, last_position: int) -> None:
        """Compare with the library's view of the sequence.

        Args:
            last_position: what llama.cpp gives as the last position of the sequence, -1 when it is empty.

        Raises:
            RuntimeError: ledger and cache disagree.
        """
        if self._length != sum(map(_length, self._runs)) or last_position != self._length - 1:
            raise RuntimeError(f"the ledger holds {self._length} positions, llama.cpp ends at {last_position}")
