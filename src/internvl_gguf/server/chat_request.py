"""A request for an answer, whichever interface it came by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from internvl_gguf.config import PictureOptions, SamplingParams
from internvl_gguf.types import Video

Detail = Literal["auto", "low", "high"]
TOOL_MODES: Final = ("none", "auto", "required")
"""Choices of tools that name none."""


@dataclass(frozen=True)
class TextPart:
    """Text of a turn."""

    text: str


@dataclass(frozen=True)
class PicturePart:
    """A picture of a turn.

    Attributes:
        source: a data URI, base64, `file://` URI or address, as the client gave it; the bytes of the file once they are
            here.
        detail: OpenAI's wish for its tiles: "low" is one, "high" is the model's own limit, "auto" the request's.
        name: its name in messages, once its bytes are here.
    """

    source: str | bytes = field(repr=False)
    detail: Detail = "auto"
    name: str = ""


@dataclass(frozen=True)
class ClipPart:
    """A clip of a turn.

    Attributes:
        video: the clip and which of its frames are wanted. Its source is what the client gave, as that of a picture, or
            the bytes of the file once they are here; then it has a name, too.
    """

    video: Video


@dataclass(frozen=True)
class FramesPart:
    """A clip of a turn whose frames the client took: a list of pictures.

    Attributes:
        sources: the frames in order, each as a picture's source.
        fps: frames a second of the clip that the list has; None if the client does not say it.
        max_tiles: most tiles of a frame; None for the request's.
        name: its name in messages, once its bytes are here.
    """

    sources: tuple[str | bytes, ...] = field(repr=False)
    fps: float | None = None
    max_tiles: int | None = None
    name: str = ""


Shown = PicturePart | ClipPart | FramesPart
"""The pictures and clips of a turn."""
Part = TextPart | Shown


@dataclass(frozen=True)
class SentCall:
    """A call of a tool, in an answer that a client sends back.

    Attributes:
        id: its name in the conversation; "" if the client gave none.
        name: the tool's.
        arguments: values by the names of its parameters.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: who said it; "tool" for what a tool returned.
        parts: its texts, pictures and clips, in order.
        calls: calls of tools in an answer, which stand after its text.
        answers: of "tool", the id of the call that it answers, or the name of the tool; "" if the client gave neither.
        thinking: the thought before an answer, which the client sends back; "" for none.
    """

    role: Literal["system", "user", "assistant", "tool"]
    parts: tuple[Part, ...]
    calls: tuple[SentCall, ...] = ()
    answers: str = ""
    thinking: str = ""

    @property
    def text(self) -> str:
        """Its texts, joined."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def shown(self) -> list[Shown]:
        """Its pictures and clips."""
        return [part for part in self.parts if not isinstance(part, TextPart)]


@dataclass(frozen=True)
class FormWish:
    """The form that a client wants an answer to have, as it was given: it is checked later, in another thread.

    Attributes:
        kind: what `value` is, as `structured.format_of` calls it.
        value: a JSON schema, texts of choices, a grammar or a regular expression.
        param: its name in errors, such as "response_format.json_schema.schema".
        about: what the client says of it for the model; "" for nothing.
    """

    kind: Literal["schema", "choices", "grammar", "regex"]
    value: Any = field(repr=False)
    param: str
    about: str = ""


@dataclass(frozen=True)
class ToolWish:
    """A tool that a client has, as it was given.

    Attributes:
        name: its name.
        description: what it does, for the model.
        parameters: JSON schema of its arguments; None for none.
        param: the name of `parameters` in errors.
        name_param: that of `name`.
    """

    name: str
    description: str
    parameters: Mapping[str, Any] | None = field(repr=False)
    param: str
    name_param: str


@dataclass(frozen=True)
class AnswerWishes:
    """The form that an answer has to have, and the tools that it may call.

    Attributes:
        form: None for any text.
        form_in_prompt: whether the question ends with what the model has to know of the form.
        tools: the tools.
        tool_choice: one of `TOOL_MODES`, or the name of the tool that is called.
        parallel_calls: whether there may be several calls.
    """

    form: FormWish | None = None
    form_in_prompt: bool = True
    tools: tuple[ToolWish, ...] = ()
    tool_choice: str = "auto"
    parallel_calls: bool = True

    @property
    def calls_several(self) -> bool:
        """Whether an answer may call several times; a tool that is named is called once, as clients rely on."""
        return self.parallel_calls and self.tool_choice in TOOL_MODES


@dataclass(frozen=True)
class ChatRequest:
    """A request for one or more answers to a conversation.

    Attributes:
        model: the model asked for; None for the first that the server has.
        turns: the conversation. If an assistant's turn is the last, the answer goes on with it.
        sampling: how the tokens of the answer are chosen.
        pictures: how pictures are cut and laid out.
        n: number of answers.
        top_logprobs: how many likeliest tokens are told beside each token; None tells no logprobs.
        keeps_tags: whether the text of the answer has the tags of boxes.
        wishes: what an answer has to be like, and the tools that it may call.
        must_think: whether a model that cannot think as `sampling` asks is an error.
    """

    model: str | None
    turns: tuple[Turn, ...]
    sampling: SamplingParams
    pictures: PictureOptions
    n: int = 1
    top_logprobs: int | None = None
    keeps_tags: bool = False
    wishes: AnswerWishes = field(default_factory=AnswerWishes)
    must_think: bool = False

    @property
    def has_clips(self) -> bool:
        """Whether there is a clip to decode."""
        return any(isinstance(part, ClipPart) for turn in self.turns for part in turn.parts)


@dataclass(frozen=True)
class AnswerDefaults:
    """Values for fields that a request leaves out, as the server's owner chose them.

    Attributes:
        system: the system message; None for the official one, "" for none.
        sampling: how the tokens of the answer are chosen.
        pictures: how pictures are cut and laid out.
    """

    system: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    pictures: PictureOptions = field(default_factory=PictureOptions)


Body = Mapping[str, Any]
"""The JSON object of a request."""
