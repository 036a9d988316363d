"""The options that all lines of a batch share, and the question that each line asks with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from internvl_gguf.bulk.clip_fields import (
    CLIP_FIELDS,
    WISH_FIELDS,
    ClipOptionsError,
    clips_of,
    deciding,
    wishes_of,
    with_clips,
)
from internvl_gguf.bulk.contained import ContainedPicture
from internvl_gguf.bulk.contained_paths import split_contained
from internvl_gguf.bulk.lines import DIGEST_LENGTH, EXAMPLE, Line, digest_of
from internvl_gguf.bulk.template import PromptTemplate, values_of_picture
from internvl_gguf.config import FORMS, FormOptions, PictureOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import Question, Video
from internvl_gguf.utils.foreign_names import QUESTION
from internvl_gguf.utils.kinds import JudgeName, Kind, Switch, Texts
from internvl_gguf.utils.options import options_of
from internvl_gguf.video.clip_wishes import ClipWishes

_SAMPLING: Final = options_of(SamplingParams)
_PICTURES: Final = options_of(PictureOptions)
FIELDS: Final[dict[str, tuple[Kind, bool]]] = {
    "prompt": (Kind(), False),
    "images": (Texts("a list of paths", takes_one=True), False),
    "system": (Kind(), False),
    **dict.fromkeys(("regex", "grammar", "tool_choice"), (Kind(), True)),
    **dict.fromkeys(("boxes", "format_in_prompt", "parallel_tool_calls"), (Switch(), True)),
    **{name: (each.kind, each.is_optional) for name, each in {**_PICTURES, **_SAMPLING}.items()},
}
"""What each field of a line must be, and whether null is one; `id` may be anything."""

FORM_FIELDS: Final = tuple(name for name in FormOptions.__annotations__ if name != "answer_format")
"""Fields that say what the answer has to be like, and its tools; the session checks their values when it asks."""

KNOWN_FIELDS: Final = tuple(
    dict.fromkeys(("id", "prompt", "images", *CLIP_FIELDS, *WISH_FIELDS, *FIELDS, *FORM_FIELDS, "columns"))
)
"""All fields of a line; `columns` is an object of anything, for the prompt and the record."""

_NO_LOGPROBS: Final = "A batch writes none; from Python, Session.next_token_logprobs gives those of the first token."
_NAMES: Final = replace(
    QUESTION,
    otherwise={
        **QUESTION.otherwise,
        **dict.fromkeys(("logprobs", "top_logprobs", "prompt_logprobs"), _NO_LOGPROBS),
        "stream": "Leave it out: an answer is written when it is whole.",
        "messages": "A line is one question: give its prompt, and perhaps a system message.",
    },
)
"""The names of other tools for the fields of a line."""
_NOT_ASKED: Final = "0" * DIGEST_LENGTH
"""The second half of the hash of a line that is no question."""


@dataclass(frozen=True)
class Common:
    """The options that all lines of a batch share, where a line does not say otherwise.

    Attributes:
        model: the model's name in the records: that of its file, which has the quant.
        encoder: name of the vision encoder's file.
        sampling: how tokens are chosen.
        pictures: how pictures are cut; fields of `PictureOptions`.
        form: what an answer has to be like, as it was given; fields of `FormOptions`.
        system: the system message; None for the official one.
        prompt: the question of lines that have none, perhaps with places for their columns (`PromptTemplate`); None for
            an error.
        wishes: which frames of clips are shown.
    """

    model: str = ""
    encoder: str = ""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    pictures: Mapping[str, Any] = field(default_factory=dict)
    form: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    prompt: str | None = None
    wishes: ClipWishes = field(default_factory=ClipWishes)

    def question_of(self, line: Line) -> Question:
        """Return the question of a line; files are looked at to tell clips from pictures.

        Raises:
            InvalidRequestError: the line is no question, or an option is out of range.
        """
        question, values = self.as_written(line), line.fields
        images = with_clips(map(_in_place, question.images), wishes_of(values, self.wishes))
        for name in WISH_FIELDS:
            if values.get(name) is not None and not any(isinstance(each, Video) for each in images):
                raise ClipOptionsError(f"{name} goes with a clip only.", 'Name one, as "video": "clip.mp4".')
        return replace(question, images=images)

    def as_written(self, line: Line) -> Question:
        """Return the question of a line as it is written: all its `images` are pictures. Raises as `question_of`."""
        values = line.fields
        for name, value in values.items():
            if name not in KNOWN_FIELDS and name not in self.template.names:
                raise _NAMES.unknown(name, KNOWN_FIELDS, "field")
            if name in FIELDS:
                values[name] = _checked(name, value)
        prompt = values["prompt"] if "prompt" in values else self._prompt_of(values)
        options: dict[str, Any] = {name: values[name] for name in (*_PICTURES, *FORM_FIELDS) if name in values}
        chosen = {name: values[name] for name in _SAMPLING if name in values}
        options["sampling"] = self.sampling.changed(chosen)
        if "judge" in chosen and chosen["judge"] != self.sampling.judge:
            options["judge"] = _known_judge(chosen["judge"], self.sampling.judge)
        images = (*values.get("images", ()), *clips_of(values, wishes_of(values, self.wishes)))
        return Question(prompt, images, options, values.get("system"))

    def _prompt_of(self, values: Mapping[str, Any]) -> str:
        """Return the prompt of a line that has none of its own, by the fields of the line."""
        if self.prompt is None:
            raise InvalidRequestError("The line has no prompt.", f"{EXAMPLE} -p gives one to all lines without.")
        if not self.template.names:
            return self.template.filled({})
        pictures = [*values.get("images", ()), *(values[name] for name in CLIP_FIELDS if name in values)]
        of_picture = values_of_picture(pictures[0]) if pictures else {}
        return self.template.filled({**of_picture, **values, **columns_of(values)})

    @cached_property
    def template(self) -> PromptTemplate:
        """The prompt of lines that have none, with its places."""
        return PromptTemplate(self.prompt or "")

    def is_bound(self, question: Question) -> bool:
        """Return whether the answer of a line is bound to a form."""
        return bool(self.form) or any(question.options.get(name) for name in FORMS)

    def hash_of(self, line: Line) -> str:
        """Return the hash of a line's record: half of it of the line, half of all else that decides its answer.

        That is the model, the prompt, the system message and every option of question and sampling. How the model is
        run (context, threads, KV type) is no part of it.
        """
        return self.asked(line)[1]

    def asked(self, line: Line) -> tuple[Question | None, str]:
        """Return the question of a line as it is written, None if it is none, and the hash of its record."""
        try:
            question = self.as_written(line)
        except InvalidRequestError:
            return None, f"{line.digest}{_NOT_ASKED}"
        return question, self._hash(line, question)

    def _hash(self, line: Line, question: Question) -> str:
        clips = deciding(question.images, wishes_of(line.fields, self.wishes))
        given = {name: value for name, value in question.options.items() if value is not None}
        has_form = not FORMS.isdisjoint(given)
        form = {name: value for name, value in self.form.items() if not (has_form and name in FORMS)}
        decides = {
            **self.pictures,
            **form,
            **given,
            "sampling": vars(given["sampling"]),
            "prompt": question.prompt,
            "system": self.system if question.system is None else question.system,
            "model": self.model,
            "encoder": self.encoder,
            **({"clips": clips} if clips else {}),
        }
        return line.digest + digest_of(json.dumps(decides, sort_keys=True).encode())


def columns_of(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a line has for the prompt and its record only.

    Raises:
        InvalidRequestError: its `columns` are no object.
    """
    columns = values.get("columns") or {}
    if not isinstance(columns, Mapping):
        raise InvalidRequestError(f"columns is {json.dumps(columns)[:80]}.", 'Give an object, as {"label": "cat"}.')
    return columns


def _in_place(image: Any) -> Any:
    """Return a picture of a line; one within a container is read where it lies."""
    return ContainedPicture(image) if isinstance(image, str) and split_contained(image) else image


def _known_judge(name: str, of_all: str) -> str:
    """Return the judge of a line, checked: critics are large, so that a batch has one.

    Raises:
        InvalidRequestError: it is another critic than the one of all lines.
    """
    if name in JudgeName.choices:
        return name
    known = dict.fromkeys((*JudgeName.choices, of_all))
    raise InvalidRequestError(
        f"judge is {json.dumps(name)[:80]}.",
        f"Give {', '.join(known)}; --judge MODEL loads a critic, which then every line may name.",
    )


def _checked(name: str, value: Any) -> Any:
    kind, is_optional = FIELDS[name]
    if value is None and is_optional:
        return None
    try:
        return kind.accept(name, value)
    except InvalidRequestError:
        raise InvalidRequestError(f"{name} is {json.dumps(value)[:80]}.", f"Give {kind.written}.") from None
