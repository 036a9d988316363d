"""Between a conversation and its file: what is saved of a runtime, and how a runtime takes it up again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf.config import EngineOptions
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.errors import InternVLError, InvalidRequestError, SavedSessionError
from internvl_gguf.session.detokenizer import TextStream
from internvl_gguf.session.prepare import adopt_picture, adopt_tile, prompt_spans
from internvl_gguf.session.saved_file import NO_KV, SavedSession, read_identity, read_saved
from internvl_gguf.types import Message, Span, TileSpan

if TYPE_CHECKING:
    from internvl_gguf.images.tile_limits import TileLimits
    from internvl_gguf.session.model_runtime import ModelRuntime


def to_save(runtime: ModelRuntime, messages: Sequence[Message], limits: TileLimits) -> SavedSession:
    """A conversation with as much of its KV as the cache still holds.

    Raises:
        LibraryError: llama.cpp refused.
    """
    spans, kv = runtime.engine.export(prompt_spans(runtime, messages)) or ((), NO_KV)
    return SavedSession(
        text_path=str(runtime.files.text.absolute()),
        mmproj_path=str(runtime.files.mmproj.absolute()),
        identity=runtime.identity,
        n_ctx=runtime.engine.n_ctx,
        limits=(limits.max_tiles, limits.min_tiles, limits.thumbnail),
        messages=tuple(messages),
        spans=tuple(spans),
        kv=kv,
    )


def refuse_other_options(given: Iterable[str]) -> None:
    """Refuse what is no option of the engine: how a saved conversation is held is in its file.

    Raises:
        InvalidRequestError: an option of a conversation, or none.
    """
    known = EngineOptions.__annotations__
    other = [name for name in given if name not in known]
    if other:
        raise InvalidRequestError(
            f"{', '.join(other)}: a saved session is restored with options of the engine only.",
            f"Use some of {', '.join(known)}; the rest is in the file.",
        )


def files_of(path: Path, saved: SavedSession) -> tuple[Path, Path]:
    """The text model and the vision encoder a conversation was held with.

    Raises:
        SavedSessionError: they are not there any more.
    """
    files = Path(saved.text_path), Path(saved.mmproj_path)
    for file in files:
        if not file.is_file():
            raise SavedSessionError(
                f"{path} was saved with {file}, which is not there any more.",
                "Name the model: Session.restore(path, model).",
            )
    return files


def take_up(path: Path, saved: SavedSession, runtime: ModelRuntime, *, recompute: bool) -> list[Message]:
    """Put saved KV into a runtime, if it belongs to it.

    Args:
        path: of the file, for messages.
        saved: its content.
        runtime: the loaded model.
        recompute: where the KV is another model's or does not fit, read the conversation again instead of refusing it.

    Returns:
        The conversation as this runtime understands it.

    Raises:
        SavedSessionError: another model, quant, build or cache; or pictures cut for another encoder.
        LibraryError: llama.cpp refused.
    """
    differences = saved.identity.differences(runtime.identity)
    positions, n_ctx = total_length(saved.spans), runtime.engine.n_ctx
    if not differences and positions <= n_ctx:
        if saved.spans:
            runtime.engine.restore(_adopted(runtime, saved.spans), saved.kv)
        return [
            replace(message, pictures=tuple(adopt_picture(runtime, picture) for picture in message.pictures))
            for message in saved.messages
        ]
    if not recompute and not differences:
        raise SavedSessionError(
            f"{path} holds {positions:,} positions; this context has room for {n_ctx:,}.",
            f"Open it with an n_ctx of {saved.n_ctx:,}, as it was saved.",
        )
    if not recompute:
        raise SavedSessionError(
            f"{path} was saved with another {' and another '.join(differences)}.",
            "Open it with the same, or with recompute=True, which reads the conversation again.",
        )
    try:
        return adapted(runtime, saved.messages)
    except InvalidRequestError as error:
        raise SavedSessionError(f"{path} cannot go on here: {error.message}", error.hint) from error


def take_up_kv(path: Path, runtime: ModelRuntime) -> None:
    """Put the KV of a saved session into a runtime if it belongs to it; else nothing happens.

    Which conversation it is of does not matter: a prompt finds in it what the two have in common.
    """
    with contextlib.suppress(InternVLError):
        if read_identity(path) != runtime.identity:  # before a file of gigabytes is read for nothing
            return
        saved = read_saved(path)
        if saved.spans and total_length(saved.spans) <= runtime.engine.n_ctx:
            runtime.engine.restore(_adopted(runtime, saved.spans), saved.kv)


def _adopted(runtime: ModelRuntime, spans: Iterable[Span]) -> list[Span]:
    """Saved spans with the keys that their tiles have here: another device rounds embeddings otherwise."""
    return [
        replace(span, tile=adopt_tile(runtime, span.tile)) if isinstance(span, TileSpan) else span for span in spans
    ]


def adapted(runtime: ModelRuntime, messages: Iterable[Message]) -> list[Message]:
    """Messages as a runtime understands them, whichever model they were held with.

    An answer keeps its tokens where they spell its text in this model's vocabulary; pictures keep their tiles.

    Raises:
        InvalidRequestError: pictures cut for an encoder with tiles of another size.
    """
    return [
        replace(
            message,
            tokens=message.tokens if _is_spelled(runtime, message) else None,
            pictures=tuple(adopt_picture(runtime, picture) for picture in message.pictures),
        )
        for message in messages
    ]


def _is_spelled(runtime: ModelRuntime, message: Message) -> bool:
    """Whether the tokens of an answer are its text in this vocabulary, and none of them more than text."""
    model = runtime.engine.model
    beyond = {*runtime.control_tokens.values(), runtime.text.img_context}
    stream = TextStream()
    text = ""
    for token in message.tokens or ():
        if token in beyond or not 0 <= token < model.n_vocab or model.is_end_of_generation(token):
            return False
        text += stream.feed(model.piece(token))
    return text + stream.finish() == message.text
