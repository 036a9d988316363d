"""The thought before an answer: where it ends, by itself or by force, so that the answer's grammar begins behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ThoughtBounds:
    """How a thought ends that the prompt has opened.

    Attributes:
        ends: id of `</think>`.
        before: tokens that stand before it where the thought is ended by force.
        after: tokens between it and an answer that has to have a form.
        most: tokens after which the thought is ended; None for no limit but that of the answer.
    """

    ends: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    most: int | None = None


class OpenThought:
    """The thought of one answer under way.

    Args:
        bounds: how it ends.
        is_bound: whether the answer behind it has to have a form.

    Attributes:
        answer_start: number of the first token behind the thought; None while it goes on.
    """

    def __init__(self, bounds: ThoughtBounds, *, is_bound: bool) -> None:
        self._bounds = bounds
        self._is_bound = is_bound
        self._rest: list[int] = []
        self.answer_start: int | None = None

    def close(self) -> int:
        """Return the token with which the thought is ended, in the place of the end of the model's turn."""
        first, *self._rest = self._closing
        return first

    @property
    def _closing(self) -> list[int]:
        return [*self._bounds.before, self._bounds.ends, *self._bounds.after]

    def must_follow(self, tokens: Sequence[int]) -> list[int]:
        """Return the tokens that have to follow because the thought ends here; none while it goes on.

        Args:
            tokens: the whole answer so far.
        """
        bounds = self._bounds
        if self.answer_start is not None:
            return []
        if self._rest:
            following, self._rest = self._rest, []
        elif tokens and tokens[-1] == bounds.ends:
            following = list(bounds.after) if self._is_bound else []
        elif bounds.most is not None and len(tokens) >= bounds.most:
            following = self._closing
        else:
            return []
        self.answer_start = len(tokens) + len(following)
        return following
