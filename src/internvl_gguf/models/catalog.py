"""The models this package knows by name: the shipped models.toml, merged with the user's own file.

The head of models.toml describes the format. Reading it needs neither the network nor any library beyond the standard
library, so names can be looked up on a machine where nothing else is installed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Final

from internvl_gguf.errors import CatalogError
from internvl_gguf.models.catalog_entries import NamedShapes, read_entries
from internvl_gguf.models.model_spec import ModelSpec
from internvl_gguf.models.published_scores import PublishedScores
from internvl_gguf.models.spellings import folded
from internvl_gguf.models.toml_tables import Document
from internvl_gguf.utils.paths import config_dir

FILE_NAME = "models.toml"
_SIZE: Final = re.compile(r"(\d*[1-9]\d*(?:\.\d+)?)b")  # a size that no model has, such as 7b


@dataclass(frozen=True)
class Catalog:
    """Models in the order of their file, found by name or alias."""

    models: tuple[ModelSpec, ...]

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def find(self, name: str) -> ModelSpec | None:
        """Return the model of this name or alias, in any spelling that `folded` knows; None if there is none."""
        wanted = folded(name)
        return next((model for model in self.models if wanted in map(folded, model.spellings)), None)

    def nearest(self, name: str) -> list[str]:
        """Return names of up to three models to fetch that run here and look like `name`, the likeliest first.

        For a size that there is none of, such as 7b, they are of the nearest sizes.
        """
        runs = [model for model in self.models if not model.unsupported]
        if size := _SIZE.fullmatch(_plain(name)):
            sized = [model for model in runs if model.repo and model.parameters]
            sized.sort(key=lambda model: abs(math.log((model.parameters or 1) / 1e9 / float(size[1]))))
            return [model.name for model in sized[:3]]
        owners = {_plain(spelling): model for model in runs for spelling in model.spellings}
        close = difflib.get_close_matches(_plain(name), owners, n=6, cutoff=0.6)
        found = [self._fetchable(owners[spelling]) for spelling in close]
        return list(dict.fromkeys(model.name for model in found if model))[:3]

    def _fetchable(self, model: ModelSpec) -> ModelSpec | None:
        """Return a model that can be fetched: this one, or one of its release and shape; None if there is none."""
        alike = (each for each in self.models if each.repo and not each.unsupported and each.is_like(model))
        return model if model.repo else next(alike, None)

    def scores(self, model: ModelSpec) -> tuple[str, PublishedScores] | None:
        """Return a model's published scores and the name of the model that they are of; None if none were seen.

        They are of another model where only the same model after more training was measured.
        """
        measured = model if model.scores or not model.scores_of else self.find(model.scores_of)
        return (measured.name, measured.scores) if measured and measured.scores else None


def load_catalog() -> Catalog:
    """Return the shipped models merged with the user's, which replace those of the same name or come after them.

    Raises:
        CatalogError: a file that cannot be read or holds a mistake; it names the file and the place.
    """
    shipped_file, *own_files = catalog_documents()
    shipped, shapes = read_entries(shipped_file, NamedShapes())
    for document in own_files:
        return _merge(shipped, read_entries(document, shapes)[0], document)
    return Catalog(shipped)


def catalog_documents() -> list[Document]:
    """Return the shipped file, and the user's own behind it if there is one.

    Raises:
        CatalogError: a file that cannot be read, or is not TOML.
    """
    shipped = Document(*_shipped())
    user_file = config_dir() / FILE_NAME
    try:
        user_data = user_file.read_bytes()
    except FileNotFoundError:
        return [shipped]
    except OSError as error:
        raise CatalogError(
            f"{user_file} cannot be read: {error.strerror or error}.",
            "Make it a readable file, or move it away to use the shipped catalogue alone.",
            file=str(user_file),
        ) from error
    return [shipped, Document(user_data, str(user_file))]


def parse_catalog(data: bytes, origin: str) -> tuple[ModelSpec, ...]:
    """Return the models of one catalogue file that names no shapes of another, in order.

    Args:
        data: content of the file.
        origin: name of the file in errors.

    Raises:
        CatalogError: not UTF-8, not TOML, or an invalid entry; it names the place.
    """
    return read_entries(Document(data, origin), NamedShapes())[0]


def _plain(spelling: str) -> str:
    """Return a spelling for comparisons that a slip of the finger should not decide."""
    return spelling.strip().casefold().replace("_", ".")


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


def _merge(shipped: tuple[ModelSpec, ...], own: tuple[ModelSpec, ...], document: Document) -> Catalog:
    user_models = {folded(model.name): model for model in own}
    places = {folded(model.name): model for model in shipped}
    _forbid_aliases_of_other_models(user_models.values(), places.keys() - user_models.keys(), document)
    taken = {folded(spelling) for model in user_models.values() for spelling in model.spellings}
    kept = {name: _without_aliases(model, taken) for name, model in places.items()}
    # A dictionary keeps the place of a key whose value is replaced.
    return Catalog(tuple((kept | user_models).values()))


def _without_aliases(model: ModelSpec, taken: set[str]) -> ModelSpec:
    """Return a shipped model without the spellings that the user chose for other models."""
    return replace(model, aliases=tuple(alias for alias in model.aliases if folded(alias) not in taken))


def _forbid_aliases_of_other_models(user_models: Iterable[ModelSpec], names: set[str], document: Document) -> None:
    """Refuse an alias that is a shipped model's name: that model would become unreachable."""
    for index, model in enumerate(user_models):
        for place, alias in enumerate(model.aliases):
            if folded(alias) in names:
                raise document.error(
                    ("model", index, "aliases", place),
                    f"the alias {alias!r} is the name of a shipped model",
                    "Take another alias, or give the entry that name to replace the shipped model.",
                )
