"""Between a conversation and its file: what is saved of a runtime, and how a runtime takes it up again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf.errors import SavedSessionError
from internvl_gguf.kv_ledger import total_length
from internvl_gguf.preparation import prompt_spans, tile_key
from internvl_gguf.saved_session import NO_KV, SavedSession
from internvl_gguf.types import Message, PreparedPicture, Tile

if TYPE_CHECKING:
    from internvl_gguf.loading import Runtime
    from internvl_gguf.tile_limits import TileLimits


def to_save(runtime: Runtime, messages: Sequence[Message], limits: TileLimits) -> SavedSession:
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


def take_up(path: Path, saved: SavedSession, runtime: Runtime, *, recompute: bool) -> list[Message]:
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
    if not differences and total_length(saved.spans) > runtime.engine.n_ctx:
        differences = [f"context, of {saved.n_ctx:,} positions"]
    if not differences:
        if saved.spans:
            runtime.engine.restore(saved.spans, saved.kv)
        return list(saved.messages)
    if not recompute:
        raise SavedSessionError(
            f"{path} was saved with another {' and another '.join(differences)}.",
            "Open it with the same, or with recompute=True, which reads the conversation again.",
        )
    return [_adapted(path, message, runtime, differences) for message in saved.messages]


def _adapted(path: Path, message: Message, runtime: Runtime, differences: Sequence[str]) -> Message:
    """A message for another model: tokens are another vocabulary's, tiles another encoder's."""
    if "text model" in differences:
        message = replace(message, tokens=None)
    if "vision encoder" not in differences:
        return message
    size = 3 * runtime.vision.image_size**2
    if any(len(tile.pixels) != size for picture in message.pictures for tile in picture.tiles):
        raise SavedSessionError(
            f"The pictures of {path} were cut for an encoder of other tiles.", "Ask about the pictures anew."
        )
    return replace(message, pictures=tuple(_rekeyed(picture, runtime) for picture in message.pictures))


def _rekeyed(picture: PreparedPicture, runtime: Runtime) -> PreparedPicture:
    tiles = (Tile(tile_key(runtime.encoder_identity, tile.pixels), tile.pixels) for tile in picture.tiles)
    return replace(picture, tiles=tuple(tiles))
