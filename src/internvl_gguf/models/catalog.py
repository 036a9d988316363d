"""The models this package knows by name: the shipped models.toml, merged with the user's own file.

The head of models.toml describes the format. Reading it needs neither the network nor any library beyond the standard
library, so names can be looked up on a machine where nothing else is installed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast, get_args

from internvl_gguf.errors import CatalogError, InvalidRequestError
from internvl_gguf.gguf.arch.base import Norm, TextShape, VisionShape
from internvl_gguf.gguf.size_names import TEXT_NAMES, VISION_NAMES, published_text, published_vision
from internvl_gguf.models.toml_tables import Document, KeyPath, Table, shown_path
from internvl_gguf.utils.paths import config_dir
from internvl_gguf.utils.sizes import parse_size

Status = Literal["listed", "documented", "named", "none"]

FILE_NAME = "models.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_RESERVED = "demo"


@dataclass(frozen=True)
class CatalogFile:
    """A file of a repository.

    Attributes:
        name: its path inside the repository, with forward slashes.
        size: bytes.
        exact: whether the size is exact; else a web page rounded it.
    """

    name: str
    size: int
    exact: bool


@dataclass(frozen=True)
class ModelSpec:
    """Facts about a model that are known without the network.

    Attributes:
        name: its name.
        aliases: other spellings of it.
        repo: the GGUF repository, owner/name; None if `status` is "none".
        other_repos: further repositories of the same weights, not listed here.
        revision: commit or branch of `repo`.
        status: how much is known of `repo`: "listed" (`files` is its whole listing), "documented" (llama.cpp's docs
            name it), "named" (others name it; it may be gone) or "none" (no repository is known).
        licence: as the model's page states it; None if unknown.
        parameters: number of weights, vision part included, to two or three digits; None if unknown.
        unsupported: why this package cannot run it; None if it can.
        text: shape of the text model; None if unknown.
        vision: shape of the vision encoder; None if unknown.
        files: the listing of `repo` at `revision`; empty unless `status` is "listed".
        origin: the file this entry was read from.
    """

    name: str
    aliases: tuple[str, ...] = ()
    repo: str | None = None
    other_repos: tuple[str, ...] = ()
    revision: str = "main"
    status: Status = "none"
    licence: str | None = None
    parameters: int | None = None
    unsupported: str | None = None
    text: TextShape | None = None
    vision: VisionShape | None = None
    files: tuple[CatalogFile, ...] = ()
    origin: str = field(default="", compare=False)

    @property
    def spellings(self) -> tuple[str, ...]:
        """The name and its aliases."""
        return (self.name, *self.aliases)

    def as_json(self) -> dict[str, Any]:
        """What `internvl list --catalog --json` says of it."""
        shown = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "origin"}
        shown["text"] = self.text and published_text(self.text)
        shown["vision"] = self.vision and published_vision(self.vision)
        return shown | {"files": [asdict(file) for file in self.files]}


@dataclass(frozen=True)
class Catalog:
    """Models in the order of their file, found by name or alias."""

    models: tuple[ModelSpec, ...]

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def find(self, name: str) -> ModelSpec | None:
        """Return the model of this name or alias, in any case; None if there is none."""
        wanted = _fold(name)
        return next((model for model in self.models if wanted in map(_fold, model.spellings)), None)

    def nearest(self, name: str) -> list[str]:
        """Return names of up to three models that run here and look like `name`, the likeliest first."""
        usable = [model for model in self.models if not model.unsupported]
        owners = {_fold(spelling): model.name for model in usable for spelling in model.spellings}
        close = difflib.get_close_matches(_fold(name), owners, n=6, cutoff=0.6)
        return list(dict.fromkeys(owners[spelling] for spelling in close))[:3]


def load_catalog() -> Catalog:
    """Return the shipped models merged with the user's, which replace those of the same name or come after them.

    Raises:
        CatalogError: a file that cannot be read or holds a mistake; it names the file and the place.
    """
    shipped = parse_catalog(*_shipped())
    user_file = config_dir() / FILE_NAME
    try:
        user_data = user_file.read_bytes()
    except FileNotFoundError:
        return Catalog(shipped)
    except OSError as error:
        raise CatalogError(
            f"{user_file} cannot be read: {error.strerror or error}.",
            "Make it a readable file, or move it away to use the shipped catalogue alone.",
            file=str(user_file),
        ) from error
    return _merge(shipped, Document(user_data, str(user_file)))


def parse_catalog(data: bytes, origin: str) -> tuple[ModelSpec, ...]:
    """Return the models of one catalogue file, in order.

    Args:
        data: content of the file.
        origin: name of the file in errors.

    Raises:
        CatalogError: not UTF-8, not TOML, or an invalid entry; it names the place.
    """
    return _models(Document(data, origin))


def _shipped() -> tuple[bytes, str]:
    """Return content and path of the shipped file: in the package, or at the top of the repository in a checkout."""
    packaged = resources.files("internvl_gguf") / FILE_NAME
    checkout = Path(__file__).resolve().parents[3] / FILE_NAME
    for place in (packaged, checkout):
        if place.is_file():
            return place.read_bytes(), str(place)
    raise CatalogError(
        f"The catalogue {FILE_NAME} is missing from this installation.",
        "Install internvl-gguf again.",
        file=str(packaged),
    )


def _merge(shipped: tuple[ModelSpec, ...], document: Document) -> Catalog:
    user_models = {_fold(model.name): model for model in _models(document)}
    places = {_fold(model.name): model for model in shipped}
    _forbid_aliases_of_other_models(user_models.values(), places.keys() - user_models.keys(), document)
    taken = {_fold(spelling) for model in user_models.values() for spelling in model.spellings}
    kept = {name: _without_aliases(model, taken) for name, model in places.items()}
    # A dictionary keeps the place of a key whose value is replaced.
    return Catalog(tuple((kept | user_models).values()))


def _without_aliases(model: ModelSpec, taken: set[str]) -> ModelSpec:
    """Return a shipped model without the spellings that the user chose for other models."""
    return replace(model, aliases=tuple(alias for alias in model.aliases if _fold(alias) not in taken))


def _forbid_aliases_of_other_models(user_models: Iterable[ModelSpec], names: set[str], document: Document) -> None:
    """Refuse an alias that is a shipped model's name: that model would become unreachable."""
    for index, model in enumerate(user_models):
        for place, alias in enumerate(model.aliases):
            if _fold(alias) in names:
                raise document.error(
                    ("model", index, "aliases", place),
                    f"the alias {alias!r} is the name of a shipped model",
                    "Take another alias, or give the entry that name to replace the shipped model.",
                )


