"""The quants of a model as people name it: by the catalogue without a request, else from where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_gguf.errors import HubError, ModelFileError
from internvl_gguf.gguf.filenames import RepoContents, RepoFile, sort_out
from internvl_gguf.hardware.encoder_precision import by_rule
from internvl_gguf.memory import ModelShape, TextWeights, shape_from_headers
from internvl_gguf.models.catalog import Catalog, ModelSpec, load_catalog
from internvl_gguf.models.local_files import local_choices
from internvl_gguf.models.names import HubModel, LocalModel, parse_model_name
from internvl_gguf.models.select_files import complete_texts
from internvl_gguf.planning.candidates import Candidate, by_precision, estimated_candidates, form_of, listed_candidates

if TYPE_CHECKING:
    from internvl_gguf.models.hub_resolver import HubResolver


@dataclass(frozen=True)
class ModelListing:
    """What there is of one model.

    Attributes:
        name: of the model.
        candidates: its quants.
        form: the model in files of any size.
        wanted: the quant that its name asked for; None where it asked for none.
        notices: what a person should know of where the numbers come from, one line each.
    """

    name: str
    candidates: tuple[Candidate, ...]
    form: ModelShape
    wanted: str | None = None
    notices: tuple[str, ...] = ()


def list_model(
    text: str,
    *,
    mmproj: str | None = None,
    resolver: Callable[[], HubResolver] | None = None,
    read_headers: bool = False,
) -> ModelListing:
    """The quants of a model.

    A model whose files the catalogue lists needs no request.

    Args:
        text: a name of the catalogue, owner/repo, a path, or `demo`; a quant in it is told apart.
        mmproj: of a path the vision encoder's file or precision; None takes what lies beside it.
        resolver: with what to ask the hub; made only where it is needed.
        read_headers: read the headers of all files, 6 MB each, for numbers that are exact.

    Raises:
        ModelFileError: no such model, or files that are no such model.
        HubError: a repository that has to be asked for and cannot.
    """
    catalog = load_catalog()
    model = parse_model_name(text, catalog)
    if isinstance(model, LocalModel):
        return _local(text, model, mmproj)
    name = model.spec.name if model.spec else model.repo
    if model.spec and model.spec.files and not read_headers:
        return _of_spec(name, model, model.spec)
    if resolver is None:
        from internvl_gguf.models.hub_resolver import (
            HubResolver,  # only now: the hub's client takes half a second to import
        )

        resolver = HubResolver
    hub = resolver()
    spec = model.spec
    if not (spec and spec.text and spec.vision) or read_headers:
        return _of_hub(name, model, hub, read_headers)
    hub.client.tries = 1  # there is something to answer with
    try:
        return _of_hub(name, model, hub, read_headers)
    except HubError as error:
        form = form_of(spec.text, spec.vision)
        notice = f"{error.message} The sizes below are those that such quants usually have."
        return ModelListing(name, tuple(estimated_candidates(name, form)), form, model.wanted, (notice,))


def family(catalog: Catalog | None = None) -> list[ModelListing]:
    """One listing for each size of InternVL3 that runs here, without a request."""
    by_size: dict[str, ModelSpec] = {}
    rank = ("listed", "documented", "named", "none")
    for spec in catalog or load_catalog():
        if spec.text and spec.vision and spec.repo and not spec.unsupported:
            key = f"{spec.text.n_layers}x{spec.text.n_embd}"
            known = by_size.get(key)
            if known is None or rank.index(spec.status) < rank.index(known.status):
                by_size[key] = spec
    return [
        _of_spec(spec.name, HubModel(spec.repo or "", spec.revision, None, spec), spec) for spec in by_size.values()
    ]


def _of_spec(name: str, model: HubModel, spec: ModelSpec) -> ModelListing:
    """By the catalogue alone."""
    if spec.text is None or spec.vision is None:
        raise ModelFileError(f"The catalogue does not tell the form of {name}.", "Name its repository: owner/repo.")
    form = form_of(spec.text, spec.vision)
    if not spec.files:
        return ModelListing(name, tuple(estimated_candidates(name, form)), form, model.wanted)
    contents = sort_out(RepoFile(file.name, file.size) for file in spec.files)
    return _listing(name, contents, form, model.wanted, {})


def _listing(
    name: str, contents: RepoContents, form: ModelShape, wanted: str | None, known: Mapping[str, TextWeights]
) -> ModelListing:
    candidates = listed_candidates(name, contents.texts, by_precision(contents.mmprojs), form, known)
    return ModelListing(name, tuple(candidates), form, wanted)


def _of_hub(name: str, model: HubModel, resolver: HubResolver, read_headers: bool) -> ModelListing:
    """By the live listing, and the headers of one text model and one encoder where the catalogue has no facts."""
    listing = resolver.client.listing(model.repo, model.revision)
    contents = sort_out(listing.files)
    if not contents.texts or not contents.mmprojs:
        what = "mmproj, the file of the vision encoder" if contents.texts else "GGUF of a text model"
        raise ModelFileError(f"{model.repo} has no {what}.", "Name a repository that has both.")
    spec = model.spec
    if spec and spec.text and spec.vision and not read_headers:
        found = _listing(name, contents, form_of(spec.text, spec.vision), model.wanted, {})
        if found.candidates:
            return found
    texts = complete_texts(contents.texts, model.repo)
    to_read = texts if read_headers else [min(texts, key=lambda copy: copy.size or 0)]
    vision = resolver.headers(listing, by_precision(contents.mmprojs)[0])[0]
    shapes = {copy.first.path: shape_from_headers(resolver.headers(listing, copy), vision) for copy in to_read}
    known = {path: shape.text for path, shape in shapes.items()}
    return _listing(name, contents, next(iter(shapes.values())), model.wanted, known)


def _local(text: str, model: LocalModel, mmproj: str | None) -> ModelListing:
    """A file, a folder or the demo model, by headers."""
    choices = local_choices(text, model, by_rule, mmproj)
    candidates = listed_candidates(text, choices.texts, choices.mmprojs, choices.form, choices.known)
    return ModelListing(text, tuple(candidates), choices.form, model.wanted)
