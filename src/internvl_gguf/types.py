"""Small frozen value classes that several rooms use: pictures, clips, questions, tiles, messages, replies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Literal

from internvl_gguf.utils import arguments
from internvl_gguf.utils.foreign_names import PICTURE, QUESTION, VIDEO, refuses_foreign_names

Role = Literal["system", "user", "assistant", "tool"]
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
        label: text before it in the prompt; "" for what the layout says, such as "Image-1: ".
        source_size: (width, height) of what `source` is a smaller copy of: boxes are meant in it; None for its own.

    Raises:
        InvalidRequestError: a label that is no text.
    """

    source: Any
    max_tiles: int | None = None
    min_tiles: int | None = None
    thumbnail: bool | None = None
    name: str | None = None
    label: str = ""
    source_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        arguments.text("label", self.label)


@refuses_foreign_names(VIDEO)
@dataclass(frozen=True)
class Video:
    """A clip, wherever `images=` takes a picture: the model sees some of its frames, each as a picture.

    Attributes:
        source: path, bytes of a file, a file opened in binary, `data:` or `file://` URI. Nothing is fetched from a
            network.
        frames: number of frames; "auto" for as many as fit the context; None for 8, or for as many as `fps` asks for.
            With `fps` it is the most.
        start: seconds from which on frames are taken; None for the beginning.
        end: seconds up to which they are taken; None for the end.
        fps: frames a second of the clip's time; None where `frames` says how many.
        max_tiles: most tiles of a frame, the thumbnail not counted; None takes the call's, else 1.
        name: its name in messages; None for its path, or a description such as "the clip given as bytes".

    Raises:
        InvalidRequestError: a value of another kind, no frames, or an end that is not after the start.
    """

    source: Any
    frames: int | Literal["auto"] | None = None
    start: float | None = None
    end: float | None = None
    fps: float | None = None
    max_tiles: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames != "auto":
            hint = 'Give a whole number of 1 or more, or "auto".'
            frames = arguments.whole("frames", self.frames, hint)
            if frames < 1:
                raise arguments.wrong("frames", frames, hint)
            object.__setattr__(self, "frames", frames)
        for name in ("start", "end", "fps"):
            self._check_seconds(name)
        arguments.ascending("start", self.start, "end", self.end)

    def _check_seconds(self, name: str) -> None:
        given = getattr(self, name)
        if given is None:
            return
        value = arguments.number(name, given)
        if not (0 < value < math.inf or (value == 0 and name != "fps")):
            hint = "Give a number above 0." if name == "fps" else "Give seconds from the beginning of the clip."
            raise arguments.wrong(name, arguments.plain(value) if math.isfinite(value) else given, hint)
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Frames:
    """Frames of a clip that are pictures already, wherever `images=` takes a picture; `Video` reads them from a file.

    Attributes:
        pictures: the frames in order, one or more; their labels say which they are.
        times: seconds of each from the clip's beginning on; () where they are not known.
        name: the clip's in `Reply.clips`; "" for a clip that is told of otherwise, and is not there.
    """

    pictures: tuple[Picture, ...]
    times: tuple[float, ...] = ()
    name: str = ""


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
        label: text before it in the prompt; "" for what the layout says.
    """

    name: str
    grid: tuple[int, int]
    has_thumbnail: bool
    source_size: tuple[int, int]
    tiles: tuple[Tile, ...]
    label: str = ""

    @property
    def n_tiles(self) -> int:
        """Number of tiles by its grid, the thumbnail included; 0 where the grid is not known."""
        return self.grid[0] * self.grid[1] + self.has_thumbnail


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: "system", "user", "assistant", or "tool" for what a tool returned.
        text: the text as given or answered; calls of tools are part of it, as the model writes them.
        pictures: the pictures of a message of the user or of a tool, in order.
        layout: layout of several pictures in the prompt.
        tokens: for an answer of the model, its ids in the prompt, so that the KV cache of the turn is reused: those
            that were sampled, behind those that it was begun with; None for any other text.
        thinking: for an answer, its thought as it was written, line ends included; it is no part of `text`.
    """

    role: Role
    text: str
    pictures: tuple[MessagePicture, ...] = ()
    layout: PictureLayout = "separate"
    tokens: tuple[int, ...] | None = None
    thinking: str = ""


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool by an answer.

    Attributes:
        id: its name in this conversation, "call_..." and 24 hexadecimal digits.
        name: the tool's.
        arguments: values by the names of its parameters; they fit the tool's schema.
        index: number of the call in its answer, from 0.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    index: int = 0


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a call in a streamed answer.

    Attributes:
        index: number of the call in the answer, from 0.
        id: its id; in the first piece of a call only, "" in others.
        name: the tool's name; in the first piece only.
        arguments: what is new of its arguments, as JSON text.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True)
class ToolResult:
    """What a tool returned, as the next question to the model.

    Attributes:
        content: text, or any value that JSON can hold; an error of the tool in words, too.
        images: its pictures, as `Session.ask` takes them.
    """

    content: Any
    images: Any = ()


