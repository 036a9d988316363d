"""Base class of objects that belong to one process: they cannot be copied, and a forked child does not inherit them.

A forked child has the memory of its parent, but only the thread that forked. Locks that other threads held stay locked,
and waiting for llama.cpp's compute threads never ends. So a child disowns everything that its parent opened, without
freeing it.
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
    """Base class of objects that hold native objects, threads, locks or pipes."""

    @abstractmethod
    def disown(self) -> None:
        """Drop, in a forked child, everything that the parent holds. Nothing is freed, waited for or written."""

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise InvalidRequestError(
            f"A {type(self).__name__} can be neither copied nor sent to another process.",
            "Session.fork() begins a second conversation; save() and Session.restore() take one to another process.",
        )


_owned: Final[WeakSet[Owned]] = WeakSet()


def disown_after_fork(owned: Owned) -> None:
    """Register an object: `disown` is called on it in every child forked from now on."""
    _owned.add(owned)


def inherited() -> SessionStateError:
    """Return the error of a forked child that uses an object its parent opened."""
    return SessionStateError(
        "This process was forked from one that had opened a model, and llama.cpp does not outlive a fork.", _SPAWN
    )


def _disown_all() -> None:
    for owned in list(_owned):  # the list keeps all alive until each is disowned: a collected one frees what it holds
        owned.disown()


def call_in_children(function: Callable[[], None]) -> None:
    """Register a function to be called in every child forked from now on; do nothing on a system without fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


call_in_children(_disown_all)
