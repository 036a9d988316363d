"""Messages to a prompt. Clients without a memory send a whole conversation each time: what was seen is not done again.

A turn that was prepared before is found by its content and by all that came before it: its pictures are neither
decoded nor cut again, they are cut as they were then, and an answer of the model is continued with the very tokens that
it sampled, calls of tools included. So the prompt begins with spans that the KV cache holds, and only what is new is
computed. What a question's prompt said of the form of its answer is found with the answer: clients do not send it back.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from internvl_gguf.config import AskOptions
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.errors import ContextOverflowError
from internvl_gguf.images.fit_context import ANSWER_ALLOWANCE
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.server.chat_request import ChatRequest, TextPart, Turn
from internvl_gguf.server.checked_wishes import NO_WISHES, CheckedWishes
from internvl_gguf.server.shown_parts import content_of, image_of
from internvl_gguf.session.asked import with_note, without_note
from internvl_gguf.session.clips import OpenClip
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prepare import PreparedQuestion, prepare_question
from internvl_gguf.session.prompt_spans import grounded_tokens, refuse_endless
from internvl_gguf.session.prompt_template import IMAGE_PLACE
from internvl_gguf.session.tool_prompt import with_calls
from internvl_gguf.structured.tool_stream import CALL_BEGINS
from internvl_gguf.tiling import TileRange
from internvl_gguf.types import Message, Reply, ShownClip, TokenSpan, ToolResult
from internvl_gguf.video import open_clip

KEPT_BYTES: Final = 256 * 2**20
_MESSAGE_BYTES: Final = 512  # of a message without pictures, about

Key = bytes


@dataclass(frozen=True)
class PreparedConversation:
    """A conversation ready for the engine.

    Attributes:
        question: the last question, or the last results of tools, with the whole prompt.
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
    def history(self) -> tuple[Message, ...]:
        """The messages before the question."""
        return self.messages[: len(self.messages) - len(self.question.messages)]

    @property
    def pictures(self) -> list[Any]:
        """All its pictures, cut."""
        return [picture for message in self.messages for picture in message.pictures]


@dataclass(frozen=True)
class _KeptTurn:
    """A turn that was prepared before, or the results of several calls.

    Attributes:
        messages: its message, or one for each result, without what a prompt says of the form of an answer.
        notices: what was changed so that it fits.
        clips: its clips, with the frames that were shown.
        question: of an answer, the text of the question as its prompt had it; "" for not known.
    """

    messages: tuple[Message, ...]
    notices: tuple[str, ...] = ()
    clips: tuple[ShownClip, ...] = ()
    question: str = ""

    @property
    def has_pictures(self) -> bool:
        return any(message.pictures for message in self.messages)

    @property
    def n_bytes(self) -> int:
        texts = sum(len(message.text) + len(message.thinking) for message in self.messages) + len(self.question)
        pictures = (picture for message in self.messages for picture in message.pictures)
        tiles = (tile for picture in pictures for tile in picture.tiles)
        return _MESSAGE_BYTES * len(self.messages) + 4 * texts + sum(len(tile.pixels) for tile in tiles)


