"""The model of a chat on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from internvl_gguf.chat.chat_model import PlannedCut
from internvl_gguf.chat.context_usage import ConversationPart, context_tokens, droppable_parts
from internvl_gguf.chat.formatting import statistics
from internvl_gguf.chat.show_answer import AnswersWritten, TilesEncoded
from internvl_gguf.images.load import load_image
from internvl_gguf.judging import judge_of
from internvl_gguf.planning.plan_text import placement_text
from internvl_gguf.session.cut_pictures import cut_as_before
from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM
from internvl_gguf.session.thinking import can_think
from internvl_gguf.tiling import TileRange
from internvl_gguf.utils.kinds import JudgeName
from internvl_gguf.utils.safe_text import safe_text
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.chat.attachments import Attachment
    from internvl_gguf.chat.settings import Settings
    from internvl_gguf.config import AskOptions, SamplingParams
    from internvl_gguf.judging import Judge
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.session import Session
    from internvl_gguf.types import MessagePicture, Reply


class LocalModel:
    """A model on this machine; see `ChatModel` for each part.

    Args:
        session: the session with it.
        files: its files.
        name: its full name.
        critic: loads the critic of a name; settings may name one as the judge of several answers.
        check_critic: raises an error for the name of no critic, without loading one.
    """

    place = ""

    def __init__(
        self,
        session: Session,
        files: ModelFiles,
        name: str,
        critic: Callable[[str], Judge] = judge_of,
        check_critic: Callable[[str], object] = judge_of,
    ) -> None:
        self._session = session
        self._critic, self._check_critic = critic, check_critic
        self.files = files
        self._name = name

    @property
    def session(self) -> Session:
        """The conversation with it."""
        return self._session

    @property
    def n_ctx(self) -> int:
        """Number of positions of the context."""
        return self._session.runtime.engine.n_ctx

    @property
    def tile_size(self) -> int:
        """Pixels of the side of its tiles."""
        return self._session.runtime.vision.image_size

    @property
    def tile_range(self) -> TileRange:
        """How many tiles a picture is cut into where nobody says otherwise."""
        return TileRange.of(self._session.runtime.vision)

    @property
    def can_think(self) -> bool:
        """Whether it can think before it answers."""
        return can_think(self._session.runtime)

    def ask_options(self, settings: Settings) -> AskOptions:
        """Return the options of a question: all of them, for the session was opened with others.

        Raises:
            InternVLError: the critic that they name cannot be loaded.
        """
        options, sampling = settings.ask_options(self.tile_range), settings.sampling
        if sampling.best_of > 1 and sampling.judge not in JudgeName.choices:
            options["judge"] = self._critic(sampling.judge)
        return options

    def check_judge(self, sampling: SamplingParams) -> None:
        """Check that the judge has a name, or is a model."""
        self._check_critic(sampling.judge)

    def cut(self, attachment: Attachment, settings: Settings) -> PlannedCut:
        """Return how an added picture will be cut."""
        vision = self._session.runtime.vision
        grid = attachment.grid(settings.limits(self.tile_range), vision.image_size)
        return PlannedCut(grid, grid.tiles * vision.tokens_per_tile)

    def used(self, pending: Sequence[Attachment], settings: Settings) -> int:
        """Return the positions that the conversation takes with the added pictures."""
        self._session.revive()
        waiting = sum(self.cut(attachment, settings).tokens for attachment in pending)
        return context_tokens(self._session.runtime, self._session.messages) + waiting

    def is_same(self, attachment: Attachment, picture: MessagePicture) -> bool:
        """Return whether an added picture is one of the conversation, by its pixels."""
        if attachment.size != picture.source_size:  # most are told apart by this, without reading the file again
            return False
        image = load_image(attachment.picture.source, name=attachment.picture.name)
        again = cut_as_before(self._session.runtime, image, picture.name, picture.grid, picture.has_thumbnail)
        return again.tiles == picture.tiles

    def droppable_parts(self) -> list[ConversationPart]:
        """Return the parts of the conversation that can be dropped, the oldest first."""
        self._session.revive()
        return droppable_parts(self._session.runtime, self._session.messages)

    def facts(self) -> list[tuple[str, str]]:
        """Return what /show tells about it, as name and value."""
        runtime = self._session.runtime
        configuration, request = runtime.configuration, runtime.configuration.request
        return [
            ("model", self._name),
            ("text model", str(self.files.text)),
            ("vision encoder", str(self.files.mmproj)),
            ("runs", placement_text(configuration)),
            ("encoder", "llama.cpp" if request.mmproj_on_gpu else request.encoder),
            ("context", counted(request.n_ctx, "token")),
            ("read at once", f"{request.n_batch:,} tokens a call, {request.n_ubatch:,} computed together"),
            ("tiles", f"{runtime.vision.image_size} pixels, {counted(runtime.vision.tokens_per_tile, 'token')} each"),
        ]

    def statistics(self, reply: Reply) -> list[tuple[str, str]]:
        """Return all statistics of an answer, as name and value."""
        return statistics(reply)

    def system_line(self, text: str | None) -> str:
        """Return the line about the system message."""
        if text == "":
            return "No system message."
        official = " (the official one)" if text is None else ""
        return f"System message{official}: {safe_text(OFFICIAL_SYSTEM if text is None else text)}"

    def watch(self, tell: Callable[[object], object]) -> None:
        """Set the function called with the progress of pictures and of several answers."""

        def tell_tiles(done: int, total: int) -> None:
            tell(TilesEncoded(done, total))

        def tell_answers(ended: int, every: int, tokens: int) -> None:
            tell(AnswersWritten(ended, every, tokens))

        self._session.on_tiles(tell_tiles)
        self._session.on_candidates(tell_answers)
