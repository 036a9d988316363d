"""Make the standard streams of a command usable if they are closed or their encoding lacks characters."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Final, TextIO

from internvl_gguf.errors import InternVLError

_REPLACING: Final = "internvl-replace"
_STREAMS: Final = ("stdin", "stdout", "stderr")


class _Replacement:
    """An error handler for encoders that writes a question mark.

    Attributes:
        is_lossy: whether a character was replaced that another encoding has; half a surrogate pair is in none.
    """

    def __init__(self) -> None:
        self.is_lossy = False

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        lacking = error.object[error.start : error.end]
        self.is_lossy = self.is_lossy or not all("\ud800" <= character <= "\udfff" for character in lacking)
        return "?" * (error.end - error.start), error.end


_replacement = _Replacement()


def mend_streams() -> None:
    """Make the standard streams usable; called once, before anything else is opened.

    The number of a closed stream would go to the next file that is opened, and what llama.cpp writes to stderr into
    that file. A closed stdin reads as empty, a closed stderr swallows what it gets, a closed stdout refuses it. A
    character that the encoding of stdout lacks becomes a question mark: half an answer is no answer. Python does the
    like for stderr.
    """
    for number, name in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            setattr(sys, name, _null_stream(number))
    codecs.register_error(_REPLACING, _replacement)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.writable():
        sys.stdout.reconfigure(errors=_REPLACING)


def _null_stream(number: int) -> TextIO:
    """Open the null device under the number of a closed stream; that of stdout cannot be written to."""
    is_input = number != 2
    descriptor = os.open(os.devnull, os.O_RDONLY if is_input else os.O_WRONLY)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    file = open(number, "rb" if is_input else "wb", buffering=0)  # noqa: SIM115  (as long as the process)
    if number == 0:
        return io.TextIOWrapper(io.BufferedReader(file), encoding="utf-8")
    return io.TextIOWrapper(file, encoding="utf-8", write_through=True)


def is_stdout_closed() -> bool:
    """Return whether the process was started with a closed stdout."""
    return not sys.stdout.writable()


def closed_error() -> InternVLError:
    """Return the error for an answer that cannot be written."""
    return InternVLError("The answer has nowhere to go: stdout is closed.", "Open it, or send it to a file: > FILE.")


def require_stdout() -> None:
    """Refuse work whose answer could not be written, before it begins.

    Raises:
        InternVLError: stdout is closed.
    """
    if is_stdout_closed():
        raise closed_error()


def replaced_line() -> str:
    """Return the message about replaced characters; "" if none were replaced."""
    if not _replacement.is_lossy:
        return ""
    return f"Characters that {sys.stdout.encoding} lacks were written as ?. PYTHONUTF8=1 writes them all."
