"""Prepares a question for the engine: reads and cuts pictures, lays out the prompt, checks that it fits the context."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from internvl_gguf.config import AskOptions, PictureOptions, SamplingParams
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.errors import ContextOverflowError, InvalidRequestError
from internvl_gguf.images.fit_context import (
    ANSWER_ALLOWANCE,
    ContextBudget,
    PictureToCut,
    check_fits,
    cut_notices,
    plan_cut,
)
from internvl_gguf.images.load import describe_source, load_image
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.session.asked import Asked, asked, form_note
from internvl_gguf.session.clips import OpenClip, longest_label, with_frames
from internvl_gguf.session.grounding import check_can_box, split_at_tags
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prompt_template import (
    IMAGE_PLACE,
    AnswerTokens,
    ControlToken,
    PlainText,
    VisualTokens,
    render,
    with_system,
)
from internvl_gguf.session.question_options import checked_options, tools_and_form
from internvl_gguf.session.thinking import ThoughtPlan, can_think, thought_plan, with_thinking
from internvl_gguf.session.tool_prompt import tools_text, with_tools
from internvl_gguf.structured.tool_format import GROUNDING
from internvl_gguf.structured.tool_stream import CALL_BEGINS, CALL_ENDS
from internvl_gguf.tiling import Grid, TiledPicture, cut_by_grid
from internvl_gguf.types import (
    Frames,
    Message,
    MessagePicture,
    Picture,
    Question,
    ShownClip,
    Span,
    Tile,
    TileSpan,
    TokenSpan,
    ToolResult,
    Video,
)
from internvl_gguf.utils import arguments
from internvl_gguf.video import open_clip

if TYPE_CHECKING:
    from PIL.Image import Image

    from internvl_gguf.structured import AnswerFormat, Tool


@dataclass(frozen=True)
class PreparedQuestion:
    """A question ready for the engine.

    Attributes:
        messages: the question as the conversation will hold it, or what tools returned.
        spans: the whole prompt, earlier messages included.
        sampling: how tokens are chosen.
        started: time.perf_counter() when the question came.
        preprocess_seconds: time it took to read and cut the pictures.
        history_length: messages of the conversation it was prepared for.
        notices: changes made so that it fits, one line each.
        form: what the answer has to be like; None for any text.
        tools: what it may call.
        clips: its clips, with the frames that are shown.
        thought: how its answer begins.
    """

    messages: tuple[Message, ...]
    spans: list[Span]
    sampling: SamplingParams
    started: float
    preprocess_seconds: float
    history_length: int
    notices: tuple[str, ...]
    form: AnswerFormat | None = None
    tools: tuple[Tool, ...] = ()
    clips: tuple[ShownClip, ...] = ()
    thought: ThoughtPlan = field(default_factory=ThoughtPlan)

    @property
    def message(self) -> Message:
        """The last of its messages."""
        return self.messages[-1]


@dataclass(frozen=True)
class _DecodedPicture:
    """A picture that is decoded, but not cut yet.

    Attributes:
        name: its name in messages.
        image: its pixels, RGB and upright.
        limits: its tile limits.
        label: text before it in the prompt.
        source_size: the size in which boxes are meant; None for that of `image`.
    """

    name: str
    image: Image
    limits: TileLimits
    label: str = ""
    source_size: tuple[int, int] | None = None


def prepare_question(
    runtime: ModelRuntime,
    limits: TileLimits,
    history: Sequence[Message],
    prompt: str | Sequence[ToolResult],
    images: Any,
    options: AskOptions,
    opens: OpenClip = open_clip,
) -> PreparedQuestion:
    """Read the pictures, lay out the prompt and check that it fits; the model computes nothing.

    Args:
        runtime: the model.
        limits: tile limits of pictures for which nothing else says them.
        history: the conversation before it.
        prompt: the question, or what the tools returned that the last answer called.
        images: pictures and clips of the question.
        options: of the question.
        opens: opens its clips.

    Raises:
        InvalidRequestError: options or a prompt that cannot be used.
        ContextOverflowError: prompt and pictures do not fit the context.
        PictureError: a picture that cannot be read.
        VideoError: a clip that cannot be read.
    """
    started = time.perf_counter()
    options = checked_options(options)
    tools, form = tools_and_form(options, _tokens_of_forms(runtime))
    sampling = options.get("sampling") or SamplingParams()
    thought = thought_plan(runtime, sampling, is_bound=form is not None)
    answer_tokens = min(sampling.effective_max_tokens, ANSWER_ALLOWANCE) + len(thought.opening)
    given = asked(history, prompt, images, options)

    def most() -> int:
        return _frame_room(runtime, history, given, options, tools, answer_tokens)

    n_before = sum(len(message.pictures) for message in history)
    messages, clips, clip_notices = with_frames(given, options, most, n_before, opens, runtime.vision.image_size)
    if form is not None and form.kind == "boxes":
        check_can_box(runtime, history, [image for each in messages for image in each.images])
    decoded = [[_read(runtime, limits, image, options) for image in each.images] for each in messages]
    preprocess = time.perf_counter() - started
    uncut = [
        replace(each.message, pictures=tuple(map(_without_tiles, pictures)))
        for each, pictures in zip(messages, decoded, strict=True)
    ]
    budget = ContextBudget(
        n_ctx=runtime.engine.n_ctx,
        n_ctx_train=runtime.text.n_ctx_train,
        text_tokens=total_length(prompt_spans(runtime, [*history, *uncut], tools, sampling)),
        answer_tokens=answer_tokens,
        tile_size=runtime.vision.image_size,
        tokens_per_tile=runtime.vision.tokens_per_tile,
        earlier_questions=sum(message.role == "user" for message in history),
        form_tokens=len(runtime.engine.model.tokenize(form_note(options))) if isinstance(prompt, str) else 0,
        tool_tokens=len(runtime.engine.model.tokenize(tools_text(tools))),
        frames=sum(len(clip.frames) for clip in clips),
        frame_tokens=_frame_tokens(runtime, options),
    )
    # Planned between decoding and cutting: the sizes are known then, and no picture is decoded twice.
    every = [picture for pictures in decoded for picture in pictures]
    to_cut = [PictureToCut(each.image.size, each.limits) for each in every if isinstance(each, _DecodedPicture)]
    plan = plan_cut(to_cut, budget, fit=options.get("fit_pictures", PictureOptions.fit_pictures))
    check_fits(plan)
    cutting = time.perf_counter()
    planned = iter(plan.pictures)
    cut = [
        replace(message, pictures=tuple(_cut_as_planned(runtime, picture, planned) for picture in pictures))
        for message, pictures in zip(uncut, decoded, strict=True)
    ]
    preprocess += time.perf_counter() - cutting
    spans = prompt_spans(runtime, [*history, *cut], tools, sampling)
    if thought.opening:
        spans.append(TokenSpan(thought.opening))
    notices = (*clip_notices, *cut_notices(plan))
    return PreparedQuestion(
        tuple(cut), spans, sampling, started, preprocess, len(history), notices, form, tools, clips, thought
    )


def frame_room(runtime: ModelRuntime, history: Sequence[Message], prompt: str, images: Any, options: AskOptions) -> int:
    """Return how many frames of one tile the context has room for, beside a conversation, a question and its pictures.

    Raises:
        InvalidRequestError: options or a prompt that cannot be used.
    """
    options = checked_options(options)
    tools, _ = tools_and_form(options, _tokens_of_forms(runtime))
    sampling = options.get("sampling") or SamplingParams()
    given = asked(history, prompt, images, options)
    return _frame_room(runtime, history, given, options, tools, min(sampling.effective_max_tokens, ANSWER_ALLOWANCE))


def _frame_room(
    runtime: ModelRuntime,
    history: Sequence[Message],
    messages: Sequence[Asked],
    options: AskOptions,
    tools: Sequence[Tool],
    answer_tokens: int,
) -> int:
    bare = [replace(each.message, text=each.message.text.replace(IMAGE_PLACE, "")) for each in messages]
    taken = total_length(prompt_spans(runtime, [*history, *bare], tools, options.get("sampling")))
    pictures = 0
    for image in (image for each in messages for image in each.images):
        if not isinstance(image, Video):
            pictures += len(image.pictures) if isinstance(image, Frames) else 1
    room = runtime.engine.n_ctx - taken - answer_tokens
    return room // (runtime.vision.tokens_per_tile + _frame_tokens(runtime, options)) - pictures


def _frame_tokens(runtime: ModelRuntime, options: AskOptions) -> int:
    """Return the positions that the label of a frame and the marks around it take, at most."""
    return len(runtime.engine.model.tokenize(f"{longest_label(options)}\n")) + 2  # <img> and </img>


def _tokens_of_forms(runtime: ModelRuntime) -> list[str]:
    """Return the tags that a grammar may name and that are single tokens of the vocabulary."""
    tokenize = runtime.engine.model.tokenize
    tags = [tag for tag in (CALL_BEGINS, CALL_ENDS) if len(tokenize(tag)) == 1]
    return [*tags, *(tag for tag in GROUNDING if tag in dict(runtime.text.grounding))]


def _read(
    runtime: ModelRuntime, limits: TileLimits, image: Any, options: AskOptions
) -> _DecodedPicture | MessagePicture:
    return rekey_picture(runtime, image) if isinstance(image, MessagePicture) else _decode(limits, image, options)


def _cut_as_planned(
    runtime: ModelRuntime, picture: _DecodedPicture | MessagePicture, planned: Iterator[PictureToCut]
) -> MessagePicture:
    return picture if isinstance(picture, MessagePicture) else _cut(runtime, picture, next(planned).limits)


def prepare_batch_question(
    runtime: ModelRuntime, limits: TileLimits, history: Sequence[Message], question: Question, shared: AskOptions
) -> PreparedQuestion:
    """Prepare one question of a batch; its own options and system message replace those of the batch.

    Args:
        shared: options of the whole batch.

    Raises:
        InvalidRequestError: it is not a `Question`.
        As `prepare_question`.
    """
    if not isinstance(question, Question):
        raise arguments.wrong("A question", question, "Give a Question or its text.")
    if question.system is not None:
        history = with_system(history, arguments.text("system", question.system))
    options = checked_options(question.options, shared)
    return prepare_question(runtime, limits, history, question.prompt, question.images, options)


def prepare_picture(
    runtime: ModelRuntime, limits: TileLimits, image: Any, options: Mapping[str, Any]
) -> MessagePicture:
    """Read one picture and cut it for the model's encoder.

    Raises:
        PictureError: a picture that cannot be read.
        InvalidRequestError: tile limits that no grid satisfies.
    """
    if isinstance(image, MessagePicture):
        return rekey_picture(runtime, image)
    decoded = _decode(limits, image, checked_options(options))
    return _cut(runtime, decoded, decoded.limits)


def rekey_picture(runtime: ModelRuntime, picture: MessagePicture) -> MessagePicture:
    """Return a cut picture for this model's encoder: its tiles stay, and get the keys of this encoder.

    Raises:
        InvalidRequestError: it was cut for an encoder with another tile size.
    """
    size = runtime.vision.image_size
    if any(len(tile.pixels) != 3 * size**2 for tile in picture.tiles):
        raise InvalidRequestError(
            f"{picture.name} is cut into tiles of another size than the {size} pixels of this model.",
            "Give the picture itself.",
        )
    return replace(picture, tiles=tuple(rekey_tile(runtime, tile) for tile in picture.tiles))


def rekey_tile(runtime: ModelRuntime, tile: Tile) -> Tile:
    """Return a tile with the same pixels, under the key of their embeddings by this model's encoder."""
    return _tile(runtime, tile.pixels)


