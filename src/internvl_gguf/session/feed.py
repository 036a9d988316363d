"""Where the questions of a batch come from: a list or generator, or a feed that has some now and others later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Generic, TypeVar

from internvl_gguf.types import Question

AnyQuestion = TypeVar("AnyQuestion", bound=Question | str)
"""A question of a batch as it is given: a `Question`, a subclass of it, or only its text."""

Item = TypeVar("Item")
"""What a feed gives: questions, or what they are made of."""


class Absent(Enum):
    """Why a feed has nothing to give."""

    NOT_NOW = auto()
    """There may be something later."""
    NO_MORE = auto()
    """There will be nothing."""


class Feed(ABC, Generic[Item]):
    """Questions that come while others are answered, and may be wanted back before they have begun.

    `Session.batch` and `Session.each` take one in place of a list. All calls come from the thread that reads the
    outcomes. While answers run, `is_ready` and `is_recalling` are looked at after each step, and at least five times
    a second.
    """

    @abstractmethod
    def take(self, *, waits: bool) -> Item | Absent:
        """Return the next one.

        Args:
            waits: whether to wait for it, as nothing else is to be done; else `Absent.NOT_NOW` is returned where there
                is none at this moment, so that the running answers go on.
        """

    @property
    @abstractmethod
    def is_ready(self) -> bool:
        """Whether `take` would find something, or the end, without waiting."""

    @property
    def is_recalling(self) -> bool:
        """Whether some are wanted back: `withdraw` is called then."""
        return False

    def withdraw(self, unbegun: Sequence[Item]) -> frozenset[int]:
        """Return which of those that were taken and have not begun are not to be asked: their places in `unbegun`."""
        return frozenset()


class ListedFeed(Feed[Item]):
    """What a list or a generator has.

    Args:
        items: read as they are needed.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)

    def take(self, *, waits: bool) -> Item | Absent:
        """Return the next one; see `Feed.take`. A generator is waited for in any case."""
        return next(self._items, Absent.NO_MORE)

    @property
    def is_ready(self) -> bool:
        """False: what there is was taken before."""
        return False


def feed_of(items: Iterable[Item] | Feed[Item]) -> Feed[Item]:
    """Return a feed as it is, or what a list or generator has as one."""
    return items if isinstance(items, Feed) else ListedFeed(items)
