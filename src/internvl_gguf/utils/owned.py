"""What belongs to one owner in one process: nobody copies it, and no forked child inherits it.

A forked child has the memory of its parent, but of the threads only the one that forked. Locks that others held stay
locked, and the threads that llama.cpp computes with are waited for without end. So a child lets go of everything that
its parent opened, without freeing it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

from internvl_gguf.errors import InvalidRequestError, SessionStateError

_SPAWN: Final = (
    'Start processes with multiprocessing.get_context("spawn"), open no session before the fork, or open one of the '
    "child's own with worker=True."
)


class Owned(ABC):
    """Base of what holds native objects, threads, locks or pipes."""

    @abstractmethod
    def forsake(self) -> None:
        """In a forked child: let go of what the parent holds. Nothing is freed, waited for or written."""

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise InvalidRequestError(
            f"A {type(self).__name__} can be neither copied nor sent to another process.",
            "Session.fork() begins a second conversation; save() and Session.restore() take one to another process.",
        )


_owned: Final[WeakSet[Owned]] = WeakSet()


def forsake_in_children(owned: Owned) -> None:
    """Have `forsake` called in every child that is forked from here on."""
    _owned.add(owned)


def inherited() -> SessionStateError:
    """The error of whatever a forked child wants of something that its parent opened."""
    return SessionStateError(
        "This process was forked from one that had opened a model, and llama.cpp does not outlive a fork.", _SPAWN
    )


def _forsake_all() -> None:
    for owned in list(_owned):  # all of them alive until each has let go: one that is collected frees what it holds
        owned.forsake()


def call_in_children(function: Callable[[], None]) -> None:
    """Have a function called in every child that is forked from here on; nothing where the system has no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


call_in_children(_forsake_all)