@dataclass(frozen=True)
class TokenLogprobs:
    """How likely a token of an answer was, by the model's own distribution, before temperature and other sampling.

    Attributes:
        token: its id.
        logprob: natural logarithm of its probability.
        top: ids and logprobs of the likeliest tokens at its place, the likeliest first.
        certainty: how far the distribution at its place is from one that knows nothing, in nats
            (`engine.token_certainty`); NaN where that was not asked for.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    certainty: float = math.nan


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
        forced_tokens: tokens of the answer that its form left no choice for.
        thinking_tokens: those of `completion_tokens` that are of its thought.
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
    forced_tokens: int = 0
    thinking_tokens: int = 0

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

    def to_dict(self) -> dict[str, float]:
        """Return them rounded: times to a tenth of a millisecond, the rate to a tenth."""
        rounded = {name: round(value, 4) for name, value in asdict(self).items()}
        return {**rounded, "decode_tokens_per_second": round(self.decode_tokens_per_second, 1)}


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
class ShownFrame:
    """A frame of a clip that the model saw.

    Attributes:
        image: number of its picture, from 0, among all pictures of the conversation, as a `Box` counts them.
        index: its number in the clip, from 0.
        time: seconds from the clip's first frame; None of a list of frames whose rate is not known.
    """

    image: int
    index: int
    time: float | None


@dataclass(frozen=True)
class ShownClip:
    """A clip of a question, and the frames of it that the model saw.

    Attributes:
        name: its name in messages: its path, or a description such as "the clip given as bytes".
        frames: the frames in order.
    """

    name: str
    frames: tuple[ShownFrame, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the clip as `--json` writes it: times rounded to thousandths of a second."""
        times = (None if each.time is None else round(each.time, 3) for each in self.frames)
        frames = [{**asdict(each), "time": time} for each, time in zip(self.frames, times, strict=True)]
        return {"name": self.name, "frames": frames}


@dataclass(frozen=True)
class SelectedFrom:
    """One of several answers to a question, as `Selection` tells of it.

    Attributes:
        text: the answer.
        finish_reason: as in `Reply`; "aborted" also where it was not needed any more.
        score: what the judge gave it; the higher, the better.
        seed: seed of its sampling; None for a greedy one.
        logprob: mean natural-log probability of the tokens of its answer; None where it is not known.
        certainty: self-certainty in nats, the mean over its tokens; None where it is not known.
        tokens: its tokens.
        agreeing: how many candidates have its answer, itself among them; None where the judge compares none.
    """

    text: str
    finish_reason: FinishReason
    score: float
    seed: int | None
    logprob: float | None
    certainty: float | None
    tokens: int
    agreeing: int | None = None


@dataclass(frozen=True)
class Selection:
    """How an answer was chosen among several.

    Attributes:
        best: number of the chosen one, from 0.
        confidence: from 0 to 1: how sure the judge is of it.
        reason: one line for people: "6 of 8 agree".
        candidates: all of them, in order.
    """

    best: int
    confidence: float
    reason: str
    candidates: tuple[SelectedFrom, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as `--json` writes it: numbers rounded to four digits."""
        rounded = [
            {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(each).items()}
            for each in self.candidates
        ]
        return {
            "best": self.best,
            "confidence": round(self.confidence, 4),
            "reason": self.reason,
            "candidates": rounded,
        }


@dataclass(frozen=True)
class Reply:
    """A finished answer.

    Attributes:
        text: the answer.
        finish_reason: "stop" (end of turn or a stop string), "length" (max_tokens or the context is full) or
            "aborted".
        usage: numbers of tokens, pictures and tiles.
        timings: durations of its phases.
        notices: changes made so that the question fits the context, boxes that could not be read, and why there is no
            `parsed` value; one line each.
        boxes: the boxes that it names, in its order; none without a picture in the conversation.
        parsed: the value of an answer that had to have a form: what its JSON says, or an instance of the type that was
            given; the choice; the text that fits a grammar. None where none was asked for, or the answer was cut off.
        tool_calls: the tools that the answer calls; they are not part of `text`.
        clips: the clips of the question, with the frames that were shown.
        thinking: the thought before the answer, which is no part of `text`; "" for none.
        selection: how it was chosen among several (`best_of`); None for the only one.
        logprob: mean natural-log probability of the tokens of its answer, by the model's own distribution, before
            temperature and other sampling; of tokens without a choice there is none. None where it was not asked for
            (`confidence=True`, `best_of`), or nothing was chosen.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    notices: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    parsed: Any = None
    tool_calls: tuple[ToolCall, ...] = ()
    clips: tuple[ShownClip, ...] = ()
    thinking: str = ""
    selection: Selection | None = None
    logprob: float | None = None

    @property
    def confidence(self) -> float | None:
        """How sure the model is of the answer, from 0 to 1; None where that was not asked for, or is not known.

        Of several answers it is that of the judge; of one the geometric mean of the probabilities of its tokens.
        """
        if self.selection is not None:
            return self.selection.confidence
        return None if self.logprob is None else math.exp(min(0.0, self.logprob))

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as `internvl ask --json` and `--batch` write it: only text, numbers, lists and dicts.

        Both commands add what was asked, and of which model.
        """
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "usage": asdict(self.usage),
            "timings": self.timings.to_dict(),
            "notices": list(self.notices),
            "boxes": [box.to_dict() for box in self.boxes],
            "parsed": plain(self.parsed),
            "tool_calls": [asdict(call) for call in self.tool_calls],
            "clips": [clip.to_dict() for clip in self.clips],
            "thinking": self.thinking,
            "selection": self.selection and self.selection.to_dict(),
            "confidence": None if self.confidence is None else round(self.confidence, 4),
        }


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: models, dataclasses and enumerations as what they are made of."""
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, Enum)):
        return value
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed answer; the last one carries the whole reply and may have no text.

    Attributes:
        text: what is new of the text.
        reply: the whole answer, in the last chunk.
        tool_call: what is new of a call of a tool.
        thinking: what is new of the thought before the answer.
    """

    text: str
    reply: Reply | None = None
    tool_call: ToolCallDelta | None = None
    thinking: str = ""
    _partial: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def partial(self) -> Any:
        """What is there of the value of an answer that has to have a form, up to this chunk; None for nothing.

        It is read from the text when it is asked for.
        """
        return self._partial() if self._partial else None