@dataclass(frozen=True)
class _Preparing:
    """What stays the same while the turns of a request are prepared.

    Attributes:
        runtime: the model.
        options: of `prepare_question`.
        cut: key of all that decides how pictures are cut, beside the conversation before them.
        opens: opens clips.
    """

    runtime: ModelRuntime
    options: AskOptions
    cut: Key
    opens: OpenClip


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

    def prepare(
        self,
        runtime: ModelRuntime,
        request: ChatRequest,
        system: str,
        wishes: CheckedWishes = NO_WISHES,
        opens: OpenClip = open_clip,
    ) -> PreparedConversation:
        """Return the prompt of a request; the model computes nothing.

        Args:
            runtime: the model.
            request: its pictures are bytes.
            system: the system message where the request has none; "" for none.
            wishes: the request's, checked.
            opens: opens its clips.

        Raises:
            InvalidRequestError: a prompt that cannot be used.
            ContextOverflowError: it does not fit the context.
            PictureError: a picture or clip that cannot be read.
        """
        started = time.perf_counter()
        _refuse_too_many(request.turns, runtime.engine.n_ctx)
        options = _options(request, wishes, TileRange.of(runtime.vision))
        identity = runtime.encoder_identity
        room = min(
            request.sampling.effective_max_tokens, ANSWER_ALLOWANCE
        )  # all that it decides about how pictures are cut
        preparing = _Preparing(runtime, options, _key(b"", identity, repr((room, request.pictures))), opens)
        key = b""
        messages: list[Message] = []
        *earlier, last = _questions_and_answers(request.turns)
        prefix = last[0].text if last[0].role == "assistant" else ""
        if last[0].role == "assistant":
            *earlier, last = earlier
        if request.turns[0].role != "system" and system:
            messages.append(Message("system", system))
            key = _key(key, "system", system)
        key = self._read(preparing, messages, earlier, key, has_results=last[0].role == "tool")
        kept, key = self._asked(preparing, messages, last, key)
        try:
            question = _question(runtime, messages, kept, options)
        except ContextOverflowError:
            if not (wishes.options and kept.has_pictures):
                raise
            # The pictures may have been cut when the prompt had less beside them.
            kept, _ = self._asked(preparing, messages, last, key, is_new=True)
            question = _question(runtime, messages, kept, options)
        question = replace(question, started=started, notices=kept.notices, clips=kept.clips)
        if prefix:
            question = _with_prefix(runtime, question, prefix)
        preprocess = time.perf_counter() - started if kept.has_pictures else question.preprocess_seconds
        question = replace(question, preprocess_seconds=preprocess)
        return PreparedConversation(question, (*messages, *question.messages), prefix, key, identity)

    def remember(self, prepared: PreparedConversation, answer: Message, reply: Reply) -> None:
        """Keep an answer with its tokens, for the turn in which the client sends it back.

        Args:
            prepared: the conversation that it answers.
            answer: the answer, without what the client gave of it.
            reply: the same, as the client gets it.
        """
        is_cut_call = reply.finish_reason != "stop" and CALL_BEGINS in answer.text  # the client gets none of it
        if answer.tokens is None or prepared.prefix or is_cut_call:
            return
        asked = prepared.question.message
        key = answer_key(prepared.key, reply.text, [(call.name, call.arguments) for call in reply.tool_calls])
        self._keep(key, _KeptTurn((answer,), question=asked.text if asked.role == "user" else ""))

    def _read(
        self,
        preparing: _Preparing,
        messages: list[Message],
        groups: Sequence[Sequence[Turn]],
        key: Key,
        *,
        has_results: bool,
    ) -> Key:
        """Add the turns before the question to the messages, and return the key of the conversation up to it.

        Args:
            has_results: whether results of tools follow instead of a question. Then the last question among the turns
                is the one that is answered, so it says what form the answer has.
        """
        questions = [index for index, group in enumerate(groups) if group[0].role == "user"]
        answered = questions[-1] if has_results else -1
        for index, group in enumerate(groups):
            turn = group[0]
            if turn.role in ("user", "tool"):
                kept, key = self._asked(preparing, messages, group, key)
                messages += kept.messages
                if index == answered:
                    messages[-1] = replace(messages[-1], text=with_note(messages[-1].text, preparing.options))
            elif turn.role == "assistant":
                kept, key = self._answered(turn, key)
                if kept.question:
                    messages[-1] = replace(messages[-1], text=kept.question)
                messages += kept.messages
            elif turn.text:  # an empty system message is the wish for none
                messages.append(Message("system", turn.text))
                key = _key(key, "system", turn.text)
        return key

    def _asked(
        self,
        preparing: _Preparing,
        history: Sequence[Message],
        turns: Sequence[Turn],
        key: Key,
        *,
        is_new: bool = False,
    ) -> tuple[_KeptTurn, Key]:
        """Return a question, or results of tools, as prepared before or now, and the key of the conversation up to it.

        Args:
            is_new: prepare it now, though it may have been before; `key` is what was returned then.
        """
        options = preparing.options
        if not is_new:
            for turn in turns:
                key = _key(key, turn.role, *(content_of(part) for part in turn.parts))
        if not any(turn.shown for turn in turns):
            return _KeptTurn(tuple(Message(turn.role, turn.text) for turn in turns)), key
        cut_key = _key(key, preparing.cut)
        kept = None if is_new else self._find(cut_key)
        if kept is None:
            texts = [prompt_text(turn) for turn in turns]
            own = TileRange.of(preparing.runtime.vision)
            pictures = [[image_of(part, options, own) for part in turn.shown] for turn in turns]
            # What tools may be called binds the answer only; here is measured what fits.
            measuring = cast("AskOptions", {**options, "tool_choice": "none" if options.get("tools") else None})
            prompt = _as_prompt(turns[0].role, texts, pictures)
            question = prepare_question(preparing.runtime, TileLimits(), history, *prompt, measuring, preparing.opens)
            messages = question.messages
            if turns[0].role == "user":
                messages = tuple(replace(each, text=without_note(each.text, options)) for each in messages)
            kept = _KeptTurn(messages, question.notices, question.clips)
            self._keep(cut_key, kept)
        return kept, key

    def _answered(self, turn: Turn, key: Key) -> tuple[_KeptTurn, Key]:
        """Return a turn of the assistant; an answer of this model with the tokens that it sampled."""
        calls = [(call.name, call.arguments) for call in turn.calls]
        key = answer_key(key, turn.text, calls)
        return self._find(key) or _KeptTurn((_answer(turn, calls),)), key

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


