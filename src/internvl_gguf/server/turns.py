"""Messages to a prompt. Clients without a memory send a whole conversation each time: what was seen is not done again.

A turn that was prepared before is found by its content and by all that came before it: its pictures are neither
decoded nor cut again, they are cut as they were then, and an answer of the model is continued with the very tokens that
it sampled. So the prompt begins with spans that the KV cache holds, and only what is new is computed.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from internvl_gguf.config import AskOptions
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.errors import ContextOverflowError
from internvl_gguf.images.fit_context import ANSWER_ALLOWANCE
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.server.chat_request import ChatRequest, PicturePart, TextPart, Turn
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prepare import PreparedQuestion, grounded_tokens, prepare_question, refuse_endless
from internvl_gguf.session.prompt_template import IMAGE_PLACE
from internvl_gguf.tiling import MAX_TILES
from internvl_gguf.types import Message, Picture, TokenSpan

KEPT_BYTES: Final = 256 * 2**20
_MESSAGE_BYTES: Final = 512  # of a message without pictures, about

Key = bytes


@dataclass(frozen=True)
class PreparedConversation:
    """A conversation ready for the engine.

    Attributes:
        question: the last question with the whole prompt.
        messages: all messages, without the part of the answer that the client gave.
        prefix: the part of the answer that the client gave, which is gone on with; "" for none.
        key: key of the answer among kept turns.
        encoder_identity: the encoder that its pictures were cut for.
    """

    question: PreparedQuestion
    messages: tuple[Message, ...]
    prefix: str
    key: Key
    encoder_identity: bytes

    @property
    def pictures(self) -> list[Any]:
        """All its pictures, cut."""
        return [picture for message in self.messages for picture in message.pictures]


@dataclass(frozen=True)
class _KeptTurn:
    """A turn that was prepared before: its message, and what was changed so that it fits."""

    message: Message
    notices: tuple[str, ...] = ()

    @property
    def n_bytes(self) -> int:
        tiles = (tile for picture in self.message.pictures for tile in picture.tiles)
        return _MESSAGE_BYTES + 4 * len(self.message.text) + sum(len(tile.pixels) for tile in tiles)


class Turns:
    """Prepares conversations for one model. Any thread may use it.

    Args:
        kept_bytes: memory that prepared turns may take; those not used for longest are dropped first.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._most = kept_bytes
        self._used = 0
        self._kept: OrderedDict[Key, _KeptTurn] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, runtime: ModelRuntime, request: ChatRequest, system: str) -> PreparedConversation:
        """Return the prompt of a request; the model computes nothing.

        Args:
            runtime: the model.
            request: its pictures are bytes.
            system: the system message where the request has none; "" for none.

        Raises:
            InvalidRequestError: a prompt that cannot be used.
            ContextOverflowError: it does not fit the context.
            PictureError: a picture that cannot be read.
        """
        started = time.perf_counter()
        _refuse_too_many(request.turns, runtime.engine.n_ctx)
        options = _options(request)
        identity = runtime.encoder_identity
        room = min(request.sampling.max_tokens, ANSWER_ALLOWANCE)  # all that it decides about how pictures are cut
        key = _key(b"", "options", identity, repr((room, request.pictures)))
        messages: list[Message] = []
        *earlier, last = request.turns
        prefix = last.text if last.role == "assistant" else ""
        if last.role == "assistant":
            *earlier, last = earlier
        if request.turns[0].role != "system" and system:
            messages.append(Message("system", system))
            key = _key(key, "system", system)
        for turn in earlier:
            if turn.role == "user":
                kept, key = self._question(runtime, messages, turn, options, key)
                messages.append(kept.message)
            elif turn.role == "assistant" or turn.text:  # an empty system message is the wish for none
                message, key = self._said(turn, key)
                messages.append(message)
        kept, key = self._question(runtime, messages, last, options, key)
        question = prepare_question(runtime, TileLimits(), messages, kept.message.text, kept.message.pictures, options)
        question = replace(question, started=started, notices=kept.notices)
        if prefix:
            question = _with_prefix(runtime, question, prefix)
        preprocess = question.preprocess_seconds if not kept.message.pictures else time.perf_counter() - started
        question = replace(question, preprocess_seconds=preprocess)
        return PreparedConversation(question, (*messages, question.message), prefix, key, identity)

    def remember(self, prepared: PreparedConversation, answer: Message) -> None:
        """Keep an answer with its tokens, for the turn in which the client sends it back.

        Args:
            prepared: the conversation that it answers.
            answer: the answer, without what the client gave of it.
        """
        if answer.tokens is None or prepared.prefix:
            return
        self._keep(_key(prepared.key, "assistant", answer.text.strip()), _KeptTurn(answer))

    def _question(
        self, runtime: ModelRuntime, history: Sequence[Message], turn: Turn, options: AskOptions, key: Key
    ) -> tuple[_KeptTurn, Key]:
        """Return a turn of the user as it was, or is now, prepared, and the key of the conversation up to it."""
        key = _key(key, "user", *(_content(part) for part in turn.parts))
        if not turn.pictures:
            return _KeptTurn(Message("user", turn.text)), key
        kept = self._find(key)
        if kept is None:
            text = prompt_text(turn)
            before = sum(len(message.pictures) for message in history)
            pictures = [_picture(part, number, options) for number, part in enumerate(turn.pictures, before + 1)]
            question = prepare_question(runtime, TileLimits(), history, text, pictures, options)
            kept = _KeptTurn(question.message, question.notices)
            self._keep(key, kept)
        return kept, key

    def _said(self, turn: Turn, key: Key) -> tuple[Message, Key]:
        """Return a turn of the assistant or the system; an answer of this model with the tokens that it sampled."""
        key = _key(key, turn.role, turn.text.strip() if turn.role == "assistant" else turn.text)
        kept = self._find(key)
        return (kept.message if kept else Message(turn.role, turn.text)), key

    def _find(self, key: Key) -> _KeptTurn | None:
        with self._lock:
            found = self._kept.get(key)
            if found:
                self._kept.move_to_end(key)
            return found

    def _keep(self, key: Key, turn: _KeptTurn) -> None:
        with self._lock:
            replaced = self._kept.pop(key, None)
            self._used += turn.n_bytes - (replaced.n_bytes if replaced else 0)
            self._kept[key] = turn
            while self._used > self._most:
                _, dropped = self._kept.popitem(last=False)
                self._used -= dropped.n_bytes


