"""All errors that this package raises on purpose.

    InternVLError
    ├── InvalidRequestError     an argument, prompt or sampling parameter that cannot be used
    │   ├── ContextOverflowError    the prompt and its pictures do not fit the context
    │   └── EqualAnswersError       several answers are asked for so that all would be equal
    ├── PictureError            a picture that is missing, damaged, too large or no picture
    │   └── VideoError              the same of a clip, or a clip that has not the frames that were asked for
    ├── ModelFileError          a GGUF that is missing, damaged or of another kind
    │   └── ModelPairError      a text model and an mmproj that do not belong together
    ├── HubError                a repository or file that cannot be fetched: offline, refused, missing, or changed
    ├── ServerError             a model server that cannot be reached, refuses, or answers as none does
    │   └── AnswerBrokenError       an answer of a server that broke off; what came of it is kept
    ├── RPCServerError          a ggml RPC server that cannot be reached, is busy, or is of another version
    ├── CatalogError            a models.toml that cannot be read
    ├── InsufficientMemoryError a model that does not fit the memory of this machine, or the given budget
    ├── LibraryError            llama.cpp refused, or is not the build this package is made for
    │   ├── NotNumbersError         llama.cpp computed NaN or infinity
    │   └── WorkerDiedError         the process in which a model ran has ended; the session goes on with a new one
    ├── InvalidAnswerError      an answer that does not have the form it was to have: cut off, or refused by a check
    ├── ToolError               a tool that the model called wrongly, or that failed; the words may go back to the model
    ├── SavedSessionError       a saved session that is missing, damaged, or of another model
    ├── SessionStateError       a closed session, or one already busy in another thread
    ├── HistoryError            a history that cannot be opened or is of a later version, or a conversation not in it
    └── BenchmarkError          reference logits that are damaged, of another set or model, or cannot be written

Each carries `message` (what happened, one line) and `hint` (what to do, one line).
"""

from __future__ import annotations

from typing import Any


class InternVLError(Exception):
    """Base of all errors of this package.

    Attributes:
        message: one line saying what happened.
        hint: one line saying what to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}"

    def to_dict(self) -> dict[str, str]:
        """Return the error as `internvl ask --batch` writes it: its message as "error", and its "hint"."""
        return {"error": self.message, "hint": self.hint}

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors come from worker processes; those with arguments by keyword could not be made again from `args`.
        return _remake, (type(self), self.args, self.__dict__)


def _remake(kind: type[InternVLError], args: tuple[Any, ...], attributes: dict[str, Any]) -> InternVLError:
    """Rebuild an error from its pickled parts."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class InvalidRequestError(InternVLError, ValueError):
    """An argument, prompt or sampling parameter that cannot be used."""


class ContextOverflowError(InvalidRequestError):
    """A prompt with its pictures needs more positions than the context has.

    Attributes:
        needed: positions the request takes, the room for the answer included.
        available: positions the context has.
        max_tiles: largest limit on the tiles of each new picture with which the request would fit; None if none does.
        n_ctx: positions of a context that would hold it; None if the model does not support one so large.
    """

    def __init__(
        self,
        message: str,
        hint: str,
        *,
        needed: int,
        available: int,
        max_tiles: int | None = None,
        n_ctx: int | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.needed = needed
        self.available = available
        self.max_tiles = max_tiles
        self.n_ctx = n_ctx


class EqualAnswersError(InvalidRequestError):
    """Several answers are asked for so that all would be equal.

    Attributes:
        option: what makes them so, "temperature" or "top_k".
    """

    def __init__(self, message: str, hint: str, *, option: str) -> None:
        super().__init__(message, hint)
        self.option = option


class PictureError(InternVLError):
    """A picture that is missing, damaged, too large, or not a picture.

    Attributes:
        is_missing: whether there is no such file.
    """

    def __init__(self, message: str, hint: str, *, is_missing: bool = False) -> None:
        super().__init__(message, hint)
        self.is_missing = is_missing


class VideoError(PictureError):
    """A clip that is missing, damaged, too large or no clip, or that has not the frames that were asked for.

    It is a `PictureError`, since clips are taken wherever pictures are.
    """


class ModelFileError(InternVLError):
    """A model file that is missing, damaged, or of another kind than asked for."""


class MissingEncoderError(ModelFileError):
    """A text model without an mmproj beside it, or with several that nothing tells apart."""


class ModelPairError(ModelFileError):
    """A text model and an mmproj that were not made for each other."""


class HubError(InternVLError):
    """A repository or file of the hub that cannot be fetched: offline, refused, missing, or changed on the way."""


class ServerError(InternVLError):
    """A model server that cannot be reached, refuses a question, or answers as no such server does."""


class AnswerBrokenError(ServerError):
    """An answer of a server that broke off in the middle; what came of it is kept in the conversation."""


class RPCServerError(InternVLError):
    """A ggml RPC server that cannot be reached, answers nobody else while it is busy, or is of another version."""


class CatalogError(InternVLError):
    """A catalogue file, models.toml, that cannot be read or has an invalid entry.

    Attributes:
        file: the catalogue's file.
        line: line of the mistake, from 1; None if the mistake has no single line.
    """

    def __init__(self, message: str, hint: str, *, file: str, line: int | None = None) -> None:
        super().__init__(message, hint)
        self.file = file
        self.line = line


class InsufficientMemoryError(InternVLError):
    """A model that does not fit the memory of this machine, or the given budget.

    Attributes:
        table: lines of text: memory that the smallest configuration needs by device and part, and memory available.
    """

    def __init__(self, message: str, hint: str, *, table: str = "") -> None:
        super().__init__(message, hint)
        self.table = table

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.table}" if self.table else super().__str__()


class LibraryError(InternVLError):
    """llama.cpp refused an operation, or is not the build this package is made for."""


class NotNumbersError(LibraryError):
    """llama.cpp computed NaN or infinity: damaged weights, or kernels that do not work on this machine."""


class WorkerDiedError(LibraryError):
    """The process in which a model ran has ended: killed, crashed, or stopped because it hung.

    Only the running questions are lost. The session starts another process for its next question.
    """


class InvalidAnswerError(InternVLError):
    """An answer that does not have the form it was to have: cut off, or refused by a check of the caller's type."""


class ToolError(InternVLError):
    """A tool that was called with arguments it does not take, that is not there, or that failed.

    The message is in words that can go back to the model as the tool's result.
    """


class SavedSessionError(InternVLError):
    """A saved session that cannot be written or read, is damaged, or belongs to another model or build."""


class SessionStateError(InternVLError):
    """A session used after close, or from a second thread while it is busy."""


class HistoryError(InternVLError):
    """A history that cannot be opened or is of a later version, or a conversation that is not in it."""


class BenchmarkError(InternVLError):
    """Reference logits that are damaged, of another set or vocabulary, or for which there is no room."""