def recut_picture(runtime: ModelRuntime, source: Any, grid: tuple[int, int], has_thumbnail: bool) -> MessagePicture:
    """Read one picture and cut it by a grid that was chosen before; see `cut_as_before`.

    Raises:
        PictureError: a picture that cannot be read.
    """
    picture = source if isinstance(source, Picture) else Picture(source)
    name = describe_source(picture.source if picture.name is None else picture.name)
    cut = cut_as_before(runtime, load_image(picture.source, name=name), name, grid, has_thumbnail)
    return replace(cut, label=picture.label, source_size=picture.source_size or cut.source_size)


def cut_as_before(
    runtime: ModelRuntime, image: Image, name: str, grid: tuple[int, int], has_thumbnail: bool
) -> MessagePicture:
    """Cut a picture by a grid that was chosen before, perhaps for another model.

    Args:
        image: RGB and upright.
        name: its name in messages.
        grid: (columns, rows).
        has_thumbnail: whether the whole picture follows in one more tile.
    """
    return _message_picture(runtime, name, cut_by_grid(image, Grid(*grid, has_thumbnail), runtime.vision.image_size))


def prompt_spans(
    runtime: ModelRuntime,
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    sampling: SamplingParams | None = None,
) -> list[Span]:
    """Return the whole prompt of a conversation as spans of tokens and tiles.

    Args:
        runtime: the model.
        messages: the conversation.
        tools: the tools that the next answer may call.
        sampling: that of the question, which says whether to think; None for its default.

    Raises:
        ContextOverflowError: its text is so long that no tokens could hold it; it was not tokenised.
    """
    bos = runtime.text.bos
    spans: list[Span] = [] if bos is None else [TokenSpan((bos,))]
    shown = with_tools(with_thinking(messages, sampling or SamplingParams()), tools)
    pieces = render(shown, thoughts=can_think(runtime))
    refuse_endless(runtime, [piece.text for piece in pieces if isinstance(piece, PlainText)])
    for piece in pieces:
        if isinstance(piece, ControlToken):
            spans.append(TokenSpan((runtime.control_tokens[piece.name],)))
        elif isinstance(piece, PlainText):
            spans += [TokenSpan(ids) for ids in grounded_tokens(runtime, piece.text)]
        elif isinstance(piece, AnswerTokens):
            spans.append(TokenSpan(piece.tokens))
        elif isinstance(piece, VisualTokens):
            length = runtime.vision.tokens_per_tile
            spans += [TileSpan(tile, length) for picture in piece.pictures for tile in picture.tiles]
    return [span for span in spans if span.length]


