"""Saving and restoring: from a loaded model and its conversation to the content of a saved file, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from internvl_gguf.config import EngineOptions, SamplingParams
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.errors import InternVLError, InvalidRequestError, SavedSessionError
from internvl_gguf.session.cut_pictures import rekey_picture, rekey_tile
from internvl_gguf.session.detokenizer import TextStream
from internvl_gguf.session.prompt_spans import prompt_spans
from internvl_gguf.session.saved_file import NO_KV, SavedSession, read_identity, read_saved
from internvl_gguf.session.thinking import Place, ThoughtReader
from internvl_gguf.types import Message, Span, TileSpan

if TYPE_CHECKING:
    from internvl_gguf.images.tile_limits import TileLimits
    from internvl_gguf.session.model_runtime import ModelRuntime
    from internvl_gguf.structured import Tool


def session_to_save(
    runtime: ModelRuntime,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    sampling: SamplingParams,
    limits: TileLimits,
) -> SavedSession:
    """Return a conversation with as much of its KV as the cache still holds, ready to be written.

    Args:
        runtime: the model.
        messages: the conversation.
        tools, sampling: those of its last question, which the KV begins with.
        limits: its tile limits.

    Raises:
        LibraryError: llama.cpp refused.
    """
    spans, kv = runtime.engine.export(prompt_spans(runtime, messages, tools, sampling)) or ((), NO_KV)
    return SavedSession(
        text_path=str(runtime.files.text.absolute()),
        mmproj_path=str(runtime.files.mmproj.absolute()),
        identity=runtime.identity,
        encoder=runtime.configuration.request.encoder,
        n_ctx=runtime.engine.n_ctx,
        limits=(limits.max_tiles, limits.min_tiles, limits.thumbnail),
        messages=tuple(messages),
        spans=tuple(spans),
        kv=kv,
    )


def refuse_session_options(given: Iterable[str]) -> None:
    """Refuse options other than those of the engine: the saved file determines them.

    Raises:
        InvalidRequestError: an option of the session, or an unknown one.
    """
    known = EngineOptions.__annotations__
    other = [name for name in given if name not in known]
    if other:
        raise InvalidRequestError(
            f"{', '.join(other)}: a saved session is restored with options of the engine only.",
            f"Use some of {', '.join(known)}; the rest is in the file.",
        )


def engine_options(saved: SavedSession, given: EngineOptions) -> EngineOptions:
    """Return the engine options to restore a conversation with: those given, else those it was saved with."""
    kept: EngineOptions = {"n_ctx": saved.n_ctx, "kv_type": saved.identity.kv_type}
    if "kv_type" not in given:  # another type may need flash attention, so that "auto" has to decide again
        kept["flash_attn"] = saved.identity.flash_attn
    return cast("EngineOptions", {**kept, **given})


def encoder_notice(saved: SavedSession, runtime: ModelRuntime) -> str:
    """Return the notice that pictures are encoded by something else than before; "" if they are not, or there are none.

    The KV of the earlier pictures stays as it was saved; the two encoders differ by rounding (docs/parity.md).
    """
    now = runtime.configuration.request.encoder
    if saved.encoder == now or not any(message.pictures for message in saved.messages):
        return ""
    return f"The pictures of this conversation were encoded by {saved.encoder}; new ones are by {now}."


def saved_model_files(path: Path, saved: SavedSession) -> tuple[Path, Path]:
    """Return the text model and the vision encoder a conversation was saved with.

    Raises:
        SavedSessionError: a file is not there any more.
    """
    files = Path(saved.text_path), Path(saved.mmproj_path)
    for file in files:
        if not file.is_file():
            raise SavedSessionError(
                f"{path} was saved with {file}, which is not there any more.",
                "Name the model: Session.restore(path, model).",
            )
    return files


def restore_conversation(path: Path, saved: SavedSession, runtime: ModelRuntime, *, recompute: bool) -> list[Message]:
    """Put the KV of a saved conversation into a loaded model, and return its messages.

    Args:
        path: path of the file, for error messages.
        saved: its content.
        runtime: the loaded model.
        recompute: if the KV is of another model or does not fit, read the conversation again instead of refusing it.

    Returns:
        The messages, adapted to this model.

    Raises:
        SavedSessionError: another model, quant, build or cache type; or pictures cut for another encoder.
        LibraryError: llama.cpp refused.
    """
    differences = saved.identity.differences(runtime.identity)
    positions, n_ctx = total_length(saved.spans), runtime.engine.n_ctx
    if not differences and positions <= n_ctx:
        if saved.spans:
            runtime.engine.restore(_rekey_spans(runtime, saved.spans), saved.kv)
        return [
            replace(message, pictures=tuple(rekey_picture(runtime, picture) for picture in message.pictures))
            for message in saved.messages
        ]
    if not recompute and not differences:
        raise SavedSessionError(
            f"{path} holds {positions:,} tokens; this context has room for {n_ctx:,}.",
            f"Open it with an n_ctx of {saved.n_ctx:,}, as it was saved.",
        )
    if not recompute:
        raise SavedSessionError(
            f"{path} was saved with another {' and another '.join(differences)}.",
            "Open it with the same, or with recompute=True, which reads the conversation again.",
        )
    try:
        return adapt_messages(runtime, saved.messages)
    except InvalidRequestError as error:
        raise SavedSessionError(f"{path} cannot go on here: {error.message}", error.hint) from error


def restore_matching_kv(path: Path, runtime: ModelRuntime) -> None:
    """Put the KV of a saved session into a loaded model if it belongs to that model; otherwise do nothing.

    It may be of any conversation: a prompt reuses the prefix that the two share.
    """
    with contextlib.suppress(InternVLError):
        if read_identity(path) != runtime.identity:  # before a file of gigabytes is read for nothing
            return
        saved = read_saved(path)
        if saved.spans and total_length(saved.spans) <= runtime.engine.n_ctx:
            runtime.engine.restore(_rekey_spans(runtime, saved.spans), saved.kv)


def _rekey_spans(runtime: ModelRuntime, spans: Iterable[Span]) -> list[Span]:
    """Return saved spans with the tile keys of this model: another device rounds embeddings differently."""
    return [
        replace(span, tile=rekey_tile(runtime, span.tile)) if isinstance(span, TileSpan) else span for span in spans
    ]


def adapt_messages(runtime: ModelRuntime, messages: Iterable[Message]) -> list[Message]:
    """Return messages adapted to a loaded model, whichever model they were held with.

    An answer keeps its tokens if they spell its text in this model's vocabulary; pictures keep their tiles.

    Raises:
        InvalidRequestError: pictures cut for an encoder with tiles of another size.
    """
    return [
        replace(
            message,
            tokens=message.tokens if _is_spelled(runtime, message) else None,
            pictures=tuple(rekey_picture(runtime, picture) for picture in message.pictures),
        )
        for message in messages
    ]


def _is_spelled(runtime: ModelRuntime, message: Message) -> bool:
    """Return whether the tokens of an answer spell its thought and its text in this vocabulary, without other tags."""
    model = runtime.engine.model
    control = {*runtime.control_tokens.values(), runtime.text.img_context} - set(dict(runtime.text.thinking).values())
    reader = ThoughtReader(runtime.text.thinking)
    streams = {place: TextStream() for place in Place}
    texts = dict.fromkeys(Place, "")
    for token in message.tokens or ():
        if token in control or not 0 <= token < model.n_vocab or model.is_end_of_generation(token):
            return False
        for place, _, piece in reader.take(token, model.piece(token)):
            texts[place] += streams[place].feed(piece)
    for place, _, piece in reader.finish():
        texts[place] += streams[place].feed(piece)
    thought, answer = (texts[place] + streams[place].finish() for place in (Place.THOUGHT, Place.ANSWER))
    shown = answer.removeprefix(" ") if runtime.text.strips_space else answer
    return (thought, shown) == (message.thinking, message.text)
