"""Read the headers of a model's local or remote files, for commands that do not run the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_gguf.cli.output import say
from internvl_gguf.gguf.file_kind import kind_of
from internvl_gguf.gguf.filenames import RepoContents, sort_out
from internvl_gguf.gguf.header import read_header
from internvl_gguf.gguf.validation import read_text_headers
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.local_files import demo_files, folder_contents, local_files
from internvl_gguf.models.names import LocalModel, parse_model_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from internvl_gguf.gguf.header import GGUFHeader
    from internvl_gguf.models.local_files import ModelFiles


@dataclass(frozen=True)
class ModelHeaders:
    """Headers of a model.

    Attributes:
        text: of the text model; one for each part of a split one.
        mmproj: of the vision encoder; None where a text model lies alone.
        contents: what else its repository or folder holds; None where it is no such thing.
        reasons: what was chosen for the person, one line each.
    """

    text: Sequence[GGUFHeader]
    mmproj: GGUFHeader | None
    contents: RepoContents | None = None
    reasons: tuple[str, ...] = ()


def model_headers(model: str, mmproj: str | None) -> ModelHeaders:
    """Return the headers of a model: from local files without a request, else fetched by ranged reads.

    A text model's file needs no vision encoder beside it.

    Raises:
        ModelFileError, HubError: no such model, or they cannot be had.
    """
    parsed = parse_model_name(model, load_catalog())
    if isinstance(parsed, LocalModel) and parsed.is_demo and mmproj is None:
        return _of_files(demo_files(), None)
    if isinstance(parsed, LocalModel) and mmproj is None and _is_alone(parsed.path):
        return ModelHeaders(read_text_headers(parsed.path), None)
    if isinstance(parsed, LocalModel):
        files = local_files(model, parsed, mmproj)
        return _of_files(files, folder_contents(parsed.path) if parsed.path.is_dir() else None)
    from internvl_gguf.models.hub import HubClient
    from internvl_gguf.models.hub_resolver import HubResolver

    resolver = HubResolver(HubClient(on_wait=say))
    cached = resolver.cached(model, mmproj)
    if cached:
        return _of_files(cached, None)
    selection = resolver.select(model, mmproj)
    return ModelHeaders(
        resolver.headers(selection.listing, selection.text),
        resolver.mmproj_header(selection),
        sort_out(selection.listing.files),
        selection.reasons,
    )


def _is_alone(path: Path) -> bool:
    """Return whether a path is the file of a text model without a vision encoder beside it."""
    if not path.is_file() or folder_contents(path.parent).mmprojs:
        return False
    return kind_of(read_header(path)) == "text"


def _of_files(files: ModelFiles, contents: RepoContents | None) -> ModelHeaders:
    reasons = (files.choice,) if files.choice else ()
    return ModelHeaders(read_text_headers(files.text), read_header(files.mmproj), contents, reasons)
