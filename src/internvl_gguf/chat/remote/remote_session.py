"""A conversation with a model of a server: all of it is sent again with each question."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

from internvl_gguf.boxes.parse import read_boxes
from internvl_gguf.chat.remote.measured_room import MeasuredRoom
from internvl_gguf.chat.remote.received import ReceivedAnswer, progress_event
from internvl_gguf.chat.remote.sent_picture import sent_picture
from internvl_gguf.chat.remote.server import Line, ModelServer, ServedModel
from internvl_gguf.chat.remote.wire import request_fields, request_messages
from internvl_gguf.config import AskOptions, PictureOptions
from internvl_gguf.errors import AnswerBrokenError, InvalidRequestError, ServerError
from internvl_gguf.images.load import picture_list
from internvl_gguf.session.grounding import asked_pictures
from internvl_gguf.session.prompt_template import check_places, check_turns, with_system, without_last_question
from internvl_gguf.session.question_options import checked_options
from internvl_gguf.types import Chunk, Message, MessagePicture, Reply
from internvl_gguf.utils import arguments
from internvl_gguf.utils.notices import Notice
from internvl_gguf.video.recipe import DEFAULT_FRAMES


class RemoteSession:
    """A conversation with a model of a server; an `AnySession`.

    Args:
        server: the server.
        model: the model.
        room: what is known of the room that pictures take.
        on_notice: called with what the server changed so that a question fits.

    Attributes:
        positions: positions that the conversation takes, the last answer included; None where that is not known.
        on_event: called with the events of a question (`show_answer`), in the thread that asks.
    """

    def __init__(self, server: ModelServer, model: ServedModel, room: MeasuredRoom, on_notice: Notice) -> None:
        self.positions: int | None = None
        self.on_event: Callable[[object], object] = lambda event: None
        self._server = server
        self._model = model
        self._room = room
        self._on_notice = on_notice
        self._messages: list[Message] = []
        self._line: Line | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, the system message first."""
        return tuple(self._messages)

    def stream(self, prompt: str, images: Any = (), **options: Unpack[AskOptions]) -> Generator[Chunk, None, None]:
        """Ask a question and receive the answer piece by piece; the last chunk carries the `Reply`.

        The question is checked at once, the answer begins with the first `next`. Closing the iterator or an error in
        the middle ends the answer, and what was received of it stays in the conversation.

        Raises:
            InvalidRequestError: options or a prompt that cannot be used.
            ContextOverflowError: the conversation does not fit the context of the server.
            PictureError: a picture that cannot be read.
            ServerError: the server cannot be reached or refuses.
            AnswerBrokenError: the answer broke off; what came of it stays.
        """
        checked_options(options)
        arguments.text("prompt", prompt)
        layout = options.get("layout", PictureOptions.layout)
        pictures = tuple(sent_picture(image) for image in picture_list(images))
        if not prompt and not pictures:
            raise InvalidRequestError("The prompt is empty.", "Ask something, or give a picture.")
        check_places(prompt, len(pictures), layout)
        return self._answer(Message("user", prompt, pictures, layout), options)

    def undo(self) -> Message | None:
        """Forget the last question and its answer, and return the question; None if none was asked."""
        messages, question = without_last_question(self._messages)
        self._change(messages)
        return question

    def clear(self) -> None:
        """Forget the conversation; the system message stays."""
        self._change([message for message in self._messages if message.role == "system"])

    def set_system(self, text: str | None) -> None:
        """Replace the system message: "" sends an empty one, None none, so that the server's own counts."""
        system = arguments.text_or_none("text", text)
        turns = with_system(self._messages, "")
        self._change(turns if system is None else [Message("system", system), *turns])

    def continue_with(self, messages: Iterable[Message], saved: str | os.PathLike[str] | None = None) -> None:
        """Continue a conversation held elsewhere. The server keeps what it computed; `saved` is not used.

        Raises:
            InvalidRequestError: messages out of turn.
        """
        self._change(check_turns(messages))

    def picture(
        self, image: Any, grid: tuple[int, int] | None = None, *, has_thumbnail: bool = False
    ) -> MessagePicture:
        """Return a picture as messages hold it: the server cuts it anew, whatever its grid was.

        Raises:
            PictureError: a picture that cannot be read.
        """
        return sent_picture(image)

    def frame_room(self, prompt: str, images: Any = (), **options: Unpack[AskOptions]) -> int:
        """Return the number of frames that a clip has by default: the server knows the room."""
        return DEFAULT_FRAMES

    def kv_bytes(self, positions: int) -> int | None:
        """Return None: the KV is with the server."""
        return None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Refuse to save.

        Raises:
            InvalidRequestError: always.
        """
        raise InvalidRequestError(
            "The state of the model is with the server.", "Save the conversation itself: /save writes a file."
        )

    @property
    def messages_state(self) -> object:
        """What is another object whenever the conversation has changed."""
        return self._messages

    def revive(self) -> None:
        """Do nothing: each question makes a connection of its own."""

    def abort(self) -> None:
        """Stop the running answer, from another thread: its connection is closed, so that the server ends it, too."""
        line = self._line
        if line is not None:
            line.cut()

    def close(self) -> None:
        """Stop the running answer; the server stays connected for another model of it."""
        self.abort()

    def body(self, messages: Sequence[Message], options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request that asks with these messages and options."""
        is_ours = self._model.is_ours
        fields = request_fields(options, is_ours=is_ours)
        return {"model": self._model.name, "messages": request_messages(messages, is_ours=is_ours), **fields}

    def _answer(self, question: Message, options: AskOptions) -> Generator[Chunk, None, None]:
        answer, line = ReceivedAnswer(), Line()
        before, self._line = list(self._messages), line
        is_kept = False

        def keep() -> None:
            if answer.notices:  # pictures of the question were cut otherwise than alone
                self._room.forget(question.pictures, options)
            self._room.forget_unknown()
            asked = [self._as_cut(message, options) for message in (*before, question)]
            self._messages = [*asked, Message("assistant", answer.text, thinking=answer.thinking)]
            self.positions = answer.positions

        try:
            yield from self._pieces([*before, question], options, answer, line)
            keep()
            is_kept = True
        finally:
            self._line = None
            if not is_kept and answer.text:
                keep()
        for notice in answer.notices:
            self._on_notice(notice)
        yield Chunk("", self._with_boxes(answer.reply(is_stopped=line.is_cut)))

    def _pieces(
        self, messages: Sequence[Message], options: AskOptions, answer: ReceivedAnswer, line: Line
    ) -> Iterator[Chunk]:
        """Yield the pieces of an answer until it ends, or the line is cut."""
        body = {**self.body(messages, options), "stream": True, "stream_options": {"include_usage": True}}
        if self._model.is_ours:
            body["return_progress"] = True
        try:
            with contextlib.closing(self._server.answer(body, line)) as chunks:
                for chunk in chunks:
                    if piece := answer.take(chunk):
                        yield piece
                    elif event := progress_event(chunk):
                        self.on_event(event)
            if not answer.is_over:
                raise ServerError(f"The server at {self._server.address.url} ended the answer in the middle.", "")
        except ServerError as error:
            if line.is_cut:
                return
            if answer.text:
                raise AnswerBrokenError(
                    f"The answer broke off: {error.message}", "What came of it is kept; /regen asks again."
                ) from None
            if not error.hint:
                raise ServerError(error.message, "Ask again, or look at the server.") from None
            raise

    def _with_boxes(self, reply: Reply) -> Reply:
        """Return a reply with the boxes of its text; a server sends it without tags."""
        pictures = asked_pictures(self._messages[:-1])
        return replace(reply, boxes=read_boxes(reply.text, pictures).boxes) if pictures else reply

    def _as_cut(self, message: Message, options: Mapping[str, Any]) -> Message:
        """Return a message with its pictures as these options cut them: a server cuts all anew for each question."""
        if not message.pictures:
            return message
        return replace(message, pictures=tuple(self._room.known(each, options) for each in message.pictures))

    def _change(self, messages: list[Message]) -> None:
        self._messages = messages
        self.positions = None
