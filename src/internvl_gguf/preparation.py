"""From a question as people ask it to spans the engine takes: pictures cut, prompt laid out, room checked."""

from __future__ import annotations

import hashlib
import os
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from internvl_gguf.config import AskOptions, SamplingParams
from internvl_gguf.context_budget import check_fits
from internvl_gguf.conversation import Answer, Control, Pictures, Text, check_places, render
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images import describe_source, load_image
from internvl_gguf.kv_ledger import total_length
from internvl_gguf.loading import Runtime
from internvl_gguf.tiling import MAX_TILES, tile_image, validate_tile_limits
from internvl_gguf.types import Message, Picture, PreparedPicture, Span, Tile, TileSpan, TokenSpan

_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class TileLimits:
    """How pictures are cut where a question does not say otherwise.

    Raises:
        InvalidRequestError: limits that no grid satisfies.
    """

    max_tiles: int = MAX_TILES
    min_tiles: int = 1
    thumbnail: bool = True

    def __post_init__(self) -> None:
        validate_tile_limits(self.min_tiles, self.max_tiles)

    def narrowed(self, picture: Picture, options: AskOptions) -> TileLimits:
        """The limits of one picture: its own before the question's before these; a video frame is one tile."""
        frames = options.get("layout") == "frames"
        max_tiles = _first(picture.max_tiles, options.get("max_tiles"), 1 if frames else self.max_tiles)
        min_tiles = _first(picture.min_tiles, options.get("min_tiles"), min(self.min_tiles, max_tiles))
        thumbnail = _first(picture.thumbnail, options.get("thumbnail"), self.thumbnail)
        return TileLimits(max_tiles, min_tiles, thumbnail)


@dataclass(frozen=True)
class Request:
    """A question ready for the engine.

    Attributes:
        message: the question as the conversation will hold it.
        spans: the whole prompt, earlier messages included.
        sampling: how tokens are chosen.
        started: time.perf_counter() when the question came.
        preprocess_seconds: time it took to read and cut the pictures.
        history_length: messages of the conversation it was prepared for.
    """

    message: Message
    spans: list[Span]
    sampling: SamplingParams
    started: float
    preprocess_seconds: float
    history_length: int


def prepare_request(
    runtime: Runtime,
    limits: TileLimits,
    history: Sequence[Message],
    prompt: str,
    images: Sequence[Any],
    options: AskOptions,
) -> Request:
    """Read the pictures, lay out the prompt and make sure it fits; nothing is computed by the model.

    Raises:
        InvalidRequestError: options or a prompt that cannot be used.
        ContextOverflowError: prompt and pictures do not fit the context.
        PictureError: a picture that cannot be read.
    """
    started = time.perf_counter()
    _check_question(prompt, images, options)
    pictures = tuple(prepare_picture(runtime, limits, image, options) for image in images)
    preprocess = time.perf_counter() - started
    message = Message("user", prompt, pictures, options.get("layout", "separate"))
    spans = prompt_spans(runtime, [*history, message])
    check_fits(
        total_length(spans),
        runtime.engine.n_ctx,
        runtime.text.n_ctx_train,
        pictures,
        tile_size=runtime.vision.image_size,
        tokens_per_tile=runtime.vision.tokens_per_tile,
    )
    sampling = options.get("sampling") or SamplingParams()
    return Request(message, spans, sampling, started, preprocess, len(history))


def prepare_picture(runtime: Runtime, limits: TileLimits, image: Any, options: AskOptions) -> PreparedPicture:
    """Read one picture and cut it for the model's encoder.

    Raises:
        PictureError: a picture that cannot be read.
        InvalidRequestError: tile limits that no grid satisfies.
    """
    picture = image if isinstance(image, Picture) else Picture(image)
    narrowed = limits.narrowed(picture, options)
    tiled = tile_image(
        load_image(picture.source),
        max_tiles=narrowed.max_tiles,
        min_tiles=narrowed.min_tiles,
        tile_size=runtime.vision.image_size,
        thumbnail=narrowed.thumbnail,
    )
    pixels = [tile.tobytes() for tile in tiled.tiles]
    return PreparedPicture(
        name=describe_source(picture.source),
        grid=tiled.grid,
        has_thumbnail=tiled.has_thumbnail,
        source_size=tiled.source_size,
        tiles=tuple(Tile(_tile_key(runtime.encoder_identity, data), data) for data in pixels),
    )


def prompt_spans(runtime: Runtime, messages: Sequence[Message]) -> list[Span]:
    """The whole prompt of a conversation as the engine takes it."""
    spans: list[Span] = []
    for piece in render(messages):
        if isinstance(piece, Control):
            spans.append(TokenSpan((runtime.control_tokens[piece.name],)))
        elif isinstance(piece, Text):
            # The published tokenizer composes accents (NFC) before it splits; llama.cpp does not.
            spans.append(TokenSpan(tuple(runtime.engine.model.tokenize(unicodedata.normalize("NFC", piece.text)))))
        elif isinstance(piece, Answer):
            spans.append(TokenSpan(piece.tokens))
        elif isinstance(piece, Pictures):
            length = runtime.vision.tokens_per_tile
            spans += [TileSpan(tile, length) for picture in piece.pictures for tile in picture.tiles]
    return [span for span in spans if span.length]


def _check_question(prompt: str, images: Sequence[Any], options: AskOptions) -> None:
    unknown = set(options) - AskOptions.__annotations__.keys()
    if unknown:
        raise InvalidRequestError(
            f"There is no option {sorted(unknown)[0]!r} of a question.",
            f"The options are {', '.join(AskOptions.__annotations__)}.",
        )
    if not isinstance(prompt, str):
        raise InvalidRequestError(f"The prompt is a {type(prompt).__name__}, not text.", "Give a str.")
    if isinstance(images, str | bytes | os.PathLike):
        raise InvalidRequestError("images is one picture, not a list of them.", "Write images=[picture].")
    if not prompt and not len(images):
        raise InvalidRequestError("The prompt is empty.", "Ask something, or give a picture.")
    layout = options.get("layout", "separate")
    if layout not in ("separate", "combined", "frames"):
        raise InvalidRequestError(f"There is no layout {layout!r}.", "Use separate, combined or frames.")
    check_places(prompt, len(images), layout)


def _first(*choices: _Choice | None) -> _Choice:
    """The first choice that was made; the last one always is."""
    return next(choice for choice in choices if choice is not None)


def _tile_key(encoder_identity: bytes, pixels: bytes) -> bytes:
    return hashlib.blake2b(pixels, key=encoder_identity, digest_size=16).digest()
