"""Ownership of one native object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from internvl_gguf.errors import SessionStateError
from internvl_gguf.llama.interrupts import deferred_interrupts


class NativeObject(ABC):
    """Owns one native object: made once, handed out while open, freed once by `close`."""

    def __init__(self) -> None:
        self._handle: int | None = None

    @property
    def handle(self) -> int:
        """The native object.

        Raises:
            SessionStateError: it is closed.
        """
        if not self._handle:
            raise SessionStateError("The session is closed.", "Open a new one with Session.open().")
        return self._handle

    def close(self) -> None:
        """Free the native object. Closing twice is harmless."""
        handle, self._handle = self._handle, None
        if handle:
            with deferred_interrupts():
                self._free(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _free(self, handle: int) -> None:
        """Give the object back to the library."""

    def _make(self, make: Callable[[], int | None], on_interrupt: Callable[[], None] | None = None) -> bool:
        """Make the object in a native call, which may take long; whether the library made one.

        Ctrl-C is delivered after the call, and what the call made is not lost to it.
        """
        try:
            with deferred_interrupts(on_interrupt):
                self._handle = make()
        except BaseException:
            self.close()
            raise
        return bool(self._handle)