def refuse_endless(runtime: ModelRuntime, texts: Iterable[str]) -> None:
    """Refuse texts with more bytes than the longest tokens could hold in the whole context.

    llama.cpp takes a second for each two megabytes that it tokenises, and gigabytes of memory for some.

    Raises:
        ContextOverflowError: they have more.
    """
    n_ctx = runtime.engine.n_ctx
    # Composing accents (NFC) makes of three bytes one at most.
    most = 3 * n_ctx * runtime.text.longest_token
    length = sum(map(len, texts))
    if length > most:
        raise ContextOverflowError(
            f"The prompt has {length:,} characters, more than a context of {n_ctx:,} tokens can hold.",
            "Ask with less text; a schema, choices and tools are a part of it.",
            needed=length // (3 * runtime.text.longest_token),
            available=n_ctx,
        )


def grounded_tokens(runtime: ModelRuntime, text: str) -> list[tuple[int, ...]]:
    """Return the tokens of a message's text, with `<ref>`, `</ref>`, `<box>` and `</box>` as the tokens of these names.

    The published tokenizer reads them so, and the published prompts have them. Nothing else in a text becomes a control
    token. Where the vocabulary lacks these tokens, they are text.
    """
    ids = dict(runtime.text.grounding)
    tokenize = runtime.engine.model.tokenize
    return [(ids[part],) if part in ids else tokenize(part) for part in split_at_tags(text, ids)]


