"""The protocol of a model as the chat uses it, whether it is on this machine or with a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from internvl_gguf.chat.attachments import Attachment
    from internvl_gguf.chat.context_usage import ConversationPart
    from internvl_gguf.chat.settings import Settings
    from internvl_gguf.config import AskOptions, SamplingParams
    from internvl_gguf.session.contract import AnySession
    from internvl_gguf.tiling import Grid, TileRange
    from internvl_gguf.types import MessagePicture, Reply


@dataclass(frozen=True)
class PlannedCut:
    """How a picture will be cut if it fits the context.

    Attributes:
        grid: its grid.
        tokens: positions that it takes.
    """

    grid: Grid
    tokens: int


class ChatModel(Protocol):
    """A model that answers a chat. What only the machine with the model knows may be None: nothing is guessed."""

    @property
    def session(self) -> AnySession:
        """The conversation with it."""
        ...

    @property
    def place(self) -> str:
        """Where it is: the address of its server, "" on this machine."""
        ...

    @property
    def n_ctx(self) -> int | None:
        """Number of positions of the context."""
        ...

    @property
    def tile_size(self) -> int | None:
        """Pixels of the side of its tiles; None for a model that may be any."""
        ...

    @property
    def tile_range(self) -> TileRange:
        """How many tiles a picture is cut into where nobody says otherwise, as far as that is known."""
        ...

    @property
    def can_think(self) -> bool | None:
        """Whether it can think before it answers; None where that is not known."""
        ...

    def ask_options(self, settings: Settings) -> AskOptions:
        """Return the options of a question that is asked with these settings."""
        ...

    def check_judge(self, sampling: SamplingParams) -> None:
        """Check that the judge of several answers is one that it can have; nothing is loaded.

        Raises:
            InvalidRequestError: it is not; the hint says what can be typed.
        """
        ...

    def cut(self, attachment: Attachment, settings: Settings) -> PlannedCut | None:
        """Return how an added picture will be cut."""
        ...

    def used(self, pending: Sequence[Attachment], settings: Settings) -> int | None:
        """Return the positions that the conversation takes with the added pictures."""
        ...

    def is_same(self, attachment: Attachment, picture: MessagePicture) -> bool:
        """Return whether an added picture is one of the conversation, by its pixels."""
        ...

    def droppable_parts(self) -> list[ConversationPart]:
        """Return the parts of the conversation that can be dropped, the oldest first."""
        ...

    def facts(self) -> list[tuple[str, str]]:
        """Return what /show tells about it, as name and value."""
        ...

    def statistics(self, reply: Reply) -> list[tuple[str, str]]:
        """Return all statistics of an answer, as name and value."""
        ...

    def system_line(self, text: str | None) -> str:
        """Return the line about the system message: "" for none, None for the one that the model has by itself."""
        ...

    def watch(self, tell: Callable[[object], object]) -> None:
        """Set the function called with the events of later questions (`show_answer`), in whichever thread."""
        ...


@dataclass(frozen=True)
class FoundModel:
    """A model that can be opened.

    Attributes:
        name: its full name: with its quant, or an absolute path.
        open: opens it, with an empty conversation.
    """

    name: str
    open: Callable[[], ChatModel]


@dataclass(frozen=True)
class Models:
    """The models that a chat can change to.

    Attributes:
        find: returns a model by its name; what is missing of it is fetched.
        listed: returns the names of all where they are a short list, as those of a server are; None elsewhere.
        known: returns the same without asking anybody.
    """

    find: Callable[[str], FoundModel]
    listed: Callable[[], Sequence[str]] | None = None
    known: Callable[[], Sequence[str]] | None = None
