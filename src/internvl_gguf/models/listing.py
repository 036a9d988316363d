"""List the quants of a model: from the catalogue without a request, else from the hub or the local files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from internvl_gguf.errors import HubError, ModelFileError
from internvl_gguf.gguf.filenames import RepoContents, RepoFile, sort_out
from internvl_gguf.hardware.encoder_precision import most_faithful_precision
from internvl_gguf.memory import ModelShape, TextWeights, shape_from_headers
from internvl_gguf.models.catalog import Catalog, load_catalog
from internvl_gguf.models.local_files import local_choices
from internvl_gguf.models.model_spec import ModelSpec
from internvl_gguf.models.names import HubModel, LocalModel, parse_model_name
from internvl_gguf.models.select_files import complete_texts
from internvl_gguf.planning.candidates import (
    Candidate,
    by_precision,
    estimated_candidates,
    listed_candidates,
    nominal_shape,
)
from internvl_gguf.planning.task_scores import TaskScores

if TYPE_CHECKING:
    from internvl_gguf.models.hub_resolver import HubResolver

_USUAL_QUANT: Final = "Q4_K_M"


@dataclass(frozen=True)
class ModelListing:
    """The quants of one model.

    Attributes:
        name: name of the model.
        candidates: its quants.
        shape: shape of the model; the sizes of its weights do not matter.
        wanted: the quant that the user named; None if none.
        max_tiles: most tiles of a picture that the mmproj says; None where it was not read or does not say.
        notices: facts that the user should know about the source of the numbers, one line each.
    """

    name: str
    candidates: tuple[Candidate, ...]
    shape: ModelShape
    wanted: str | None = None
    max_tiles: int | None = None
    notices: tuple[str, ...] = ()


def list_model(
    text: str,
    *,
    mmproj: str | None = None,
    resolver: Callable[[], HubResolver] | None = None,
    read_headers: bool = False,
) -> ModelListing:
    """List the quants of a model.

    A model whose files the catalogue lists needs no request.

    Args:
        text: a name of the catalogue, owner/repo, a path, or `demo`, with an optional quant.
        mmproj: file or precision of the vision encoder of a path; None takes the one beside it.
        resolver: makes the client of the hub; called only if needed.
        read_headers: read the headers of all files, 6 MB each, for numbers that are exact.

    Raises:
        ModelFileError: no such model, or files that are no such model.
        HubError: the hub has to be asked and cannot be.
    """
    catalog = load_catalog()
    model = parse_model_name(text, catalog)
    if isinstance(model, LocalModel):
        return _local(text, model, mmproj)
    return _scored(_of_name(model, resolver, read_headers), catalog, model.spec)


def _of_name(model: HubModel, resolver: Callable[[], HubResolver] | None, read_headers: bool) -> ModelListing:
    """Return the listing of a repository, or of a catalogue entry where no request is needed or possible."""
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
    hub.client.tries = 1  # the catalogue has estimates to fall back on
    try:
        return _of_hub(name, model, hub, read_headers)
    except HubError as error:
        shape = nominal_shape(spec.text, spec.vision)
        notice = f"{error.message} The sizes below are those that such quants usually have."
        return ModelListing(name, tuple(estimated_candidates(name, shape)), shape, model.wanted, notices=(notice,))


def family(catalog: Catalog | None = None) -> list[ModelListing]:
    """Return one listing for each size of each release that runs here, without a request."""
    by_size: dict[str, ModelSpec] = {}
    rank = ("listed", "documented", "named", "none")
    catalog = catalog or load_catalog()
    for spec in catalog:
        if spec.text and spec.vision and spec.repo and not spec.unsupported:
            key = f"{spec.generation} {spec.text.n_layers}x{spec.text.n_embd}"
            known = by_size.get(key)
            if known is None or rank.index(spec.status) < rank.index(known.status):
                by_size[key] = spec
    return [
        _scored(_of_spec(spec.name, HubModel(spec.repo or "", spec.revision, None, spec), spec), catalog, spec)
        for spec in by_size.values()
    ]


def _scored(listing: ModelListing, catalog: Catalog, spec: ModelSpec | None) -> ModelListing:
    """Return a listing whose quants have the published scores of their model, where the catalogue has them."""
    found = catalog.scores(spec) if spec else None
    if found is None:
        return listing
    name, published = found
    scores = TaskScores(name, published.points())
    return replace(listing, candidates=tuple(replace(each, scores=scores) for each in listing.candidates))


def usual_download(spec: ModelSpec) -> Candidate | None:
    """Return the Q4_K_M of a catalogue entry, which most people fetch; None if the entry cannot be run or sized."""
    if spec.unsupported or not (spec.text and spec.vision and spec.repo):
        return None
    listing = _of_spec(spec.name, HubModel(spec.repo, spec.revision, None, spec), spec)
    return next((candidate for candidate in listing.candidates if candidate.quant == _USUAL_QUANT), None)


def _of_spec(name: str, model: HubModel, spec: ModelSpec) -> ModelListing:
    """Return the listing of a catalogue entry."""
    if spec.text is None or spec.vision is None:
        raise ModelFileError(f"The catalogue does not have the shape of {name}.", "Name its repository: owner/repo.")
    shape = nominal_shape(spec.text, spec.vision)
    if not spec.files:
        return ModelListing(name, tuple(estimated_candidates(name, shape)), shape, model.wanted)
    contents = sort_out(RepoFile(file.name, file.size) for file in spec.files)
    return _listing(name, contents, shape, model.wanted, {})


def _listing(
    name: str, contents: RepoContents, shape: ModelShape, wanted: str | None, known: Mapping[str, TextWeights]
) -> ModelListing:
    candidates = listed_candidates(name, contents.texts, by_precision(contents.mmprojs), shape, known)
    return ModelListing(name, tuple(candidates), shape, wanted)


def _of_hub(name: str, model: HubModel, resolver: HubResolver, read_headers: bool) -> ModelListing:
    """Return the listing of a repository; headers are read if the catalogue has no shape."""
    listing = resolver.client.listing(model.repo, model.revision)
    contents = sort_out(listing.files)
    if not contents.texts or not contents.mmprojs:
        what = "mmproj, the file of the vision encoder" if contents.texts else "GGUF of a text model"
        raise ModelFileError(f"{model.repo} has no {what}.", "Name a repository that has both.")
    spec = model.spec
    if spec and spec.text and spec.vision and not read_headers:
        found = _listing(name, contents, nominal_shape(spec.text, spec.vision), model.wanted, {})
        if found.candidates:
            return found
    from internvl_gguf.gguf.validation import most_tiles_of  # only now: it loads numpy

    texts = complete_texts(contents.texts, model.repo)
    to_read = texts if read_headers else [min(texts, key=lambda copy: copy.size or 0)]
    vision = resolver.headers(listing, by_precision(contents.mmprojs)[0])[0]
    shapes = {copy.first.path: shape_from_headers(resolver.headers(listing, copy), vision) for copy in to_read}
    known = {path: shape.text for path, shape in shapes.items()}
    found = _listing(name, contents, next(iter(shapes.values())), model.wanted, known)
    return replace(found, max_tiles=most_tiles_of(vision))


def _local(text: str, model: LocalModel, mmproj: str | None) -> ModelListing:
    """Return the listing of a file, a folder or the demo model, by headers."""
    choices = local_choices(text, model, most_faithful_precision, mmproj)
    candidates = listed_candidates(text, choices.texts, choices.mmprojs, choices.shape, choices.known)
    return ModelListing(text, tuple(candidates), choices.shape, model.wanted, choices.max_tiles)
