"""From a question as people ask it to spans the engine takes: pictures cut, prompt laid out, room checked."""

from __future__ import annotations

import hashlib
import os
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from internvl_gguf.config import AskOptions, SamplingParams
from internvl_gguf.context_budget import ANSWER_ALLOWANCE, Budget, UncutPicture, check_fits, cut_notices, plan_cut
from internvl_gguf.conversation import Answer, Control, Pictures, Text, check_places, render
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images import describe_source, load_image
from internvl_gguf.kv_ledger import total_length
from internvl_gguf.loading import Runtime
from internvl_gguf.tile_limits import TileLimits
from internvl_gguf.types import Message, Picture, PreparedPicture, Span, Tile, TileSpan, TokenSpan

if TYPE_CHECKING:
    from PIL.Image import Image


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
        notices: what was changed for it, one line each.
    """

    message: Message
    spans: list[Span]
    sampling: SamplingParams
    started: float
    preprocess_seconds: float
    history_length: int
    notices: tuple[str, ...]


@dataclass(frozen=True)
class _LoadedPicture:
    """A picture read but not yet cut.

    Attributes:
        name: how messages call it.
        image: its pixels, RGB and upright.
        limits: how it may be cut.
    """

    name: str
    image: Image
    limits: TileLimits


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
    loaded = [_load(limits, image, options) for image in images]
    preprocess = time.perf_counter() - started
    sampling = options.get("sampling") or SamplingParams()
    message = Message("user", prompt, tuple(map(_without_tiles, loaded)), options.get("layout", "separate"))
    budget = Budget(
        n_ctx=runtime.engine.n_ctx,
        n_ctx_train=runtime.text.n_ctx_train,
        text_tokens=total_length(prompt_spans(runtime, [*history, message])),
        answer_tokens=min(sampling.max_tokens, ANSWER_ALLOWANCE),
        tile_size=runtime.vision.image_size,
        tokens_per_tile=runtime.vision.tokens_per_tile,
    )
    # Planned between loading and cutting: the sizes are known then, and no picture is decoded twice.
    uncut = [UncutPicture(picture.image.size, picture.limits) for picture in loaded]
    plan = plan_cut(uncut, budget, fit=options.get("fit_pictures", True))
    check_fits(plan)
    cutting = time.perf_counter()
    pictures = tuple(
        _cut(runtime, picture, planned.limits) for picture, planned in zip(loaded, plan.pictures, strict=True)
    )
    preprocess += time.perf_counter() - cutting
    message = replace(message, pictures=pictures)
    spans = prompt_spans(runtime, [*history, message])
    return Request(message, spans, sampling, started, preprocess, len(history), cut_notices(plan))


def prepare_picture(runtime: Runtime, limits: TileLimits, image: Any, options: AskOptions) -> PreparedPicture:
    """Read one picture and cut it for the model's encoder.

    Raises:
        PictureError: a picture that cannot be read.
        InvalidRequestError: tile limits that no grid satisfies.
    """
    loaded = _load(limits, image, options)
    return _cut(runtime, loaded, loaded.limits)


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


def _load(limits: TileLimits, source: Any, options: AskOptions) -> _LoadedPicture:
    picture = source if isinstance(source, Picture) else Picture(source)
    narrowed = limits.narrowed(picture, options)
    return _LoadedPicture(describe_source(picture.source), load_image(picture.source), narrowed)


def _without_tiles(picture: _LoadedPicture) -> PreparedPicture:
    """What stands for a picture while the prompt around it is measured."""
    return PreparedPicture(picture.name, grid=(1, 1), has_thumbnail=False, source_size=picture.image.size, tiles=())


def _cut(runtime: Runtime, picture: _LoadedPicture, limits: TileLimits) -> PreparedPicture:
    tiled = limits.cut(picture.image, runtime.vision.image_size)
    pixels = [tile.tobytes() for tile in tiled.tiles]
    return PreparedPicture(
        name=picture.name,
        grid=tiled.grid,
        has_thumbnail=tiled.has_thumbnail,
        source_size=tiled.source_size,
        tiles=tuple(Tile(tile_key(runtime.encoder_identity, data), data) for data in pixels),
    )


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


def tile_key(encoder_identity: bytes, pixels: bytes) -> bytes:
    """Identity of a tile's embeddings: its pixels through one encoder."""
    return hashlib.blake2b(pixels, key=encoder_identity, digest_size=16).digest()
