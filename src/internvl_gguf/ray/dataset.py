"""A dataset of Ray Data with the answers to one question about each of its pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from internvl_gguf.bulk.template import PromptTemplate, values_of_picture
from internvl_gguf.errors import InternVLError, InvalidRequestError
from internvl_gguf.ray.cluster import actors_of, library
from internvl_gguf.types import Question, Reply, plain

if TYPE_CHECKING:
    import numpy as np
    import ray.data

    from internvl_gguf.session.batch import Outcome

BATCH_SIZE: Final = 64
"""Rows that an actor gets at a time. At the end of each its model is not fully used, as fewer questions are left than
it answers at once; a machine that is lost takes as many answers with it."""
N_PARALLEL: Final = 4

_JSON: Final = ("boxes", "parsed")
_PATHS: Final = ("path", "file_name", "image_path")

Columns = dict[str, Any]


def answer(
    dataset: ray.data.Dataset,
    model: str,
    mmproj: str | None = None,
    *,
    prompt: str | None = None,
    prompt_column: str | None = None,
    image_column: str | None = "image",
    schema: Any = None,
    system: str | None = None,
    concurrency: int | None = None,
    num_gpus: float | None = None,
    batch_size: int = BATCH_SIZE,
    asked: Mapping[str, Any] | None = None,
    **opening: Any,
) -> ray.data.Dataset:
    """Return a dataset with what a model answers about each row; nothing is computed before it is consumed.

    Columns that it adds: `answer`; with a schema `parsed` (JSON), and the fields of a JSON schema's object as
    `parsed_NAME`; `boxes` (JSON), `confidence`, `finish_reason`, `prompt_tokens`, `completion_tokens`, `tiles`, and
    `error`: what is wrong with the row where it has no answer, and nothing else is lost by it. A column of the dataset
    that is called as one of these is replaced.

    Each actor loads the model once. A name is fetched once on each machine that has no copy. If llama.cpp ends on a
    row, the model is loaded again and the row is tried once more; a machine that is lost has its rows asked elsewhere.

    Args:
        dataset: rows with a picture each, as `ray.data.read_images` and `read_parquet` give them.
        model, mmproj: as for `Session.open`: a name, or paths that every machine has.
        prompt: the question, with places for columns: `Is it a {label}?`.
        prompt_column: the column of the questions instead.
        image_column: the column of the pictures: arrays [height, width, 3 or 4] uint8, bytes of files, paths, or
            objects {bytes, path}; None for questions without a picture.
        schema: what the answers have to be, as for `Session.ask`: a JSON schema, or a pydantic model.
        system: the system message; None for the official one.
        concurrency: how many actors; None for one for each GPU, or each machine where there is none.
        num_gpus: GPUs of each actor; None for 1 where the cluster has GPUs.
        batch_size: rows that an actor gets at a time.
        asked: other options of `Session.ask`, as `max_tokens`.
        opening: other arguments of `Session.open`, as `n_parallel` (4 if left out), `n_ctx`, `max_tiles`, `n_threads`.

    Raises:
        InvalidRequestError: Ray is not installed, a column that is not there, or options that cannot be used.
    """
    library()
    if (prompt is None) == (prompt_column is None):
        raise InvalidRequestError("There has to be one question for each row.", "Give prompt= or prompt_column=.")
    if batch_size < 1:
        raise InvalidRequestError(f"batch_size is {batch_size}.", "Give a number of rows, 1 or more.")
    columns = dataset.columns() or []
    for name, argument in ((image_column, "image_column"), (prompt_column, "prompt_column")):
        if name is not None and name not in columns:
            raise InvalidRequestError(
                f"The dataset has no column {name}; its columns are {', '.join(columns)}.", f"Name one as {argument}=."
            )
    of_picture = ("name", "path", "stem", "folder") if _path_column(columns, image_column) else ()
    PromptTemplate(prompt or "").check((*columns, *of_picture))
    rows = Rows(prompt, prompt_column, image_column, tuple(columns), _fields_of(schema))
    options = {**(asked or {}), **({} if schema is None else {"schema": schema})}
    job = {"system": system, "n_parallel": N_PARALLEL, **opening}
    return dataset.map_batches(
        RowAnswerer,
        fn_constructor_args=(model, mmproj, rows, options, job),
        batch_size=batch_size,
        batch_format="numpy",
        **actors_of(concurrency, num_gpus).options,
    )


@dataclass(frozen=True)
class Rows:
    """How rows are asked about, and what becomes of their answers.

    Attributes:
        prompt: the question of all; None if each has its own.
        prompt_column: the column of the questions.
        image_column: the column of the pictures; None for none.
        columns: all columns.
        fields: the fields of a JSON schema's object.
    """

    prompt: str | None
    prompt_column: str | None
    image_column: str | None
    columns: tuple[str, ...]
    fields: tuple[str, ...] = ()
    _template: PromptTemplate = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_template", PromptTemplate(self.prompt or ""))

    def questions(self, batch: Mapping[str, np.ndarray[Any, Any]]) -> Iterator[Question | InternVLError]:
        """Yield the question of each row, or why there is none."""
        count = len(next(iter(batch.values()), ()))
        for row in range(count):
            values = {name: column[row] for name, column in batch.items()}
            try:
                images = self._images_of(values)
                yield Question(self._prompt_of(values), images)
            except InternVLError as error:
                yield error

    def _prompt_of(self, values: Mapping[str, Any]) -> str:
        if self.prompt_column is not None:
            return str(values[self.prompt_column])
        path = _path_column(self.columns, self.image_column)
        of_picture = values_of_picture(values[path]) if path else {}
        return self._template.filled({**of_picture, **{name: _scalar(value) for name, value in values.items()}})

    def _images_of(self, values: Mapping[str, Any]) -> list[Any]:
        if self.image_column is None:
            return []
        image = values[self.image_column]
        if isinstance(image, Mapping):
            image = image.get("bytes") or image.get("path")
        if image is None:
            raise InvalidRequestError(f"The row has no picture in the column {self.image_column}.", "Leave it out.")
        return [image]

    def added(self, outcomes: list[Outcome]) -> Columns:
        """Return the columns of the answers."""
        import numpy as np

        rows = [self._row(outcome) for outcome in outcomes]
        texts = ("answer", *_JSON, "finish_reason", "error", *(f"parsed_{name}" for name in self.fields))
        found: Columns = {name: np.array([row.get(name, "") for row in rows], dtype=object) for name in texts}
        for name in ("prompt_tokens", "completion_tokens", "tiles"):
            found[name] = np.array([row.get(name, 0) for row in rows], dtype=np.int64)
        found["confidence"] = np.array([row.get("confidence", np.nan) for row in rows], dtype=np.float64)
        return found

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        if not isinstance(outcome, Reply):
            return {"error": str(outcome)}
        parsed, usage = plain(outcome.parsed), outcome.usage
        boxes = [box.to_dict() for box in outcome.boxes]
        row: dict[str, Any] = {
            "answer": outcome.text,
            "parsed": "" if parsed is None else _json(parsed),
            "boxes": _json(boxes) if boxes else "",
            "finish_reason": outcome.finish_reason,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "tiles": usage.tiles,
        }
        if outcome.confidence is not None:
            row["confidence"] = outcome.confidence
        if isinstance(parsed, Mapping):
            values = {name: parsed.get(name) for name in self.fields}
            row |= {
                f"parsed_{name}": "" if value is None else value if isinstance(value, str) else _json(value)
                for name, value in values.items()
            }
        return row


class RowAnswerer:
    """The class of Ray's actors: a loaded model that answers batches of rows.

    Args:
        model, mmproj: files or names.
        rows: how rows are asked about.
        asked: options of every question.
        opening: other arguments of `Session.open`.
    """

    def __init__(
        self, model: str, mmproj: str | None, rows: Rows, asked: Mapping[str, Any], opening: Mapping[str, Any]
    ) -> None:
        from internvl_gguf.session import Session

        self._rows, self._asked = rows, asked
        self._session = Session.open(model, mmproj, worker=True, **opening)

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> Columns:
        """Return a batch with the columns of the answers."""
        outcomes: list[Outcome | None] = []
        places: list[int] = []
        questions: list[Question] = []
        for place, question in enumerate(self._rows.questions(batch)):
            outcomes.append(question if isinstance(question, InternVLError) else None)
            if isinstance(question, Question):
                places.append(place)
                questions.append(question)
        for place, outcome in zip(places, self._session.batch(questions, **self._asked), strict=True):
            outcomes[place] = outcome
        return {**batch, **self._rows.added(cast("list[Outcome]", outcomes))}


def _path_column(columns: tuple[str, ...] | list[str], image_column: str | None) -> str | None:
    """Return the column that tells the paths of the pictures; None if none does."""
    return next((name for name in (*_PATHS, *([image_column] if image_column else [])) if name in columns), None)


def _fields_of(schema: Any) -> tuple[str, ...]:
    """Return the names of the properties of a JSON schema's object, or of a pydantic model's."""
    described = schema.model_json_schema() if hasattr(schema, "model_json_schema") else schema
    properties = described.get("properties") if isinstance(described, Mapping) else None
    return tuple(properties) if isinstance(properties, Mapping) else ()


def _scalar(value: Any) -> Any:
    """Return the value of a cell as Python has it, not numpy."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
