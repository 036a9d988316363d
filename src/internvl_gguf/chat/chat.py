"""The state of a chat: its conversation, model, settings and the pictures of the next question."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf.chat.answer_boxes import show_boxes
from internvl_gguf.chat.attachments import Attachment, attach
from internvl_gguf.chat.clips import (
    FrameCount,
    as_counted,
    as_images,
    attach_clip,
    clip_of,
    groups_of,
    preview_of,
)
from internvl_gguf.chat.context_usage import ConversationPart, without_parts
from internvl_gguf.chat.formatting import added_clip_line, added_line, added_together_line, status_parts
from internvl_gguf.chat.settings import Settings
from internvl_gguf.chat.show_answer import show_answer
from internvl_gguf.chat.shown_pictures import clip_known, known_as, label_of, number_of
from internvl_gguf.chat.typed_line import DISK, FileLookup, PathKind
from internvl_gguf.errors import AnswerBrokenError
from internvl_gguf.session.thinking import cannot_think
from internvl_gguf.types import Picture, Video

if TYPE_CHECKING:
    from internvl_gguf.chat.background_thread import BackgroundThread
    from internvl_gguf.chat.chat_model import ChatModel, FoundModel, Models
    from internvl_gguf.chat.terminal.screen import Screen
    from internvl_gguf.history import Conversation, History, HistoryQuestion
    from internvl_gguf.session.contract import AnySession
    from internvl_gguf.types import MessagePicture, Reply

_MOST_ADDED_LINES = 4
"""Most pictures added together that have a line each."""


class Chat:
    """A running chat. Close it when it ends.

    Args:
        models: finds another model.
        found: the current model as it was found.
        current: the current model, opened.
        history: history that saves the conversations.
        conversation: the current conversation.
        settings: sampling and tile settings of the next questions.
        thread: thread in which the model works.
        screen: shows everything.

    Attributes:
        pending: pictures, and frames of clips, added to the next question.
        clip_frames: how many frames of the next clips are shown.
        last_reply: the last answer of this process; None before.
        last_shown: the pictures of the conversation at that answer, as its boxes count them.
        was_stopped: whether Ctrl-C ended the last answer.
        broken_answers: number of answers that broke off; what came of them is kept.
    """

    def __init__(
        self,
        models: Models,
        found: FoundModel,
        current: ChatModel,
        history: History,
        conversation: Conversation,
        settings: Settings,
        thread: BackgroundThread,
        screen: Screen,
    ) -> None:
        self.models = models
        self.current = current
        self.history = history
        self.conversation = conversation
        self.settings = settings
        self.screen = screen
        self.pending: list[Attachment] = []
        self.clip_frames: FrameCount = None
        self.last_reply: Reply | None = None
        self.last_shown: list[MessagePicture] = []
        self.was_stopped = False
        self.broken_answers = 0
        self._found = found
        self._thread = thread
        current.watch(thread.post)

    @property
    def model(self) -> str:
        """Full name of the model."""
        return self._found.name

    @property
    def session(self) -> AnySession:
        """The session with the model."""
        return self.current.session

    @property
    def short_model(self) -> str:
        """Name of the model; of a path, only the file's name."""
        return Path(self.model).name if self.model.lower().endswith(".gguf") else self.model

    @property
    def n_ctx(self) -> int | None:
        """Number of positions of the context; None where a server has not said it."""
        return self.current.n_ctx

    @property
    def left(self) -> int | None:
        """Number of positions left by the conversation and the added pictures; negative if these do not fit.

        None where a server has not said it.
        """
        used = self.current.used(self.pending, self.settings)
        n_ctx = self.n_ctx
        return None if used is None or n_ctx is None else n_ctx - used

    def change_settings(self, settings: Settings) -> None:
        """Take settings for the next questions.

        Raises:
            InvalidRequestError: they ask a model to think that cannot, or name no judge.
        """
        now, new = self.settings.sampling, settings.sampling
        if new.judge != now.judge or new.best_of > now.best_of:
            self.current.check_judge(new)
        if settings.sampling.thinks and self.current.can_think is False:
            raise cannot_think(
                self.short_model, "/think auto leaves it to the model; /model changes to one that can, an InternVL3.5."
            )
        self.settings = settings

    def add(self, sources: Sequence[Path | bytes | Picture | Video], label: str | None = None) -> None:
        """Add pictures and clips to the next question, all or none, and show how many tokens they take.

        Pictures that are in the conversation already are added again, with a line that says so.

        Args:
            sources: paths, bytes of files, pictures of earlier questions, or clips.
            label: name of a picture that has none.

        Raises:
            PictureError: one of them cannot be read.
        """
        self._add([self._read(source, label) for source in sources])

    def set_frames(self, frames: FrameCount) -> None:
        """Set how many frames the next clips show; those that wait for a question are read again.

        Raises:
            VideoError: one of them cannot be read.
        """
        before, waiting = self.clip_frames, self.pending
        self.clip_frames, self.pending = frames, []
        try:
            for group in groups_of(waiting):
                clip = group[0].clip
                self.pending += self._read(replace(clip.video, frames=frames, fps=None), None) if clip else group
        except BaseException:
            self.clip_frames, self.pending = before, waiting
            raise

    def add_named(self, sources: Sequence[Path | Picture | Video]) -> tuple[list[int], int, set[int], int]:
        """Add the pictures that a line names, all or none; those that the conversation has already are not added again.

        Returns:
            What `TypedLine.question` takes: numbers of the pictures and clips as the prompt counts them, and how many
            there are.

        Raises:
            PictureError: one of them cannot be read.
        """
        shown, named = self._shown, [self._named(source) or self._read(source, None) for source in sources]
        first, new, said = list[int](), list[list[Attachment]](), list[str]()
        for each in named:
            if isinstance(each, int):
                first.append(each - 1)
                continue
            known = [number_of(frame, shown, self.current.is_same) for frame in each]
            if all(known):
                first.append(known[0] - 1)
                label = each[0].clip.label if each[0].clip else None
                about = known_as(each[0], shown[known[0] - 1], known[0]) if label is None else clip_known(label, known)
                said.append(f"{about}; /image adds it again.")
            else:
                first.append(len(shown))
                shown += each
                new.append(each)
        for line in said:
            self.screen.say(line)
        self._add(new)
        return as_counted(first, shown)

    @property
    def known_pictures(self) -> FileLookup:
        """Looks up what a line names: files of this machine, and pictures of the conversation by their names."""
        labels = set(map(label_of, self._shown))

        def kind(path: Path) -> PathKind:
            found = DISK.kind(path)
            return PathKind.PICTURE if found is PathKind.NOTHING and str(path) in labels else found

        return FileLookup(kind, DISK.matches)

    def describe_pending(self) -> list[str]:
        """Return one line about each picture that was added to the next question, or one about many together."""
        groups = groups_of(self.pending)
        lines = [line for group in groups if group[0].clip for line in self._clip_lines(group)]
        pictures = [group[0] for group in groups if not group[0].clip]
        if len(pictures) > _MOST_ADDED_LINES:
            return [*lines, self._described_together(pictures)]
        return [*lines, *(self._described(attachment) for attachment in pictures)]

    def ask(self, prompt: str, settings: Settings | None = None) -> bool:
        """Ask a question with the added pictures; show the answer and its statistics.

        Args:
            settings: settings of this question; None for those of the chat.

        An answer that breaks off stays as far as it came, and the error is shown.

        Returns:
            Whether there is an answer; False if Ctrl-C came before it began: the question counts as not asked then.

        Raises:
            InternVLError: the question cannot be asked.
            LeaveChatAtOnce: Ctrl-C was pressed twice.
        """
        session, conversation = self.session, self.conversation
        options = self.current.ask_options(settings or self.settings)
        pictures = as_images(self.pending)
        self.was_stopped = False
        try:
            shown = show_answer(
                self._thread, lambda: conversation.stream(session, prompt, pictures, **options), session, self.screen
            )
        except AnswerBrokenError as error:
            self.pending.clear()
            self.broken_answers += 1
            self.screen.fail(error)
            return True
        reply, self.was_stopped = shown.reply, shown.was_stopped
        if reply is None:
            return False
        if not reply.text and reply.finish_reason == "aborted":
            conversation.undo(session)
            return False
        self.pending.clear()
        self.last_reply = reply
        self.last_shown = [picture for message in session.messages for picture in message.pictures]
        self._explain(reply)
        show_boxes(self.screen, conversation, self.last_shown, reply.boxes)
        new_tiles = sum(picture.n_tiles for picture in session.messages[-2].pictures)
        left, n_ctx = self.left, self.n_ctx
        used = None if left is None or n_ctx is None else n_ctx - max(left, 0)
        self.screen.status(status_parts(reply, new_tiles, used, n_ctx))
        return True

    def undo(self) -> HistoryQuestion | None:
        """Remove the last question and its answer; its pictures are added to the next question.

        Returns:
            The question; None if there is none.
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

    def resume(self, conversation: Conversation) -> None:
        """Continue another conversation.

        Raises:
            InternVLError: it cannot be continued with this model.
        """
        conversation.continue_in(self.session)
        self.conversation = conversation
        self.pending.clear()
        self.last_reply = None
        if conversation.model != self.model:
            conversation.set_model(self.model)

    def change_model(self, name: str) -> None:
        """Change the model or its quant; the conversation stays.

        Raises:
            InternVLError: the new model cannot be loaded or continue the conversation; the old one is loaded again.
        """
        old = self._found
        found = self.models.find(name)
        self.session.close()  # two models at once need the memory of both
        try:
            self._open(found)
        except BaseException:
            self.session.close()
            self._open(old)
            raise
        self.conversation.set_model(self.model)
        if self.settings.sampling.thinks and self.current.can_think is False:
            self.settings = self.settings.changed("thinking", "auto").changed("thinking_budget", "none")
            self.screen.say(f"{self.short_model} cannot think: it answers at once (/think auto).")

    @property
    def has_parts(self) -> bool:
        """Whether there are parts to drop; does not need the model, which may have failed."""
        return any(message.role == "user" for message in self.session.messages)

    @property
    def has_clip(self) -> bool:
        """Whether a clip was added to the next question."""
        return any(each.clip for each in self.pending)

    def droppable_parts(self) -> list[ConversationPart]:
        """Return the parts of the conversation that can be dropped to make room."""
        return self.current.droppable_parts()

    def drop(self, dropped: Collection[ConversationPart]) -> None:
        """Remove parts from what the model reads; the history keeps them."""
        self.session.continue_with(without_parts(self.session.messages, dropped))

    def keep_state(self) -> None:
        """Save the KV, so that a resumed chat answers at once."""
        if self.conversation.entries and self.history.is_kept and self.session.kv_bytes(1) is not None:
            self.screen.progress("Keeping the conversation", at_once=True)
            self.conversation.keep_state(self.session)
            self.screen.progress()

    def close(self) -> None:
        """Stop the running answer, free the model and close the history."""
        self.session.abort()
        self._thread.close()
        self.session.close()
        self.history.close()

    def _open(self, found: FoundModel) -> None:
        self.current = found.open()
        self._found = found
        self.current.watch(self._thread.post)
        self.conversation.continue_in(self.session)

    @property
    def _shown(self) -> list[MessagePicture | Attachment]:
        """The pictures as /images numbers them: those of the conversation, then those of the next question."""
        return [*(picture for message in self.session.messages for picture in message.pictures), *self.pending]

    def _named(self, source: Path | bytes | Picture | Video) -> int:
        """Return the number of the last picture of the conversation that a name means where no file has it; else 0."""
        if not isinstance(source, Path) or DISK.kind(source) is not PathKind.NOTHING:
            return 0
        labels = list(map(label_of, self._shown))
        return next((number for number in range(len(labels), 0, -1) if labels[number - 1] == str(source)), 0)

    def _read(self, source: Path | bytes | Picture | Video, label: str | None) -> list[Attachment]:
        """Read a picture, or the frames of a clip."""
        clip = clip_of(source, self.clip_frames)
        if clip is None:
            assert not isinstance(source, Video)
            return [attach(source, label)]
        clip = clip if clip.name or label is None or not isinstance(clip.source, bytes) else replace(clip, name=label)
        self.screen.progress("Reading the clip")
        try:
            return attach_clip(clip, self.current.tile_size, self._frame_room() if clip.frames == "auto" else 1)
        finally:
            self.screen.progress()

    def _frame_room(self) -> int:
        """Return how many frames the context has room for, beside what is added already."""
        waiting = sum(cut.grid.tiles for each in self.pending if (cut := self.current.cut(each, self.settings)))
        return self.session.frame_room("?", **self.current.ask_options(self.settings)) - waiting

    def _add(self, groups: Sequence[Sequence[Attachment]]) -> None:
        for is_clip, several in groupby(groups, lambda group: group[0].clip is not None):
            if is_clip:
                for frames in several:
                    self._add_clip(frames)
            else:
                self._add_pictures([group[0] for group in several])

    def _add_clip(self, frames: Sequence[Attachment]) -> None:
        self.pending += frames
        self.screen.preview(preview_of(frames))
        for line in self._clip_lines(frames):
            self.screen.say(line)

    def _clip_lines(self, frames: Sequence[Attachment]) -> list[str]:
        """Return the lines about an added clip."""
        clip = frames[0].clip
        assert clip is not None
        cuts = [self.current.cut(frame, self.settings) for frame in frames]
        return [*clip.notices, added_clip_line(clip, cuts, self.left, self.n_ctx)]

    def _add_pictures(self, attachments: Sequence[Attachment]) -> None:
        shown, again = self._shown, list[str]()
        is_many = len(attachments) > _MOST_ADDED_LINES
        for attachment in attachments:
            self.pending.append(attachment)
            self.screen.preview(attachment.small)
            number = number_of(attachment, shown, self.current.is_same)
            if number:
                again.append(f"{known_as(attachment, shown[number - 1], number)}; added again.")
            if not is_many:
                for line in (*again, self._described(attachment)):
                    self.screen.say(line)
                again.clear()
            if attachment.is_animation:
                self.screen.say(f"{attachment.label} is animated: this is its first frame; /video adds more of them.")
        if len(again) > _MOST_ADDED_LINES:
            again = [f"{len(again)} of these pictures are in the conversation already; added again."]
        for line in (*again, self._described_together(attachments)) if is_many else ():
            self.screen.say(line)

    def _described(self, attachment: Attachment) -> str:
        """Return the line about an added picture."""
        cut, left, n_ctx = self.current.cut(attachment, self.settings), self.left, self.n_ctx
        return added_line(attachment, cut, left, n_ctx, in_words=self.screen.for_screen_reader)

    def _described_together(self, attachments: Sequence[Attachment]) -> str:
        """Return the line about many added pictures."""
        cuts = [self.current.cut(attachment, self.settings) for attachment in attachments]
        return added_together_line(cuts, self.left, self.n_ctx)

    def _explain(self, reply: Reply) -> None:
        """Say why an answer is incomplete or empty."""
        if reply.finish_reason == "aborted":
            self.screen.say("Stopped; what was said is kept. Ctrl-C again or Ctrl-D leaves.")
        elif reply.finish_reason == "length":
            if self.left is not None and self.left <= 0:
                self.screen.say("The context is full. /drop makes room; /clear begins anew.")
            elif not reply.selection:  # of several a notice has said it
                self.screen.say("The answer was cut at its limit: /set max_tokens raises it.")
        elif not reply.text.strip():
            self.screen.say("The model ended its answer without a word.")
