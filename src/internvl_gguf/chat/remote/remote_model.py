"""The model of a chat that is with a server. Nothing about it is guessed: what the server does not say is left out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from internvl_gguf.chat.chat_model import PlannedCut
from internvl_gguf.chat.context_usage import ConversationPart, questions
from internvl_gguf.chat.formatting import statistics
from internvl_gguf.chat.remote.faults import whole
from internvl_gguf.chat.remote.measured_room import CUTTING, MeasuredPicture, MeasuredRoom
from internvl_gguf.chat.remote.remote_session import RemoteSession
from internvl_gguf.chat.remote.sent_picture import SentPicture, sent_picture
from internvl_gguf.chat.remote.server import ModelServer, ServedModel
from internvl_gguf.config import AskOptions
from internvl_gguf.errors import InternVLError, InvalidRequestError
from internvl_gguf.tiling import CARD_RANGE, TileRange
from internvl_gguf.types import Message, MessagePicture
from internvl_gguf.utils.kinds import JudgeName
from internvl_gguf.utils.notices import Notice
from internvl_gguf.utils.safe_text import safe_name, safe_text
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.chat.attachments import Attachment
    from internvl_gguf.chat.settings import Settings
    from internvl_gguf.config import SamplingParams
    from internvl_gguf.types import Reply


class RemoteModel:
    """A model of a server; see `ChatModel` for each part.

    Args:
        server: the server.
        model: the model as it is listed.
        on_notice: called with what the server changed so that a question fits.
    """

    def __init__(self, server: ModelServer, model: ServedModel, on_notice: Notice) -> None:
        self._server = server
        self._model = model
        self._room = MeasuredRoom()
        self._n_ctx, self._tile_size = model.n_ctx, model.tile_size
        self._counted: tuple[object, int | None] | None = None
        self._session = RemoteSession(server, model, self._room, on_notice)

    @property
    def session(self) -> RemoteSession:
        """The conversation with it."""
        return self._session

    @property
    def place(self) -> str:
        """The address of the server."""
        return self._server.address.url

    @property
    def n_ctx(self) -> int | None:
        """Number of positions of the context. Our server knows it as soon as the model has answered."""
        self._look_up()
        return self._n_ctx

    def _look_up(self) -> None:
        """Ask our server what it did not say before the model was loaded."""
        if self._n_ctx is None and self._model.is_ours and self._session.positions is not None:
            with contextlib.suppress(InternVLError):
                listed = {each.name: each for each in self._server.models()}
                if found := listed.get(self._model.name):
                    self._n_ctx, self._tile_size = found.n_ctx, found.tile_size

    @property
    def tile_size(self) -> int | None:
        """Pixels of the side of its tiles, which our server says as soon as the model is loaded."""
        self._look_up()
        return self._tile_size

    @property
    def tile_range(self) -> TileRange:
        """How many tiles a picture is cut into where nobody says otherwise: no server says more than the model card."""
        return CARD_RANGE

    @property
    def can_think(self) -> bool | None:
        """Whether it can think before it answers, as our server says."""
        return self._model.can_think

    def ask_options(self, settings: Settings) -> AskOptions:
        """Return what every server knows, and what the user has set: a strict server refuses other fields.

        Raises:
            InvalidRequestError: several answers of a server that cannot judge them.
        """
        sampling = settings.sampling
        self.check_judge(sampling)
        always: AskOptions = {"max_tokens": sampling.effective_max_tokens}
        if sampling.best_of == 1:  # else the first is greedy and the others are not, unless the user says otherwise
            always |= {"temperature": sampling.effective_temperature, "top_p": sampling.effective_top_p}
        given: dict[str, Any] = dict(settings.given_options)
        if sampling.best_of == 1:
            given = {name: value for name, value in given.items() if name not in ("best_of", "judge")}
        return cast("AskOptions", {**always, **given})

    def check_judge(self, sampling: SamplingParams) -> None:
        """Check that the server judges answers, and by this judge: it loads no critics."""
        if sampling.best_of > 1 and not self._model.is_ours:
            raise InvalidRequestError(
                f"{self.place} is no `internvl serve`, so it judges no answers.", "/set best_of 1 asks it for one."
            )
        if sampling.judge not in JudgeName.choices:
            known = " or ".join(f"/set judge {name}" for name in JudgeName.choices)
            raise InvalidRequestError(f"The server does not judge by {safe_name(sampling.judge)}.", f"Type {known}.")

    def cut(self, attachment: Attachment, settings: Settings) -> PlannedCut | None:
        """Return how an added picture will be cut, as our server says."""
        measured = self._measured(attachment, settings)
        return None if measured is None else measured.cut

    def used(self, pending: Sequence[Attachment], settings: Settings) -> int | None:
        """Return the positions that the conversation takes with the added pictures, as our server counts them."""
        if self.n_ctx is None:
            return None
        measured = [self._measured(attachment, settings) for attachment in pending]
        known = [each for each in measured if each is not None]
        used = self._conversation_tokens(settings)
        if used is None or len(known) != len(measured):
            return None
        around = known[0].around if known and not questions(self._session.messages) else 0
        return used + around + sum(each.cut.tokens for each in known)

    def is_same(self, attachment: Attachment, picture: MessagePicture) -> bool:
        """Return whether an added picture is one of the conversation, by its pixels."""
        return isinstance(picture, SentPicture) and picture.digest == attachment.digest

    def droppable_parts(self) -> list[ConversationPart]:
        """Return the parts of the conversation that can be dropped, the oldest first; of pictures their tokens."""
        found = []
        for turn, question in enumerate(questions(self._session.messages)):
            found.append(ConversationPart(turn, None, None, question.text, len(question.pictures)))
            for number, picture in enumerate(question.pictures):
                tokens = picture.tokens if isinstance(picture, SentPicture) else None
                found.append(ConversationPart(turn, number, tokens, picture.name, 1))
        return found

    def facts(self) -> list[tuple[str, str]]:
        """Return what /show tells about it, as name and value."""
        kind = "internvl serve" if self._model.is_ours else "OpenAI-compatible"
        rows = [("model", self._model.name), ("server", f"{self.place} ({kind})")]
        return [*rows, ("context", counted(self.n_ctx, "token"))] if self.n_ctx else rows

    def statistics(self, reply: Reply) -> list[tuple[str, str]]:
        """Return the statistics of an answer that the server sent."""
        usage, timings = reply.usage, reply.timings
        known = {
            "in the context": usage.tiles,
            "read for this answer": usage.tiles,
            "prompt": usage.prompt_tokens,
            "answer": usage.prompt_tokens,
            "cutting tiles": timings.preprocess,
            "encoding tiles": timings.encode,
            "reading the prompt": timings.prefill,
            "first token after": timings.time_to_first_token,
            "answering": timings.decode_tokens_per_second,
        }
        rows = dict(row for row in statistics(reply) if known.get(row[0]))
        if "prompt" in rows and not usage.cached_tokens:  # perhaps it does not say how many it knew
            rows["prompt"] = counted(usage.prompt_tokens, "token")
        return list(rows.items()) or [("the server", "counts nothing")]

    def system_line(self, text: str | None) -> str:
        """Return the line about the system message."""
        if text is None:
            return "No system message is sent: the server's own counts, if it has one."
        return f"System message: {safe_text(text)}" if text else "An empty system message is sent."

    def watch(self, tell: Callable[[object], object]) -> None:
        """Set the function called with the progress of questions."""
        self._session.on_event = tell

    def _conversation_tokens(self, settings: Settings) -> int | None:
        """Return the positions of the conversation: counted with the last answer, else asked for."""
        session = self._session
        if session.positions is not None:
            return session.positions
        if not questions(session.messages):
            return 0
        if self._counted is None or self._counted[0] is not session.messages_state:
            document: Any = {}
            with contextlib.suppress(InternVLError):
                document = self._server.measure(session.body(session.messages, _cutting(settings)))
            self._counted = (session.messages_state, whole(document.get("input_tokens")))
        return self._counted[1]

    def _measured(self, attachment: Attachment, settings: Settings) -> MeasuredPicture | None:
        """Return what our server says about an added picture; it is asked once, and not before the model is loaded."""
        options = settings.given_options
        if not self._room.has(attachment.digest, options) and self._model.is_ours and self.n_ctx is not None:
            question = Message("user", "", (sent_picture(attachment.picture),), settings.pictures.layout)
            document: Any = {}
            with contextlib.suppress(InternVLError):
                document = self._server.measure(self._session.body([question], _cutting(settings)))
            self._room.take(attachment.digest, options, document)
        return self._room.of(attachment.digest, options)


def _cutting(settings: Settings) -> dict[str, Any]:
    """Return the options of a question that say how its pictures are cut."""
    return {name: value for name, value in settings.given_options.items() if name in CUTTING}