def _answer(turn: Turn, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> Message:
    """Return an answer that another model gave, or that was forgotten, as the model writes one."""
    thinking = f"\n{turn.thinking.strip()}\n" if turn.thinking.strip() else ""
    return Message("assistant", with_calls(turn.text, calls), thinking=thinking)


def prompt_text(turn: Turn) -> str:
    """Return the text of a user's turn, with the places of its pictures where these stand between texts.

    Pictures before or after all text get the places of the model card, which are before the text; so do pictures whose
    places the text marks itself.
    """
    kinds = [not isinstance(part, TextPart) for part in turn.parts]
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


def _questions_and_answers(turns: Sequence[Turn]) -> Iterator[tuple[Turn, ...]]:
    """Yield turns one by one, but results of tools that follow each other together."""
    for is_result, group in itertools.groupby(turns, lambda turn: turn.role == "tool"):
        if is_result:
            yield tuple(group)
        else:
            yield from ((turn,) for turn in group)


def _as_prompt(
    role: str, texts: Sequence[str], pictures: Sequence[Sequence[Any]]
) -> tuple[str | list[ToolResult], Sequence[Any]]:
    """Return a question, or results of tools, as `prepare_question` takes it, with the pictures of a question."""
    if role == "tool":
        return [ToolResult(text, list(each)) for text, each in zip(texts, pictures, strict=True)], ()
    return texts[0], pictures[0]


def _question(
    runtime: ModelRuntime, history: Sequence[Message], kept: _KeptTurn, options: AskOptions
) -> PreparedQuestion:
    texts = [message.text for message in kept.messages]
    pictures = [message.pictures for message in kept.messages]
    prompt = _as_prompt(kept.messages[0].role, texts, pictures)
    return prepare_question(runtime, TileLimits(), history, *prompt, options)


def _options(request: ChatRequest, wishes: CheckedWishes, own: TileRange) -> AskOptions:
    """Return a request's options of the question; `own` is how many tiles the model's file says."""
    pictures, tiles = request.pictures, request.pictures.tiles(own)
    return cast(
        "AskOptions",
        {
            "sampling": request.sampling,
            "max_tiles": tiles.most,
            "min_tiles": tiles.least,
            "thumbnail": pictures.thumbnail,
            "layout": pictures.layout,
            "fit_pictures": pictures.fit_pictures,
            "frame_times": pictures.frame_times,
            **wishes.options,
        },
    )


def _key(before: Key, *parts: str | bytes) -> Key:
    """Return a key of what `before` stands for, followed by some parts."""
    found = hashlib.blake2b(before, digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        found.update(len(data).to_bytes(8, "little") + data)
    return found.digest()


def answer_key(before: Key, text: str, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> Key:
    """Return a key of an answer, which clients send back with white space and JSON of their own."""
    return _key(before, "assistant", text.strip(), *(part for name, values in calls for part in (name, _plain(values))))


def _plain(arguments: Mapping[str, Any]) -> str:
    """Return arguments as one text, whatever program wrote them: JavaScript makes no difference between 1.0 and 1."""
    return json.dumps(json.loads(json.dumps(arguments), parse_float=_number), sort_keys=True)


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


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