def _fold(spelling: str) -> str:
    return spelling.strip().casefold()


_TOP_KEYS = ("model",)
_MODEL_KEYS = (
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
    "files",
)
_OPTIONAL_TEXT_KEYS = ("vocab", "context", "head_width", "experts", "experts_used", "expert_ffn")
_FILE_KEYS = ("name", "bytes", "listed")


def _models(document: Document) -> tuple[ModelSpec, ...]:
    top = Table(document, (), document.content, _TOP_KEYS)
    if isinstance(document.content.get("model"), dict):
        raise document.error(("model",), "[model] is one table, not a list of them", "Write [[model]].")
    models = tuple(_model(table, document.origin) for table in top.tables("model", _MODEL_KEYS))
    _forbid_duplicates(models, document)
    return models


def _model(table: Table, origin: str) -> ModelSpec:
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
        text=_text_shape(table.table("text", tuple(TEXT_NAMES))),
        vision=_vision_shape(table.table("vision", tuple(VISION_NAMES))),
        files=_files(table),
        status=_status(table),  # after the rest: what contradicts it may be a mistake in another key
        origin=origin,
    )


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
    usable = _NAME.fullmatch(value) and _fold(value) != _RESERVED and not value.lower().endswith(".gguf")
    if not usable:
        raise table.error(
            f"{value!r} cannot be the name of a model",
            f"Use letters, digits, '.', '-' and '_'; not {_RESERVED!r}, and no name of a .gguf file.",
            *keys,
        )
    return value


def _repo(table: Table, value: str, *keys: str | int) -> str:
    if not _REPO.fullmatch(value):
        raise table.error(f"{value!r} is not a repository", "Write owner/name, as the hub does.", *keys)
    return value


def _text_shape(table: Table | None) -> TextShape | None:
    if table is None:
        return None
    table.require(*(key for key in TEXT_NAMES if key not in _OPTIONAL_TEXT_KEYS))
    fields_by_key = {key: field for key, field in TEXT_NAMES.items() if key != "architecture" and key in table}
    numbers: dict[str, Any] = {field: table.number(key) for key, field in fields_by_key.items()}
    return TextShape(architecture=cast(str, table.text("architecture")), **numbers)


def _vision_shape(table: Table | None) -> VisionShape | None:
    if table is None:
        return None
    table.require(*VISION_NAMES)
    numbers: dict[str, Any] = {field: table.number(key) for key, field in VISION_NAMES.items() if key != "norm"}
    return VisionShape(**numbers, norm=cast(Norm, table.choice("norm", get_args(Norm))))


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
            first = seen.setdefault(_fold(spelling), path)
            if first != path:
                raise document.error(
                    path,
                    f"{spelling!r} is already a name, at {shown_path(first)}",
                    "Give each model its own name and aliases; upper and lower case are the same.",
                )
