"""Ownership of one native object."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from internvl_gguf.errors import SessionStateError
from internvl_gguf.llama.forked import note_use
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.utils.owned import Owned, disown_after_fork, inherited


class NativeObject(Owned):
    """Owns one native object: made once, handed out while open, freed once by `close`, or when this is collected.

    Args:
        needs: what the native object refers to. It is not collected before this is freed.
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
            SessionStateError: it is closed, or it is the parent's of a forked process.
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
                free(*arguments)  # not by the finalizer, which does nothing any more late in the end of the interpreter

    def disown(self) -> None:
        """As `Owned.disown`."""
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
        """Give the object back to the library."""

    def _make(self, make: Callable[[], int | None], on_interrupt: Callable[[], None] | None = None) -> bool:
        """Make the object in a native call, which may take long; whether the library made one.

        Ctrl-C is delivered after the call, and what the call made is not lost to it.

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
        self._freeing.atexit = False  # a thread may compute with it: `loading` frees in order what can be freed
        disown_after_fork(self)


def _free_before(free: Callable[[int], None], handle: int, _needs: tuple[NativeObject, ...]) -> None:
    """Free a native object while what it refers to is alive, being an argument here."""
    free(handle)


def closed() -> SessionStateError:
    """The error of whatever is asked of a session, an engine or a native object after `close`."""
    return SessionStateError("The session is closed.", "Open a new one with Session.open().")
