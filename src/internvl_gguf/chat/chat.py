"""A conversation as people hold it: what is said, what waits to be asked, and how it is asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf.chat.asking import TilesDone, follow
from internvl_gguf.chat.attachments import Attachment, attach
from internvl_gguf.chat.room import Part, parts, taken, without
from internvl_gguf.chat.settings import Settings
from internvl_gguf.chat.wording import added_line, status_parts
from internvl_gguf.types import Picture

if TYPE_CHECKING:
    from internvl_gguf.chat.screen import Screen
    from internvl_gguf.chat.worker import Worker
    from internvl_gguf.history import Conversation, History, HistoryQuestion
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.session import Session
    from internvl_gguf.types import Reply


@dataclass(frozen=True)
class Models:
    """How a chat comes by models.

    Attributes:
        find: the files of a model by its name, fetched if they are not here.
        load: a session with them.
        name: how a model is called that was asked for by a name: with its quant, paths absolute.
    """

    find: Callable[[str], ModelFiles]
    load: Callable[[ModelFiles], Session]
    name: Callable[[ModelFiles], str]


class Chat:
    """A chat under way. Close it when it ends.

    Args:
        models: with what to change the model.
        files: of the model.
        session: the loaded model.
        history: where conversations are kept.
        conversation: the one that is held.
        settings: how it is asked.
        worker: in which the model works.
        screen: where it is shown.

    Attributes:
        pending: pictures that wait for their question.
        last_reply: the last answer of this process; None before.
        was_stopped: whether Ctrl-C ended the last answer.
    """

    def __init__(
        self,
        models: Models,
        files: ModelFiles,
        session: Session,
        history: History,
        conversation: Conversation,
        settings: Settings,
        worker: Worker,
        screen: Screen,
    ) -> None:
        self._models = models
        self.files = files
        self.session = session
        self.history = history
        self.conversation = conversation
        self.settings = settings
        self.screen = screen
        self.pending: list[Attachment] = []
        self.last_reply: Reply | None = None
        self.was_stopped = False
        self._worker = worker
        self._watch_tiles()

    @property
    def model(self) -> str:
        """How the model is called."""
        return self._models.name(self.files)

    @property
    def short_model(self) -> str:
        """The same, of a path only the file's name."""
        return Path(self.model).name if self.model.lower().endswith(".gguf") else self.model

    @property
    def n_ctx(self) -> int:
        """Positions of the context."""
        return self.session.runtime.engine.n_ctx

    @property
    def left(self) -> int:
        """Positions that are free beside the conversation and the pictures that wait; below 0 where they do not fit."""
        self.session.revive()
        runtime = self.session.runtime
        waiting = sum(self._tokens(attachment) for attachment in self.pending)
        return self.n_ctx - taken(runtime, self.session.messages) - waiting

    def add(self, sources: Sequence[Path | bytes | Picture], label: str | None = None) -> None:
        """Read pictures for the next question, and say what they take; all of them or none.

        Args:
            sources: paths, bytes of files, or pictures of before.
            label: how lines call one that has no name.

        Raises:
            PictureError: one cannot be read.
        """
        for attachment in [attach(source, label) for source in sources]:
            self.pending.append(attachment)
            self.screen.preview(attachment.small)
            self.screen.say(self.describe(attachment))

    def describe(self, attachment: Attachment) -> str:
        """A picture that waits, in one line."""
        grid = attachment.grid(self.settings.limits, self.session.runtime.vision.image_size)
        words = self.screen.speaks_words
        return added_line(attachment, grid, self._tokens(attachment), self.left, self.n_ctx, in_words=words)

    def ask(self, prompt: str, settings: Settings | None = None) -> bool:
        """Ask about the pictures that wait, or go on; show the answer and what it took.

        Args:
            settings: for this question only; None takes those of the chat.

        Returns:
            Whether there is an answer; False where Ctrl-C came before it began, and nothing was asked.

        Raises:
            InternVLError: it cannot be asked; nothing was.
            LeavingAtOnce: Ctrl-C came twice.
        """
        session, conversation = self.session, self.conversation
        options = (settings or self.settings).ask_options
        pictures = [attachment.picture for attachment in self.pending]
        reply = follow(
            self._worker, lambda: conversation.stream(session, prompt, pictures, **options), session, self.screen
        )
        self.was_stopped = reply is None or reply.finish_reason == "aborted"
        if reply is None:
            return False
        if not reply.text and reply.finish_reason == "aborted":
            conversation.undo(session)
            return False
        self.pending.clear()
        self.last_reply = reply
        self._explain(reply)
        self.screen.status(status_parts(reply, self.n_ctx))
        return True

    def undo(self) -> HistoryQuestion | None:
        """Take the last question and its answer back; its pictures wait again.

        Returns:
            The question; None where there is none.
        """
        asked = self.conversation.undo(self.session)
        if asked is not None:
            self.pending = [attach(picture) for picture in asked.pictures]
        return asked

    def clear(self) -> None:
        """Begin a new conversation; the old one stays in the history."""
        self.session.clear()
        self.conversation = self.history.begin(self.model, self.conversation.system)
        self.pending.clear()
        self.last_reply = None

    def take_up(self, conversation: Conversation) -> None:
        """Go on with another conversation.

        Raises:
            InternVLError: this model cannot.
        """
        conversation.continue_in(self.session)
        self.conversation = conversation
        self.pending.clear()
        self.last_reply = None
        if conversation.model != self.model:
            conversation.set_model(self.model)

    def change_model(self, name: str) -> None:
        """Go on with another model or quant; the conversation stays.

        Raises:
            InternVLError: it cannot be had, or the conversation not be continued with it; the old one is there again.
        """
        old = self.files
        files = self._models.find(name)
        self.session.close()  # two models at once need the memory of both
        try:
            self._open(files)
        except BaseException:
            self.session.close()
            self._open(old)
            raise
        self.conversation.set_model(self.model)

    @property
    def has_parts(self) -> bool:
        """Whether there is something to drop; known without the model, which may be what failed."""
        return any(message.role == "user" for message in self.session.messages)

    def parts(self) -> list[Part]:
        """What can be dropped of the conversation to make room."""
        self.session.revive()
        return parts(self.session.runtime, self.session.messages)

    def drop(self, dropped: Collection[Part]) -> None:
        """Take parts out of what the model reads; the history keeps them."""
        self.session.continue_with(without(self.session.messages, dropped))

    def keep_state(self) -> None:
        """Keep what a resumed chat needs to answer at once."""
        if self.conversation.entries and self.history.is_kept:
            self.screen.progress("Keeping the conversation", at_once=True)
            self.conversation.keep_state(self.session)
            self.screen.progress()

    def close(self) -> None:
        """End it: what is under way stops, the model is freed, the history closed."""
        self.session.abort()
        self._worker.close()
        self.session.close()
        self.history.close()

    def _open(self, files: ModelFiles) -> None:
        self.session = self._models.load(files)
        self.files = files
        self._watch_tiles()
        self.conversation.continue_in(self.session)

    def _watch_tiles(self) -> None:
        def tell(done: int, total: int) -> None:
            self._worker.tell(TilesDone(done, total))

        self.session.on_tiles(tell)

    def _tokens(self, attachment: Attachment) -> int:
        vision = self.session.runtime.vision
        return attachment.grid(self.settings.limits, vision.image_size).tiles * vision.tokens_per_tile

    def _explain(self, reply: Reply) -> None:
        """Say why an answer is not whole, or why there is nothing to see."""
        if reply.finish_reason == "aborted":
            self.screen.say("Stopped; what was said is kept. Ctrl-C again or Ctrl-D leaves.")
        elif reply.finish_reason == "length":
            if self.left <= 0:
                self.screen.say("The context is full. /drop makes room; /clear begins anew.")
            else:
                self.screen.say("The answer was cut at its limit: /set max_tokens raises it.")
        elif not reply.text.strip():
            self.screen.say("The model ended its answer without a word.")