def prompt_text(turn: Turn) -> str:
    """Return the text of a user's turn, with the places of its pictures where these stand between texts.

    Pictures before or after all text get the places of the model card, which are before the text; so do pictures whose
    places the text marks itself.
    """
    kinds = [isinstance(part, PicturePart) for part in turn.parts]
    text_at = [index for index, is_picture in enumerate(kinds) if not is_picture]
    is_between = bool(text_at) and any(kinds[text_at[0] : text_at[-1]])
    if not is_between or IMAGE_PLACE in turn.text:
        return turn.text
    return "\n".join(part.text if isinstance(part, TextPart) else IMAGE_PLACE for part in turn.parts)


def _refuse_too_many(turns: Sequence[Turn], n_ctx: int) -> None:
    """Refuse more turns than fit: each has a beginning, a role, an end and a line end, of one token each.

    Raises:
        ContextOverflowError: there are more.
    """
    needed = 4 * len(turns)
    if needed > n_ctx:
        raise ContextOverflowError(
            f"The conversation has {len(turns):,} turns, more than a context of {n_ctx:,} tokens can hold.",
            "Leave earlier turns out.",
            needed=needed,
            available=n_ctx,
        )


def _options(request: ChatRequest) -> AskOptions:
    pictures = request.pictures
    return cast(
        "AskOptions",
        {
            "sampling": request.sampling,
            "max_tiles": pictures.most_tiles,
            "min_tiles": pictures.least_tiles,
            "thumbnail": pictures.thumbnail,
            "layout": pictures.layout,
            "fit_pictures": pictures.fit_pictures,
        },
    )


def _picture(part: PicturePart, number: int, options: AskOptions) -> Picture:
    name = f"picture {number}"
    if part.detail == "low":
        return Picture(part.source, max_tiles=1, min_tiles=1, name=name)
    if part.detail == "high":
        return Picture(part.source, max_tiles=max(MAX_TILES, options.get("min_tiles", 1)), name=name)
    return Picture(part.source, name=name)


def _content(part: TextPart | PicturePart) -> bytes:
    if isinstance(part, TextPart):
        return b"text" + part.text.encode()
    source = part.source if isinstance(part.source, bytes) else part.source.encode()
    return b"picture" + part.detail.encode() + hashlib.blake2b(source, digest_size=16).digest()


def _key(before: Key, *parts: str | bytes) -> Key:
    """Return a key of what `before` stands for, followed by some parts."""
    found = hashlib.blake2b(before, digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        found.update(len(data).to_bytes(8, "little") + data)
    return found.digest()


def _with_prefix(runtime: ModelRuntime, question: PreparedQuestion, prefix: str) -> PreparedQuestion:
    """Return a question whose answer begins with a given text.

    Raises:
        ContextOverflowError: it does not fit the context.
    """
    refuse_endless(runtime, [prefix])
    spans = [*question.spans, *(TokenSpan(ids) for ids in grounded_tokens(runtime, prefix))]
    needed, n_ctx = total_length(spans) + 1, runtime.engine.n_ctx
    if needed > n_ctx:
        raise ContextOverflowError(
            f"The conversation takes {needed:,} tokens, the context has {n_ctx:,}.",
            "Leave earlier turns out.",
            needed=needed,
            available=n_ctx,
        )
    return replace(question, spans=spans)
