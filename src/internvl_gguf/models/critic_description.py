"""How a critic is asked what each step of an answer is worth: prompt, places that are read, and how scores are joined.

A critic is a model that was trained further to write one of two tokens behind each step of a solution. What differs
between published critics is described here, and read from `[critics.NAME]` tables of models.toml.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils import arguments

Steps = Literal["user", "assistant"]
Reading = Literal["before", "at"]
Aggregation = Literal["mean", "min", "last", "product"]
Field = Literal["pictures", "question", "step"]

_FIELD: Final = re.compile(r"\{(pictures|question|step)\}")
_TEMPLATE_HINT: Final = "Write {pictures}, {question} and {step} once each, in this order."


@dataclass(frozen=True)
class CriticDescription:
    """What a critic has to be shown, and what is read of it.

    In templates `{pictures}` stands for the pictures of the question, each with the line break of the model card behind
    it, `{question}` for its text and `{step}` for a step of the answer. A question that marks the places of its
    pictures with `<image>` keeps them there.

    Attributes:
        name: its name.
        first_step: template of the first step.
        next_step: template of each further step.
        steps: "user": each step is a message of the user, which the assistant answers with the marker; "assistant": all
            steps stand in one message of the assistant, each with the marker behind it.
        user: with steps "assistant", the template of the user's message before it.
        system: the system message; None for InternVL's official one, "" for none.
        separator: what stands between two steps of an answer.
        max_steps: most steps; if an answer has more, neighbours are joined in groups of ceil(n / max_steps). None for
            as many as it has.
        whole_answer: whether the whole answer is one step.
        marker: what stands behind each step.
        read: "before": the logits that the marker would be chosen from; "at": those after it.
        positive, negative: two tokens; the score of a step is the first one's probability in their softmax.
        aggregation: how the scores of steps make that of an answer.
        threshold: least score of a step that counts as right.
        max_tiles: most tiles of a picture, the thumbnail not counted; None for the session's.
        models: names of models that are critics of this kind.
        source: where these facts are from.

    Raises:
        InvalidRequestError: a template that lacks a field, a number out of its range, or a word that is not known.
    """

    name: str
    first_step: str
    next_step: str = "{step}"
    steps: Steps = "user"
    user: str = ""
    system: str | None = None
    separator: str = "\n\n"
    max_steps: int | None = None
    whole_answer: bool = False
    marker: str = "+"
    read: Reading = "before"
    positive: str = "+"
    negative: str = "-"
    aggregation: Aggregation = "mean"
    threshold: float = 0.5
    max_tiles: int | None = None
    models: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        for key in ("name", "first_step", "next_step", "user", "separator", "marker", "positive", "negative", "source"):
            arguments.text(self._called(key), getattr(self, key))
        arguments.text_or_none(self._called("system"), self.system)
        for key, words in (("steps", Steps), ("read", Reading), ("aggregation", Aggregation)):
            if getattr(self, key) not in get_args(words):
                raise arguments.wrong(
                    self._called(key), getattr(self, key), f"Use one of {', '.join(get_args(words))}."
                )
        self._check_templates()
        for key in ("separator", "marker", "positive", "negative"):
            if not getattr(self, key):
                raise InvalidRequestError(f"{self._called(key)} is empty.", "Fill it in.")
        if self.positive == self.negative:
            raise InvalidRequestError(
                f"positive and negative of the critic {self.name} are both {self.positive!r}.",
                "Give the two tokens that it chooses from.",
            )
        for key in ("max_steps", "max_tiles"):
            value = getattr(self, key)
            if value is not None and arguments.whole(self._called(key), value) < 1:
                raise arguments.wrong(self._called(key), value, "Give 1 or more, or leave it out.")
        if not 0 <= arguments.number(self._called("threshold"), self.threshold) <= 1:
            raise arguments.wrong(self._called("threshold"), self.threshold, "Give a probability, from 0 to 1.")
        arguments.switch(self._called("whole_answer"), self.whole_answer)

    def split(self, answer: str) -> tuple[str, ...]:
        """Return the steps of an answer, those joined that are too many; () for an answer of white space."""
        parts = [answer] if self.whole_answer else answer.split(self.separator)
        parts = [part for part in parts if part.strip()]
        if self.max_steps is None or len(parts) <= self.max_steps:
            return tuple(parts)
        size = math.ceil(len(parts) / self.max_steps)
        groups = (parts[at : at + size] for at in range(0, len(parts), size))
        return tuple(self.separator.join(group) for group in groups)

    def joined(self, scores: Sequence[float]) -> float:
        """Return the score of an answer, 0 to 1, of those of its steps: one or more, each from 0 to 1."""
        if self.aggregation == "mean":
            return math.fsum(scores) / len(scores)
        if self.aggregation == "product":
            return math.prod(scores)
        return min(scores) if self.aggregation == "min" else scores[-1]

    def _called(self, key: str) -> str:
        return f"{key} of the critic {self.name}"

    def _check_templates(self) -> None:
        shown = self.first_step if self.steps == "user" else self.user + self.first_step
        fields = [part.field for part in template_parts(shown) if part.field]
        if fields != list(get_args(Field)):
            where = "first_step" if self.steps == "user" else "user and first_step"
            raise InvalidRequestError(f"The fields of {where} are {_listed(fields)}.", _TEMPLATE_HINT)
        if "step" not in [part.field for part in template_parts(self.first_step)]:
            raise InvalidRequestError(f"{self._called('first_step')} has no {{step}}.", "Write {step} in it.")
        following = [part.field for part in template_parts(self.next_step) if part.field]
        if following != ["step"]:
            raise InvalidRequestError(
                f"The fields of next_step are {_listed(following)}.", "Write {step} once, and no other field."
            )


@dataclass(frozen=True)
class TemplatePart:
    """A part of a template: text as it is, or a field, whose `text` is then empty."""

    text: str
    field: Field | None = None


def template_parts(template: str) -> list[TemplatePart]:
    """Return a template as texts and fields in turn."""
    pieces = _FIELD.split(template)
    parts = [TemplatePart("", piece) if at % 2 else TemplatePart(piece) for at, piece in enumerate(pieces)]  # type: ignore[arg-type]
    return [part for part in parts if part.field or part.text]


def _listed(fields: Sequence[str | None]) -> str:
    return ", ".join(f"{{{field}}}" for field in fields) or "none"