def _decode(limits: TileLimits, source: Any, options: AskOptions) -> _DecodedPicture:
    picture = source if isinstance(source, Picture) else Picture(source)
    narrowed = limits.narrowed(picture, options)
    name = describe_source(picture.source if picture.name is None else picture.name)
    image = load_image(picture.source, name=name)
    return _DecodedPicture(name, image, narrowed, picture.label, picture.source_size)


def _without_tiles(picture: _DecodedPicture | MessagePicture) -> MessagePicture:
    """Return the stand-in of a picture while the prompt around it is measured: no tiles, unless it is cut already."""
    if isinstance(picture, MessagePicture):
        return picture
    size = picture.source_size or picture.image.size
    return MessagePicture(picture.name, (1, 1), has_thumbnail=False, source_size=size, tiles=(), label=picture.label)


def _cut(runtime: ModelRuntime, picture: _DecodedPicture, limits: TileLimits) -> MessagePicture:
    cut = _message_picture(runtime, picture.name, limits.cut(picture.image, runtime.vision.image_size))
    return replace(cut, label=picture.label, source_size=picture.source_size or cut.source_size)


def _message_picture(runtime: ModelRuntime, name: str, tiled: TiledPicture) -> MessagePicture:
    return MessagePicture(
        name=name,
        grid=tiled.grid,
        has_thumbnail=tiled.has_thumbnail,
        source_size=tiled.source_size,
        tiles=tuple(_tile(runtime, tile.tobytes()) for tile in tiled.tiles),
    )


def _tile(runtime: ModelRuntime, pixels: bytes) -> Tile:
    return Tile(tile_key(runtime.encoder_identity, pixels), pixels)


def tile_key(encoder_identity: bytes, pixels: bytes) -> bytes:
    """Return the key of a tile's embeddings: a hash of its pixels and the encoder, 16 bytes."""
    return hashlib.blake2b(pixels, key=encoder_identity, digest_size=16).digest()
