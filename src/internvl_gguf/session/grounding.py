"""InternVL's format of boxes on its way through a session: hidden where an answer is shown, kept where it is read.

`<ref>`, `</ref>`, `<box>` and `</box>` are control tokens. In a prompt they are written as the tokens of these names.
In an answer they are no part of its text, and the boxes between them are `Reply.boxes`.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise

from internvl_gguf.boxes.parse import BOX, BOX_END, BoxReading, read_boxes
from internvl_gguf.boxes.which_picture import AskedPictures
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.types import Message, TokenLogprobs


def split_at_tags(text: str, tags: Collection[str]) -> list[str]:
    """Return a text in parts, each a tag or the text before, between or after tags; none of them is empty."""
    if not tags or "<" not in text:
        return [text] if text else []
    return [part for part in re.split(f"({'|'.join(map(re.escape, tags))})", text) if part]


class AnswerBoxes:
    """The boxes of one answer: notes its tags, which its text does not have, and reads it when it is finished.

    Args:
        runtime: the model.
        messages: the conversation with the question; where it has no picture, an answer has no boxes.
        keeps_tags: whether the tags are part of the text after all.
    """

    def __init__(self, runtime: ModelRuntime, messages: Sequence[Message], *, keeps_tags: bool = False) -> None:
        self._ids = dict(runtime.text.grounding)
        self._names = {token: name for name, token in self._ids.items()}
        self._keeps_tags = keeps_tags
        self._pictures = asked_pictures(messages)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._length = 0
        self._tags: list[tuple[int, str]] = []
        self._ends: list[int] = []

    @property
    def logprobs_between(self) -> tuple[int, int] | None:
        """Tokens between which the engine tells how likely each is, for `Box.confidence`; None where no box can be."""
        return (self._ids[BOX], self._ids[BOX_END]) if self._ids and self._pictures else None

    def piece(self, token: int, piece: bytes) -> bytes:
        """Return the bytes that are shown of a token: none of a tag, unless tags are kept.

        Args:
            token: its id.
            piece: its bytes.
        """
        name = self._names.get(token)
        if name is None:
            return piece
        return name.encode() if self._keeps_tags else b""

    def shown(self, token: int, piece: bytes) -> bytes:
        """Take the next token of the answer and return what `piece` does."""
        shown = self.piece(token, piece)
        if token in self._names and not self._keeps_tags:
            self._tags.append((self._length, self._names[token]))
        self._length += len(self._decoder.decode(shown))
        self._ends.append(self._length)
        return shown

    def marked(self, text: str) -> str:
        """Return the text of the answer, as it is shown, with its tags."""
        tags = self._tags_in(text)
        places = [0, *(place for place, _ in tags), len(text)]
        names = [*(name for _, name in tags), ""]
        return "".join(text[start:end] + name for (start, end), name in zip(pairwise(places), names, strict=True))

    def _tags_in(self, text: str) -> list[tuple[int, str]]:
        return [(place, name) for place, name in self._tags if place <= len(text)]

    def read(self, text: str, logprobs: Sequence[TokenLogprobs]) -> BoxReading:
        """Return the boxes of the finished answer.

        Args:
            text: the text of the answer as it is shown; after a stop string, its beginning.
            logprobs: how likely its tokens were; none, or NaN for some, where that is not known.
        """
        if self._pictures is None:
            return BoxReading((), (), (), is_cut_off=False)
        tags = self._tags_in(text)
        reading = read_boxes(self.marked(text), self._pictures)
        if not logprobs:
            return reading
        shift = _Shift(tags)
        spans = [(shift.shown(start), shift.shown(end)) for start, end in reading.places]
        boxes = tuple(
            replace(box, confidence=confidence)
            for box, confidence in zip(reading.boxes, self._confidences(text, spans, logprobs), strict=True)
        )
        return replace(reading, boxes=boxes)

    def _confidences(
        self, text: str, spans: Sequence[tuple[int, int]], logprobs: Sequence[TokenLogprobs]
    ) -> list[float | None]:
        """Return the mean probability of the tokens with digits in each span of the text; spans are in order."""
        found: list[float | None] = []
        n_known, first = min(len(self._ends), len(logprobs)), 0
        for start, end in spans:
            while first < n_known and self._ends[first] <= start:
                first += 1
            likely: list[float] = []
            index, before = first, start
            while index < n_known and before < end:
                after = self._ends[index]
                has_digit = any(letter.isdigit() for letter in text[before : min(after, end)])
                if has_digit and not math.isnan(logprobs[index].logprob):
                    likely.append(math.exp(logprobs[index].logprob))
                index, before = index + 1, max(before, after)
            found.append(sum(likely) / len(likely) if likely else None)
        return found


class _Shift:
    """Places of a text with tags, as places of the text without them; asked for in ascending order."""

    def __init__(self, tags: Sequence[tuple[int, str]]) -> None:
        self._tags = tags
        self._passed = 0
        self._hidden = 0

    def shown(self, place: int) -> int:
        while self._passed < len(self._tags) and self._tags[self._passed][0] + self._hidden < place:
            self._hidden += len(self._tags[self._passed][1])
            self._passed += 1
        return place - self._hidden


def asked_pictures(messages: Sequence[Message]) -> AskedPictures | None:
    """Return the pictures of a conversation as its last question asks about them; None without any."""
    shown = [picture for message in messages for picture in message.pictures]
    if not shown:
        return None
    count = next(len(message.pictures) for message in reversed(messages) if message.pictures)
    sizes, labels = [picture.source_size for picture in shown], [picture.label for picture in shown]
    return AskedPictures.of(sizes, len(shown) - count, count, messages[-1].text, labels)


def check_can_box(runtime: ModelRuntime, messages: Sequence[Message], images: Sequence[object]) -> None:
    """Check that an answer can have boxes.

    Args:
        runtime: the model.
        messages: the conversation before the question.
        images: the pictures of the question.

    Raises:
        InvalidRequestError: there is no picture, or the model has no tokens for boxes.
    """
    if not images and not any(message.pictures for message in messages):
        raise InvalidRequestError(
            "Boxes were asked for, and there is no picture that they could lie in.", "Give a picture with the question."
        )
    if not runtime.text.grounding:
        raise InvalidRequestError(
            f"{runtime.files.label} cannot answer with boxes: its vocabulary has no <ref> and <box>.",
            "Use a model that has them, as those of OpenGVLab do, or ask in words: coordinates in a text are read too.",
        )
