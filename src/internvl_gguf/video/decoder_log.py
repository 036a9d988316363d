"""What FFmpeg logs while it decodes: the only place where most decoders say that they found damage.

FFmpeg's own callback writes to stderr, which for this process is a file. PyAV's would need Python's lock in threads of
the decoder for which a thread that holds it may wait.
"""

from __future__ import annotations

import os
import re
from typing import Final, Protocol

_STDERR: Final = 2
_MOST_BYTES: Final = 2**19  # half of what the process may write there
_TAIL_BYTES: Final = 4096
_TOO_LARGE: Final = re.compile(rb"Picture size (\d{1,9})x(\d{1,9}) exceeds")


class DecoderLog(Protocol):
    """Errors that FFmpeg logs."""

    def size(self) -> int:
        """Return the bytes logged so far."""
        ...

    def too_large(self) -> tuple[int, int] | None:
        """Return (width, height) of the last picture that was not decoded for its size; None if there was none."""
        ...


class NoLog:
    """The log of a process that keeps none."""

    def size(self) -> int:
        """Return 0."""
        return 0

    def too_large(self) -> tuple[int, int] | None:
        """Return None."""
        return None


class StderrLog:
    """The log in the file that is stderr, from now on; one a process, since FFmpeg has one log."""

    def __init__(self) -> None:
        import av.logging

        av.logging.set_libav_level(av.logging.ERROR)
        av.logging.restore_default_callback()
        self._dropped = 0

    def size(self) -> int:
        """Return the bytes logged so far."""
        size = os.fstat(_STDERR).st_size
        if size > _MOST_BYTES:
            os.ftruncate(_STDERR, 0)
            os.lseek(_STDERR, 0, os.SEEK_SET)
            self._dropped += size
            return self._dropped
        return self._dropped + size

    def too_large(self) -> tuple[int, int] | None:
        """Return (width, height) of the last picture that was not decoded for its size; None if there was none."""
        end = os.lseek(_STDERR, 0, os.SEEK_END)
        os.lseek(_STDERR, max(0, end - _TAIL_BYTES), os.SEEK_SET)
        found = _TOO_LARGE.findall(os.read(_STDERR, _TAIL_BYTES))
        os.lseek(_STDERR, 0, os.SEEK_END)
        return (int(found[-1][0]), int(found[-1][1])) if found else None
