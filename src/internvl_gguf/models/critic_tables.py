"""The critics of models.toml, and of the user's own file: `[critics.NAME]` tables. The head of models.toml explains."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.models.catalog import catalog_documents
from internvl_gguf.models.critic_description import CriticDescription
from internvl_gguf.models.spellings import folded
from internvl_gguf.models.toml_tables import Document, Table

DEFAULT: Final = "visualprm"
_WORDINGS: Final = (
    "first_step", "next_step", "user", "system", "separator", "marker", "read", "steps", "positive", "negative",
    "aggregation", "source",
)  # fmt: skip
_KEYS: Final = (*_WORDINGS, "max_steps", "max_tiles", "threshold", "whole_answer", "models")


def load_critics() -> Mapping[str, CriticDescription]:
    """Return the descriptions by name; the user's replace shipped ones of the same name or come after them.

    Raises:
        CatalogError: a file that cannot be read or holds a mistake; it names the file and the place.
    """
    found: dict[str, CriticDescription] = {}
    for document in catalog_documents():
        found |= read_critics(document)
    return found


def critic_description(name: str | None, model: str) -> CriticDescription:
    """Return the description of a name; without one, that which names the model, else the default.

    Raises:
        InvalidRequestError: there is none of this name.
        CatalogError: as in `load_critics`.
    """
    known = load_critics()
    if name is None:
        bare = folded(model.partition(":")[0].rpartition("/")[2])
        return next((each for each in known.values() if bare in map(folded, each.models)), known[DEFAULT])
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    raise InvalidRequestError(
        f"There is no description of a critic named {name!r}.",
        f"{meant}Known: {', '.join(known)}. Add [critics.{name}] to your models.toml, or give a CriticDescription.",
    )


def doubt_about(model: str, description: CriticDescription) -> str:
    """Return a notice for a model that the description does not name; "" for one that it names.

    Any model answers a critic's prompt. What one says that was not trained for it is worth nothing.
    """
    if any(folded(name) in folded(model) for name in description.models):
        return ""
    return f"{model} is not known as a critic. It is asked as {description.name} is, and its scores may mean nothing."


def read_critics(document: Document) -> dict[str, CriticDescription]:
    """Return the critics of one file by name.

    Raises:
        CatalogError: an invalid table; it names the place.
    """
    top = Table(document, (), document.content, tuple(document.content))
    return {name: _critic(name, table) for name, table in top.named_tables("critics", _KEYS).items()}


def _critic(name: str, table: Table) -> CriticDescription:
    table.require("first_step")
    values: dict[str, Any] = {key: table.wording(key) for key in _WORDINGS if key in table}
    values |= {key: table.number(key) for key in ("max_steps", "max_tiles") if key in table}
    if "threshold" in table:
        values["threshold"] = table.decimal("threshold", 1)
    if "whole_answer" in table:
        values["whole_answer"] = table.switch("whole_answer")
    try:
        return CriticDescription(name, models=table.texts("models"), **values)
    except InvalidRequestError as error:
        raise table.error(error.message.removesuffix("."), error.hint) from error
