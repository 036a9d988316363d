"""Parse what a user may type for a model."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.filenames import Quant
from internvl_gguf.utils.paths import expanded

if TYPE_CHECKING:
    from internvl_gguf.models.catalog import Catalog
    from internvl_gguf.models.model_spec import ModelSpec

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parents[1] / "demo"
DEMO_QUANT = "BF16"
DEMO_TEXT, DEMO_MMPROJ = f"demo-text-{DEMO_QUANT}.gguf", "demo-mmproj-F16.gguf"
DEMO_CRITIC = "demo-critic"
"""The critic inside this package: the demo model with three layers more. It has the demo's vision encoder."""
DEMO_CRITIC_TEXT = Path(__file__).parents[1] / "critics" / "demo-critic-text-Q8_0.gguf"
"""Not in the demo's folder, which would have two models to choose from."""

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ROOTED = re.compile(r"[./~]|[A-Za-z]:[\\/]|.*\\", re.DOTALL)
"""Matches paths that cannot be names: they begin at a root, or have a backslash anywhere."""
_TAG = re.compile(r"(?P<size>[0-9]+b(?:-a[0-9]+b)?)(?:-(?P<quant>\w+))?", re.IGNORECASE)
"""Matches what stands behind the colon elsewhere: internvl3:14b, internvl3.5:30b-a3b, internvl3:8b-q4_K_M."""
_INSTRUCT = "internvl3"  # of this release a size alone is the Instruct model; of the others the one without a suffix
_WEB = re.compile(r"^(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)


@dataclass(frozen=True)
class LocalModel:
    """A local file or folder.

    Attributes:
        path: a text model's GGUF, or a folder with one or more of them.
        wanted: which quant or file of a folder; None takes the default.
        is_demo: whether it is the model inside this package.
        mmproj: its vision encoder, where that is not beside it.
    """

    path: Path
    wanted: str | None = None
    is_demo: bool = False
    mmproj: Path | None = None


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
    """Parse a path, an `owner/repo[@REVISION][:QUANT]` or a catalogue's `NAME[:QUANT]`.

    A text is a path if the path exists, if it begins with `.`, `/` or `~`, or if it ends in `.gguf` and does not name a
    file of a repository (`owner/repo:file.gguf`). A size in the place of the quant, as in `internvl3:14b`, means the
    model of that size: of InternVL3 the Instruct model, else the one without a suffix. `OpenGVLab/NAME` means
    NAME, since OpenGVLab has no GGUF files of it.

    Raises:
        ModelFileError: the catalogue has no such name, or the model is not supported.
    """
    if text.partition(":")[0].lower() == DEMO:
        if text.lower() not in (DEMO, f"{DEMO}:{DEMO_QUANT.lower()}"):
            raise ModelFileError(
                f"The package has the demo model in {DEMO_QUANT} only, and {text!r} names another file.",
                f"Ask `{DEMO}`; `internvl quantize {DEMO} Q8_0` makes a quant and says how to ask it. (`internvl bench "
                f"{DEMO}:Q8_0` makes its own, to measure them.)",
            )
        return LocalModel(DEMO_FOLDER / DEMO_TEXT, is_demo=True)
    if text.lower() == DEMO_CRITIC:
        return LocalModel(DEMO_CRITIC_TEXT, mmproj=DEMO_FOLDER / DEMO_MMPROJ)
    path = expanded(text)
    if path.exists():
        return LocalModel(path)
    folder = _folder_with_choice(text)
    if folder is not None:
        return folder
    is_rooted = _ROOTED.match(text) is not None
    return LocalModel(path) if is_rooted or _names_file(text) else _hub_model(text, catalog)


def _folder_with_choice(text: str) -> LocalModel | None:
    """Parse `FOLDER:QUANT` or `FOLDER:FILE`, split at the last suitable colon: folder names may have colons, too.

    Return None if no beginning of the text is a folder, or is written like one before a quant.
    """
    for at in reversed([at for at, character in enumerate(text) if character == ":"]):
        head, wanted = text[:at], text[at + 1 :]
        folder = expanded(head)
        is_quant = Quant.parse(wanted) is not None
        is_choice = is_quant or not re.search(r"[:/\\]", wanted) or (folder / wanted).is_file()
        if is_choice and (folder.is_dir() or (is_quant and _ROOTED.match(head))):
            return LocalModel(folder, wanted or None)
    return None


def _names_file(text: str) -> bool:
    """Return whether a text can only be a local file; `owner/repo:file.gguf` is a file of a repository."""
    return text.lower().endswith(".gguf") and ":" not in text


def _hub_model(text: str, catalog: Catalog) -> HubModel:
    head, _, wanted = _WEB.sub("", text.strip()).partition(":")
    name, _, revision = head.partition("@")
    name = name.rstrip("/")
    found = catalog.find(name)
    if found is None and _REPO.fullmatch(name):
        spec = next((spec for spec in catalog if name.lower() in _repos(spec)), None)
        return HubModel(name, revision or _pinned(spec, name), wanted or None, spec)
    if found is None and (tagged := _TAG.fullmatch(wanted)):
        stage = "-Instruct" if name.casefold() == _INSTRUCT else ""
        found, wanted = catalog.find(f"{name}-{tagged['size']}{stage}"), tagged["quant"] or ""
    if found is None:
        raise _unknown(name, catalog)
    if found.unsupported:
        why = found.unsupported
        why = (
            why[0].lower() + why[1:] if why[1:2].islower() else why
        )  # it goes on a sentence, and may begin with a name
        raise ModelFileError(f"{found.name} does not run here: {why}", "Use another model of the family.")
    if not found.repo:
        raise ModelFileError(
            f"The catalogue knows no GGUF repository of {found.name}.", "Name one: owner/repo, with :QUANT if you like."
        )
    return HubModel(found.repo, revision or _pinned(found, found.repo), wanted or None, found)


def _repos(spec: ModelSpec) -> set[str]:
    return {repo.lower() for repo in (spec.repo, *spec.other_repos) if repo}


def _pinned(spec: ModelSpec | None, repo: str) -> str | None:
    """Return the revision that the catalogue lists; None is the main branch."""
    if spec is None or spec.repo is None or spec.repo.lower() != repo.lower() or spec.revision == "main":
        return None
    return spec.revision


def _unknown(name: str, catalog: Catalog) -> ModelFileError:
    near = catalog.nearest(name)
    near += difflib.get_close_matches(name.lower(), [DEMO, DEMO_CRITIC], cutoff=0.7)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return ModelFileError(
        f"There is no model {name!r}.",
        f"{hint}`internvl list --catalog` shows the names; or give owner/repo, the path of a .gguf file, or `{DEMO}`.",
    )
