"""Ownership of one native object."""

from __future__ import annotations

import ctypes
import weakref
from abc import abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from internvl_gguf.errors import SessionStateError
from internvl_gguf.llama.fork_guard import note_use
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.utils.owned import Owned, disown_after_fork, inherited


class NativeObject(Owned):
    """Owns one native object: made once, handed out while open, freed once by `close` or by garbage collection.

    Args:
        needs: the objects that the native object refers to; they are not collected before it is freed.
    """

    def __init__(self, *needs: NativeObject) -> None:
        self._handle: int | None = None
        self._needs = needs
        self._freeing: weakref.finalize[..., NativeObject] | None = None
        self._is_inherited = False

    @property
    def handle(self) -> int:
        """The native object.

        Raises:
            SessionStateError: it is closed, or belongs to the parent of this forked process.
        """
        if not self._handle:
            raise inherited() if self._is_inherited else closed()
        return self._handle

    def close(self) -> None:
        """Free the native object. Closing twice is harmless."""
        self._handle = None
        freeing = self._freeing.detach() if self._freeing else None
        if freeing:
            _, free, arguments, _ = freeing
            with deferred_interrupts():
                free(*arguments)  # not by calling the finalizer, which does nothing late in interpreter shutdown

    def disown(self) -> None:
        """See `Owned.disown`."""
        self._handle, self._is_inherited = None, True
        if self._freeing:
            self._freeing.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    @abstractmethod
    def _free(handle: int) -> None:
        """Free the object with the library's function."""

    def _make(self, make: Callable[[], int | None], on_interrupt: Callable[[], None] | None = None) -> bool:
        """Make the object in a native call, which may take long; return whether the library made one.

        Ctrl-C is delivered after the call, and does not lose the object that the call made.

        Raises:
            SessionStateError: in a child forked from a process that used the library.
        """
        note_use()
        try:
            with deferred_interrupts(on_interrupt):
                self._adopt(make())
        except BaseException:
            self.close()
            raise
        return bool(self._handle)

    def _adopt(self, handle: int | None) -> None:
        if not handle:
            return
        self._handle = handle
        self._freeing = weakref.finalize(self, _free_before, self._free, handle, self._needs)
        self._freeing.atexit = (
            False  # a thread may compute with it: `session.in_process_runtime` frees what can be freed
        )
        disown_after_fork(self)


def _free_before(free: Callable[[int], None], handle: int, _needs: tuple[NativeObject, ...]) -> None:
    """Free a native object while the objects it refers to are alive, being arguments here."""
    free(handle)


def closed() -> SessionStateError:
    """Return the error for a use of a session, an engine or a native object after `close`."""
    return SessionStateError("The session is closed.", "Open a new one with Session.open().")


def never_free(owned: object) -> None:
    """Keep a Python object until the process ends, by a reference that nobody gives back: its destructor never runs."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(owned))
