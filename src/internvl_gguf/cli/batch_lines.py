"""The lines of `internvl ask --batch`: read questions, write records."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Final

from internvl_gguf.cli.batch_clips import (
    CLIP_FIELDS,
    WISH_FIELDS,
    ClipOptionsError,
    clips_of,
    deciding,
    wishes_of,
    with_clips,
)
from internvl_gguf.cli.clip_options import ClipWishes
from internvl_gguf.cli.parameters import VALUE, in_flags
from internvl_gguf.config import FORMS, EngineConfig, FormOptions, PictureOptions, SamplingParams
from internvl_gguf.errors import InternVLError, InvalidRequestError
from internvl_gguf.types import Question, Reply, Video
from internvl_gguf.utils.foreign_names import QUESTION
from internvl_gguf.utils.json_words import in_json
from internvl_gguf.utils.kinds import JudgeName, Kind, Switch, Texts
from internvl_gguf.utils.options import options_of
from internvl_gguf.utils.text_data import decode_text

_SAMPLING: Final = options_of(SamplingParams)
_PICTURES: Final = options_of(PictureOptions)
_FIELDS: Final[dict[str, tuple[Kind, bool]]] = {
    "prompt": (Kind(), False),
    "images": (Texts("a list of paths", takes_one=True), False),
    "system": (Kind(), False),
    **dict.fromkeys(("regex", "grammar", "tool_choice"), (Kind(), True)),
    **dict.fromkeys(("boxes", "format_in_prompt", "parallel_tool_calls"), (Switch(), True)),
    **{name: (each.kind, each.is_optional) for name, each in {**_PICTURES, **_SAMPLING}.items()},
}
"""What each field of a line must be, and whether null is one; `id` may be anything."""

_FORM: Final = tuple(name for name in FormOptions.__annotations__ if name != "answer_format")
"""Fields that say what the answer has to be like, and its tools; the session checks their values when it asks."""

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
_ASSIGNED: Final = re.compile(rf"\b({'|'.join((*_FIELDS, *_FORM))})=({VALUE})?")

DIGEST_LENGTH: Final = 16
"""Characters of each half of a hash."""
_NOT_ASKED: Final = "0" * DIGEST_LENGTH
"""The second half of the hash of a line that is no question."""


@dataclass(frozen=True)
class Line:
    """A line of the input that is not blank.

    Attributes:
        number: from 1, blank lines counted.
        data: its bytes, without the end of the line.
    """

    number: int
    data: bytes

    @property
    def digest(self) -> str:
        """Digest of the line, by which it is found again at another place."""
        return _digest(self.data)

    @property
    def fields(self) -> dict[str, Any]:
        """Return the JSON object of the line.

        Raises:
            InvalidRequestError: it is none.
        """
        try:
            value = json.loads(decode_text(self.data, "The line"))
        except InvalidRequestError:
            raise
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise InvalidRequestError(f"The line is not JSON: {reason}.", self._example) from error
        if not isinstance(value, dict):
            raise InvalidRequestError("The line is no JSON object.", _EXAMPLE)
        return value

    @property
    def known_fields(self) -> dict[str, Any]:
        """Return the JSON object of the line; an empty one if it is none."""
        try:
            return self.fields
        except InvalidRequestError:
            return {}

    @property
    def _example(self) -> str:
        """How to write the line; one that is the path of a picture is named in it."""
        text = self.data.decode("utf-8", "replace").strip()
        if len(text) > _LONGEST_PATH or text[:1] in '{["' or not _PICTURE_NAME.search(text):
            return _EXAMPLE
        written = json.dumps({"prompt": "What is it?", "images": [text]}, ensure_ascii=False)
        return f"A path alone is no question: write {written}."


_LONGEST_PATH: Final = 300
_PICTURE_NAME: Final = re.compile(
    r"\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic|mp4|m4v|mov|mkv|webm|avi)$", re.IGNORECASE
)
_EXAMPLE: Final = 'Write one object a line, as {"prompt": "What is it?", "images": ["photo.jpg"]}.'


def read_lines(file: Iterable[bytes]) -> Iterator[Line]:
    """Return the lines of a file that are not blank."""
    for number, data in enumerate(file, 1):
        if data.strip():
            yield Line(number, data.rstrip(b"\r\n"))


@dataclass(frozen=True)
class Common:
    """What all lines of a batch have in common, where a line does not say otherwise.

    Attributes:
        model: the model's name in the records: that of its file, which has the quant.
        encoder: name of the vision encoder's file.
        sampling: how tokens are chosen.
        pictures: how pictures are cut; fields of `PictureOptions`.
        form: what an answer has to be like, as it was given; fields of `FormOptions`.
        system: the system message; None for the official one.
        prompt: the question of lines that have none; None for an error.
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
        question, values = self._written(line), line.fields
        images = with_clips(question.images, wishes_of(values, self.wishes))
        for name in WISH_FIELDS:
            if values.get(name) is not None and not any(isinstance(each, Video) for each in images):
                raise ClipOptionsError(f"{name} goes with a clip only.", 'Name one, as "video": "clip.mp4".')
        return replace(question, images=images)

    def _written(self, line: Line) -> Question:
        """Return the question of a line as it is written: all its `images` are pictures. Raises as `question_of`."""
        values = line.fields
        known = tuple(dict.fromkeys(("id", "prompt", "images", *CLIP_FIELDS, *WISH_FIELDS, *_FIELDS, *_FORM)))
        for name, value in values.items():
            if name not in known:
                raise _NAMES.unknown(name, known, "field")
            if name in _FIELDS:
                values[name] = _checked(name, value)
        prompt = values.get("prompt", self.prompt)
        if prompt is None:
            raise InvalidRequestError("The line has no prompt.", f"{_EXAMPLE} -p gives one to all lines without.")
        options: dict[str, Any] = {name: values[name] for name in (*_PICTURES, *_FORM) if name in values}
        chosen = {name: values[name] for name in _SAMPLING if name in values}
        options["sampling"] = self.sampling.changed(chosen)
        if "judge" in chosen and chosen["judge"] != self.sampling.judge:
            options["judge"] = _known_judge(chosen["judge"], self.sampling.judge)
        images = (*values.get("images", ()), *clips_of(values, wishes_of(values, self.wishes)))
        return Question(prompt, images, options, values.get("system"))

    def is_bound(self, question: Question) -> bool:
        """Return whether the answer of a line is bound to a form."""
        return bool(self.form) or any(question.options.get(name) for name in FORMS)

    def hash_of(self, line: Line) -> str:
        """Return the hash of a line's record: half of it of the line, half of all else that decides its answer.

        That is the model, the prompt, the system message and every option of question and sampling. How the model is
        run (context, threads, KV type) is no part of it.
        """
        try:
            question = self._written(line)
        except InvalidRequestError:
            return f"{line.digest}{_NOT_ASKED}"
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
        return line.digest + _digest(json.dumps(decides, sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=DIGEST_LENGTH // 2).hexdigest()


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
    kind, is_optional = _FIELDS[name]
    if value is None and is_optional:
        return None
    try:
        return kind.accept(name, value)
    except InvalidRequestError:
        raise InvalidRequestError(f"{name} is {json.dumps(value)[:80]}.", f"Give {kind.written}.") from None


def in_fields(text: str) -> str:
    """Return a message as the lines of a batch say it: their fields as JSON has them, options of the model by flags.

    `choices=["red"]` becomes `"choices": ["red"]`.
    """

    def field_of(found: re.Match[str]) -> str:
        name, value = found.groups()
        with contextlib.suppress(ValueError, SyntaxError, TypeError):  # an ellipsis, or a name of Python
            return f'"{name}"' if value is None else f'"{name}": {json.dumps(ast.literal_eval(value))}'
        return found[0]

    return in_flags(_ASSIGNED.sub(field_of, in_json(text)), EngineConfig)


def record_of(line: Line, outcome: Reply | InternVLError, common: Common) -> dict[str, Any]:
    """Return the record of a line: what it is known by, its pictures as given, the model, and its answer or error."""
    given = line.known_fields
    known = {name: given[name] for name in ("id",) if name in given}
    for name in ("images", *CLIP_FIELDS):
        if name in given:
            known[name] = _without_data(given[name])
    answer = outcome.to_dict()
    if isinstance(outcome, InternVLError):
        answer = {name: in_fields(said) for name, said in answer.items()}
    return {
        "line": line.number,
        **known,
        "model": common.model,
        **answer,
        "hash": common.hash_of(line),
    }


def _without_data(images: Any) -> Any:
    """Return pictures as they were given, but data URIs without their data."""
    if isinstance(images, list):
        return [_without_data(image) for image in images]
    if isinstance(images, dict):
        return {name: _without_data(value) for name, value in images.items()}
    is_data = isinstance(images, str) and images[:5].lower() == "data:"
    return f"{images.partition(',')[0]},..." if is_data else images


def as_line(record: dict[str, Any]) -> bytes:
    """Return a record as it is written: one line of JSON."""
    # Half a surrogate pair, which JSON may hold and UTF-8 may not, stays the escape that it came as.
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class RecordWriter:
    """Writes records in the order of their places, each as soon as those before it are written.

    Args:
        file: gets one line for each record, flushed.
        in_order: False writes each record at once, so that a crash takes none with it that waits for an earlier one.
    """

    def __init__(self, file: BinaryIO, *, in_order: bool = True) -> None:
        self._file = file
        self._in_order = in_order
        self._next = 0
        self._held: dict[int, bytes] = {}

    def put(self, place: int, record: dict[str, Any]) -> None:
        """Add the record of a place; places count from 0 without gaps."""
        if not self._in_order:
            self._write(as_line(record))
            return
        self._held[place] = as_line(record)
        while (data := self._held.pop(self._next, None)) is not None:
            self._next += 1
            self._write(data)

    def close(self) -> None:
        """Write the records that still wait for earlier ones, because the run ended before those came."""
        for place in sorted(self._held):
            self._write(self._held[place])
        self._held.clear()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
