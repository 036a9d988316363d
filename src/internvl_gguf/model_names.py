"""What a person may type for a model, taken apart."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf.errors import ModelFileError

if TYPE_CHECKING:
    from internvl_gguf.catalog import Catalog, ModelSpec

DEMO = "demo"
DEMO_FOLDER = Path(__file__).with_name("demo")
DEMO_TEXT, DEMO_MMPROJ = "demo-text-BF16.gguf", "demo-mmproj-F16.gguf"

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEB = re.compile(r"^(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)


@dataclass(frozen=True)
class LocalModel:
    """A file or folder of this machine.

    Attributes:
        path: a text model's GGUF, or a folder with one or more of them.
        wanted: which quant or file of a folder; None takes the default.
        is_demo: whether it is the model inside this package.
    """

    path: Path
    wanted: str | None = None
    is_demo: bool = False


@dataclass(frozen=True)
class HubModel:
    """A repository of the hub.

    Attributes:
        repo: owner/name.
        revision: a branch, tag or commit; None is the main branch.
        wanted: which quant or file; None takes the default.
        spec: the catalogue's entry of it, if it has one.
    """

    repo: str
    revision: str | None = None
    wanted: str | None = None
    spec: ModelSpec | None = None


def parse_model_name(text: str, catalog: Catalog) -> LocalModel | HubModel:
    """Tell a path, an `owner/repo[@REVISION][:QUANT]` and a catalogue's `NAME[:QUANT]` apart.

    A path that exists is a path; so is what begins with `.`, `/` or `~`, and what ends in `.gguf`, unless it names a
    file of a repository (`owner/repo:file.gguf`).

    Raises:
        ModelFileError: the catalogue has no such name, or it runs no such model.
    """
    if text.partition(":")[0].lower() == DEMO:
        if text.lower() != DEMO:
            raise ModelFileError(
                "The demo model has one quant only.",
                f"Ask `{DEMO}`; `internvl bench {DEMO} --all` makes and compares others.",
            )
        return LocalModel(DEMO_FOLDER / DEMO_TEXT, is_demo=True)
    path = Path(text).expanduser()
    if path.exists() or _is_path_like(text):
        return LocalModel(path)
    head, colon, wanted = text.partition(":")
    if len(head) == 1 and os.name == "nt":  # a drive
        drive, (head, colon, wanted) = head, wanted.partition(":")
        head = f"{drive}:{head}"
    folder = Path(head).expanduser()
    if colon and (folder.is_dir() or _is_path_like(head)):
        return LocalModel(folder, wanted or None)
    return _hub_model(text, catalog)


def _is_path_like(text: str) -> bool:
    if text.startswith((".", "/", "~")) or "\\" in text:
        return ":" not in text or text.lower().endswith(".gguf")
    return text.lower().endswith(".gguf") and ":" not in text


def _hub_model(text: str, catalog: Catalog) -> HubModel:
    head, _, wanted = _WEB.sub("", text.strip()).partition(":")
    name, _, revision = head.partition("@")
    name = name.rstrip("/")
    if _REPO.fullmatch(name):
        spec = next((spec for spec in catalog if name.lower() in _repos(spec)), None)
        return HubModel(name, revision or _pinned(spec, name), wanted or None, spec)
    found = catalog.find(name)
    if found is None:
        raise _unknown(name, catalog)
    if found.unsupported:
        raise ModelFileError(f"{found.name} does not run here: {found.unsupported}", "Use another model of the family.")
    if not found.repo:
        raise ModelFileError(
            f"The catalogue knows no GGUF repository of {found.name}.", "Name one: owner/repo, with :QUANT if you like."
        )
    return HubModel(found.repo, revision or _pinned(found, found.repo), wanted or None, found)


def _repos(spec: ModelSpec) -> set[str]:
    return {repo.lower() for repo in (spec.repo, *spec.other_repos) if repo}


def _pinned(spec: ModelSpec | None, repo: str) -> str | None:
    """The revision that the catalogue has looked at; None is the main branch."""
    if spec is None or spec.repo is None or spec.repo.lower() != repo.lower() or spec.revision == "main":
        return None
    return spec.revision


def _unknown(name: str, catalog: Catalog) -> ModelFileError:
    near = catalog.nearest(name)
    near += difflib.get_close_matches(name.lower(), [DEMO], cutoff=0.7)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return ModelFileError(
        f"There is no model {name!r}.",
        f"{hint}`internvl list --catalog` shows the names; or give owner/repo, the path of a .gguf file, or `{DEMO}`.",
    )
