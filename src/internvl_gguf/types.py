"""Small frozen value classes that several rooms use: pictures, questions, tiles, messages, replies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from internvl_gguf.utils.foreign_names import PICTURE, QUESTION, refuses_foreign_names

Role = Literal["system", "user", "assistant"]
PictureLayout = Literal["separate", "combined", "frames"]
FinishReason = Literal["stop", "length", "aborted"]
BoxIssue = (
    Literal["swapped", "clipped", "fractions", "rounded", "no area"]
    | Literal["no brackets", "no tags", "no label", "not closed", "guessed"]
)
"""What was mended of a box, or is not certain of it; docs/boxes.md says what each means."""


@refuses_foreign_names(PICTURE)
@dataclass(frozen=True)
class Picture:
    """A picture with its own tile limits, wherever `images=` takes a plain source.

    Attributes:
        source: path, bytes, data URI, PIL.Image.Image or numpy array, as `images.load_image` takes them.
        max_tiles: most tiles of this picture, the thumbnail not counted; None takes the call's.
        min_tiles: fewest tiles of this picture; None takes the call's.
        thumbnail: whether a thumbnail follows several tiles; None takes the call's.
        name: its name in messages; None for its path, or a description such as "the picture given as bytes".
    """

    source: Any
    max_tiles: int | None = None
    min_tiles: int | None = None
    thumbnail: bool | None = None
    name: str | None = None


@dataclass(frozen=True)
class Question:
    """One question of a batch.

    Attributes:
        prompt: the question.
        images: its pictures, as `Session.ask` takes them: a list, or one.
        options: options of `Session.ask` for this question; they replace those of the whole batch. They may also be
            given by their names, as in `Question("What is it?", "photo.jpg", max_tokens=50)`.
        system: system message of this question; None for the session's, "" for none.

    Raises:
        InvalidRequestError: an option that only other tools have. What else is wrong is found when it is asked.
    """

    prompt: str
    images: Any = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None

    def __init__(
        self,
        prompt: str = "",
        images: Any = (),
        options: Mapping[str, Any] | None = None,
        system: str | None = None,
        **named: Any,
    ) -> None:
        for name in named:
            if QUESTION.has(name):
                raise QUESTION.unknown(name, ())
        given = {} if options is None else options
        object.__setattr__(self, "prompt", prompt)
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "options", {**given, **named} if named else given)
        object.__setattr__(self, "system", system)


@dataclass(frozen=True)
class Tile:
    """One tile, the input of the vision encoder.

    Attributes:
        key: identity of its embeddings: pixels, mmproj content, correction, library build and device; 16 bytes.
        pixels: RGB bytes, row by row, tile_size * tile_size * 3 of them.
    """

    key: bytes
    pixels: bytes = field(repr=False, compare=False)


@dataclass(frozen=True)
class TokenSpan:
    """A run of text tokens."""

    ids: tuple[int, ...]

    @property
    def length(self) -> int:
        """Number of positions the span takes."""
        return len(self.ids)


@dataclass(frozen=True)
class TileSpan:
    """The visual tokens of one tile, decoded from its embeddings.

    Two spans are equal if their tiles have the same key: same pixels through the same encoder.
    """

    tile: Tile
    length: int


Span = TokenSpan | TileSpan


@dataclass(frozen=True)
class MessagePicture:
    """A picture of a message: cut into tiles, with the keys of their embeddings.

    Attributes:
        name: its name in messages (a path, "the picture given as bytes").
        grid: (columns, rows), the thumbnail not counted; (0, 0) where a server cuts it and has not said how.
        has_thumbnail: whether the last tile shows the whole picture.
        source_size: (width, height) in pixels before the cut.
        tiles: the tiles in the order the model sees them; none where a server cuts it.
    """

    name: str
    grid: tuple[int, int]
    has_thumbnail: bool
    source_size: tuple[int, int]
    tiles: tuple[Tile, ...]

    @property
    def n_tiles(self) -> int:
        """Number of tiles by its grid, the thumbnail included; 0 where the grid is not known."""
        return self.grid[0] * self.grid[1] + self.has_thumbnail


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: "system", "user" or "assistant".
        text: the text as given or answered.
        pictures: the pictures of a user message, in order.
        layout: layout of several pictures in the prompt.
        tokens: for an answer of the model, the sampled ids, so that the KV cache of the turn is reused; None for any
            other text.
    """

    role: Role
    text: str
    pictures: tuple[MessagePicture, ...] = ()
    layout: PictureLayout = "separate"
    tokens: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TokenLogprobs:
    """How likely a token of an answer was, by the model's own distribution, before temperature and other sampling.

    Attributes:
        token: its id.
        logprob: natural logarithm of its probability.
        top: ids and logprobs of the likeliest tokens at its place, the likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens, pictures and tiles of an answer.

    Attributes:
        prompt_tokens: positions of the whole prompt, visual tokens included.
        cached_tokens: those of them whose KV was already there.
        completion_tokens: tokens of the answer.
        images: pictures in the prompt.
        tiles: their tiles, thumbnails included.
        tiles_encoded: tiles the vision encoder had to see for this answer.
        tiles_cached: tiles whose embeddings or KV were already there, those from disk included.
        drafted_tokens: tokens of the answer that were guessed (`EngineConfig.n_draft`).
        accepted_tokens: guesses that were right.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    images: int
    tiles: int
    tiles_encoded: int
    tiles_cached: int = field(init=False)
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "tiles_cached", self.tiles - self.tiles_encoded)


@dataclass(frozen=True)
class Timings:
    """Durations of the phases of an answer, in seconds.

    Attributes:
        preprocess: decoding pictures and cutting tiles.
        encode: tiles through the vision encoder.
        prefill: the new part of the prompt through the text model.
        time_to_first_token: from the call to the first token of the answer; it alone includes reading embeddings from
            disk.
        decode: from the first token to the last.
        decode_tokens_per_second: tokens after the first, divided by `decode`; 0 without a second token.
    """

    preprocess: float
    encode: float
    prefill: float
    time_to_first_token: float
    decode: float
    decode_tokens_per_second: float


@dataclass(frozen=True)
class Box:
    """A box that an answer names.

    Attributes:
        label: what it names; "" where the answer does not say.
        image: number of its picture, from 0: among all pictures of the conversation, in the order in which they were
            given, or among the sizes that `boxes.parse_boxes` was given.
        xyxy: left, top, right and bottom in pixels of that picture, upright and as large as it was given.
        thousandths: the same in thousandths of its width and height, as the model answers them, mended (`issues`).
        confidence: mean probability of the tokens of its numbers, by the model's own distribution, before temperature
            and other sampling; None where that is not known.
        issues: what was mended or is not certain.
    """

    label: str
    image: int
    xyxy: tuple[float, float, float, float]
    thousandths: tuple[int, int, int, int]
    confidence: float | None = None
    issues: tuple[BoxIssue, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the box as `--json` writes it: pixels rounded to hundredths, confidence to four digits."""
        confidence = None if self.confidence is None else round(self.confidence, 4)
        xyxy = [round(pixel, 2) for pixel in self.xyxy]
        numbers = {"xyxy": xyxy, "thousandths": list(self.thousandths)}
        return {**asdict(self), **numbers, "confidence": confidence, "issues": list(self.issues)}


@dataclass(frozen=True)
class Reply:
    """A finished answer.

    Attributes:
        text: the answer.
        finish_reason: "stop" (end of turn or a stop string), "length" (max_tokens or the context is full) or
            "aborted".
        usage: numbers of tokens, pictures and tiles.
        timings: durations of its phases.
        notices: changes made so that the question fits the context, and boxes that could not be read, one line each.
        boxes: the boxes that it names, in its order; none without a picture in the conversation.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    notices: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as `internvl ask --json` and `--batch` write it: only text, numbers, lists and dicts.

        Times are rounded to a tenth of a millisecond, the rate to a tenth. Both commands add what was asked, and of
        which model.
        """
        timings = {name: round(value, 4) for name, value in asdict(self.timings).items()}
        timings["decode_tokens_per_second"] = round(self.timings.decode_tokens_per_second, 1)
        boxes = [box.to_dict() for box in self.boxes]
        return {**asdict(self), "timings": timings, "notices": list(self.notices), "boxes": boxes}


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed answer; the last one carries the whole reply and may have no text."""

    text: str
    reply: Reply | None = None
