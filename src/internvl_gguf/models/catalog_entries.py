"""Read the entries of a catalogue file. The head of models.toml describes the format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast, get_args

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.arch.base import Norm, TextShape, VisionShape
from internvl_gguf.gguf.size_names import TEXT_NAMES, VISION_NAMES
from internvl_gguf.models.model_spec import CatalogFile, ModelSpec, Status
from internvl_gguf.models.published_scores import BENCHMARKS, PublishedScores
from internvl_gguf.models.spellings import folded
from internvl_gguf.models.toml_tables import Document, KeyPath, Table, shown_path
from internvl_gguf.utils.sizes import parse_size

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REPO: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_RESERVED: Final = ("demo", "demo-critic")

_TOP_KEYS: Final = ("text", "vision", "model", "critics")
_MODEL_KEYS: Final = (
    "name",
    "aliases",
    "repo",
    "other_repos",
    "revision",
    "status",
    "licence",
    "parameters",
    "unsupported",
    "text",
    "vision",
    "scores",
    "scores_of",
    "files",
)
_TEXT_KEYS: Final = tuple(TEXT_NAMES)
_VISION_KEYS: Final = tuple(VISION_NAMES)
_OPTIONAL_TEXT_KEYS: Final = ("vocab", "context", "head_width", "experts", "experts_used", "expert_ffn")
_SCORE_KEYS: Final = ("source", *BENCHMARKS)
_FILE_KEYS: Final = ("name", "bytes", "listed")

_Shape = TypeVar("_Shape", TextShape, VisionShape)


@dataclass(frozen=True)
class NamedShapes:
    """Shapes that entries may name.

    Attributes:
        text, vision: shapes of text models and of vision encoders by name.
    """

    text: Mapping[str, TextShape] = field(default_factory=dict)
    vision: Mapping[str, VisionShape] = field(default_factory=dict)


def read_entries(document: Document, known: NamedShapes) -> tuple[tuple[ModelSpec, ...], NamedShapes]:
    """Return the models of a file in order, and the shapes that it and `known` have.

    Raises:
        CatalogError: an invalid entry; it names the place.
    """
    top = Table(document, (), document.content, _TOP_KEYS)
    if isinstance(document.content.get("model"), dict):
        raise document.error(("model",), "[model] is one table, not a list of them", "Write [[model]].")
    texts = {name: _text_shape(table) for name, table in top.named_tables("text", _TEXT_KEYS).items()}
    visions = {name: _vision_shape(table) for name, table in top.named_tables("vision", _VISION_KEYS).items()}
    shapes = NamedShapes({**known.text, **texts}, {**known.vision, **visions})
    models = tuple(_model(table, shapes, document.origin) for table in top.tables("model", _MODEL_KEYS))
    _forbid_duplicates(models, document)
    return models, shapes


def _model(table: Table, shapes: NamedShapes, origin: str) -> ModelSpec:
    table.require("name")
    return ModelSpec(
        name=_spelling(table, cast(str, table.text("name")), "name"),
        aliases=tuple(_spelling(table, alias, "aliases", at) for at, alias in enumerate(table.texts("aliases"))),
        repo=None if (repo := table.text("repo")) is None else _repo(table, repo, "repo"),
        other_repos=tuple(_repo(table, repo, "other_repos", at) for at, repo in enumerate(table.texts("other_repos"))),
        revision=table.text("revision") or "main",
        licence=table.text("licence"),
        parameters=table.number("parameters"),
        unsupported=table.text("unsupported"),
        text=_shape(table, "text", shapes.text, _TEXT_KEYS, _text_shape),
        vision=_shape(table, "vision", shapes.vision, _VISION_KEYS, _vision_shape),
        scores=_scores(table.table("scores", _SCORE_KEYS)),
        scores_of=table.text("scores_of"),
        files=_files(table),
        status=_status(table),  # after the rest: what contradicts it may be a mistake in another key
        origin=origin,
    )


def _shape(
    table: Table, key: str, named: Mapping[str, _Shape], keys: tuple[str, ...], read: Callable[[Table], _Shape]
) -> _Shape | None:
    """Return the shape that an entry holds or names; None if it does neither."""
    if not table.is_text(key):
        own = table.table(key, keys)
        return None if own is None else read(own)
    name = cast(str, table.text(key))
    if name not in named:
        raise table.error(f"there is no shape {name!r}", f"Known shapes: {', '.join(named) or 'none'}.", key)
    return named[name]


def _status(table: Table) -> Status:
    """Return the given status, or the one that the other keys imply; refuse a contradiction."""
    has_files = bool(table.items("files"))
    implied = "listed" if has_files else "named" if "repo" in table else "none"
    status = cast(Status, table.choice("status", get_args(Status)) or implied)
    if status != "none":
        table.require("repo")
    elif "repo" in table:
        raise table.error('a repo is given, but status is "none"', 'Use status "named", or take repo out.', "status")
    if has_files and status != "listed":
        raise table.error(f"files are listed, but status is {status!r}", 'Use status "listed".', "status")
    if status == "listed" and not has_files:
        raise table.error('status is "listed", but there are no files', "Add files, or leave status out.", "status")
    return status


def _spelling(table: Table, value: str, *keys: str | int) -> str:
    usable = _NAME.fullmatch(value) and folded(value) not in _RESERVED and not value.lower().endswith(".gguf")
    if not usable:
        raise table.error(
            f"{value!r} cannot be the name of a model",
            f"Use letters, digits, '.', '-' and '_'; not {' or '.join(map(repr, _RESERVED))}, and no .gguf file.",
            *keys,
        )
    return value


def _repo(table: Table, value: str, *keys: str | int) -> str:
    if not _REPO.fullmatch(value):
        raise table.error(f"{value!r} is not a repository", "Write owner/name, as the hub does.", *keys)
    return value


def _text_shape(table: Table) -> TextShape:
    table.require(*(key for key in _TEXT_KEYS if key not in _OPTIONAL_TEXT_KEYS))
    fields_by_key = {key: field for key, field in TEXT_NAMES.items() if key != "architecture" and key in table}
    numbers: dict[str, Any] = {field: table.number(key) for key, field in fields_by_key.items()}
    return TextShape(architecture=cast(str, table.text("architecture")), **numbers)


def _vision_shape(table: Table) -> VisionShape:
    table.require(*_VISION_KEYS)
    numbers: dict[str, Any] = {field: table.number(key) for key, field in VISION_NAMES.items() if key != "norm"}
    return VisionShape(**numbers, norm=cast(Norm, table.choice("norm", get_args(Norm))))


def _scores(table: Table | None) -> PublishedScores | None:
    if table is None:
        return None
    table.require("source")
    figures = {key: table.decimal(key, BENCHMARKS[key].full) for key in BENCHMARKS if key in table}
    return PublishedScores(cast(str, table.text("source")), figures)


def _files(table: Table) -> tuple[CatalogFile, ...]:
    files: dict[str, CatalogFile] = {}
    for entry in table.tables("files", _FILE_KEYS):
        file = _file(entry)
        if file.name in files:
            raise entry.error(f"the file {file.name!r} stands here twice", "Take one of the two out.", "name")
        files[file.name] = file
    return tuple(files.values())


def _file(table: Table) -> CatalogFile:
    table.require("name")
    name = cast(str, table.text("name"))
    # The name decides where a download lands: it must not lead out of its folder.
    if not name.lower().endswith(".gguf") or "\\" in name or {"", ".", ".."} & set(name.split("/")):
        raise table.error(
            f"{name!r} is not the path of a .gguf file inside a repository", "Write it as the repository does.", "name"
        )
    if ("bytes" in table) == ("listed" in table):
        raise table.error(
            f"the size of {name!r} is {'given twice' if 'bytes' in table else 'missing'}",
            'Give bytes = 123456 where it is exact, or listed = "8.48 GiB" where it is rounded.',
        )
    exact = table.number("bytes")
    return CatalogFile(name, exact, True) if exact is not None else CatalogFile(name, _listed_size(table), False)


def _listed_size(table: Table) -> int:
    try:
        return parse_size(cast(str, table.text("listed")))
    except InvalidRequestError as error:
        raise table.error(error.message.removesuffix("."), error.hint, "listed") from error


def _forbid_duplicates(models: Iterable[ModelSpec], document: Document) -> None:
    seen: dict[str, KeyPath] = {}
    for index, model in enumerate(models):
        places: list[KeyPath] = [("name",), *(("aliases", place) for place in range(len(model.aliases)))]
        for spelling, place in zip(model.spellings, places, strict=True):
            path: KeyPath = ("model", index, *place)
            first = seen.setdefault(folded(spelling), path)
            if first != path:
                raise document.error(
                    path,
                    f"{spelling!r} is already a name, at {shown_path(first)}",
                    "Give each model its own name and aliases; upper and lower case are the same.",
                )
