"""Models of the hub: select files of a repository, check that they fit together, find them in the cache, fetch them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from internvl_gguf.errors import HubError, InsufficientMemoryError, ModelFileError
from internvl_gguf.gguf.filenames import DownloadProgress, ModelCopy, RepoFile, sort_out
from internvl_gguf.gguf.header import GGUFHeader, read_header
from internvl_gguf.gguf.validation import validate_mmproj, validate_pair, validate_text_model
from internvl_gguf.hardware.encoder_precision import Precision, preferred_precision
from internvl_gguf.memory import shape_from_headers
from internvl_gguf.models.catalog import Catalog, load_catalog
from internvl_gguf.models.hub import HubCache, HubClient, RemoteFile, RepoListing, download
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.models.names import HubModel, parse_model_name
from internvl_gguf.models.select_files import choose_mmproj, complete_texts, named_text
from internvl_gguf.planning.auto_quant import machine_chooser
from internvl_gguf.planning.candidates import listed_candidates, nominal_shape
from internvl_gguf.planning.choice import Choices, Chooser
from internvl_gguf.utils.paths import expanded, free_bytes
from internvl_gguf.utils.sizes import format_size


@dataclass(frozen=True)
class Selection:
    """Exact files of a repository, not necessarily downloaded yet.

    Attributes:
        name: the model's name as the user gave it.
        listing: the state of the repository that the files belong to.
        revision: name of that state given by user or catalogue; None is the main branch.
        text: the text model.
        mmproj: the vision encoder; a path if the user named a local file.
        reasons: automatic choices with their reasons, one line each.
    """

    name: str
    listing: RepoListing
    revision: str | None
    text: ModelCopy
    mmproj: ModelCopy | Path
    reasons: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[RepoFile, ...]:
        """All files of the selection, the mmproj first because it is smaller."""
        return (*(() if isinstance(self.mmproj, Path) else self.mmproj.parts), *self.text.parts)


@dataclass
class HubResolver:
    """Finds the files of a hub model, in the local cache first.

    Attributes:
        client: asks the hub.
        cache: the hub's cache on this machine.
        catalog: the known models.
        precisions: chooses the precision of a vision encoder for this machine; None measures.
        chooser: chooses a quant if the user named none.
    """

    client: HubClient = field(default_factory=HubClient)
    cache: HubCache = field(default_factory=HubCache)
    catalog: Catalog = field(default_factory=load_catalog)
    precisions: Callable[[Sequence[str]], Precision] | None = None
    chooser: Chooser = field(default_factory=machine_chooser)

    def cached(self, name: str, mmproj: str | os.PathLike[str] | None = None) -> ModelFiles | None:
        """Return the files of a model if all are in the cache, without a request; else None.

        If the user named no quant, a cached one is taken before a better one of the repository.

        Raises:
            ModelFileError: no such model.
        """
        model = self.hub_model(name)
        commit = self.cache.commit(model.repo, model.revision)
        if commit is None:
            return None
        listing = RepoListing(model.repo, commit, self.cache.files(model.repo, commit))
        try:
            return self._paths(self._select(name, model, listing, mmproj))
        except (ModelFileError, InsufficientMemoryError):
            return None

    def select(self, name: str, mmproj: str | os.PathLike[str] | None = None) -> Selection:
        """Select the files of a hub model from the repository's current listing.

        Args:
            name: a catalogue's name or owner/repo, with an optional quant.
            mmproj: a precision ("BF16"), a file of the repository, or a local file; chosen for this machine if None.

        Raises:
            ModelFileError: no such model or quant; no mmproj; a part of a split file is missing.
            InsufficientMemoryError: no quant was named, and none fits this machine.
            HubError: the hub has no such repository, or cannot be asked.
        """
        model = self.hub_model(name)
        return self._select(name, model, self.client.listing(model.repo, model.revision), mmproj)

    def hub_model(self, name: str) -> HubModel:
        """Return the repository that a name means.

        Raises:
            ModelFileError: it means a local file or the demo model, or nothing.
        """
        model = parse_model_name(name, self.catalog)
        if not isinstance(model, HubModel):
            what = "is a part of this package" if model.is_demo else "is a path of this machine"
            raise ModelFileError(
                f"{name} {what}: there is nothing to fetch or remove.", "Name a model of the catalogue or owner/repo."
            )
        if model.wanted and model.spec and model.spec.files and model.revision == model.spec.revision:
            known = sort_out(RepoFile(file.name, file.size) for file in model.spec.files)
            named_text(known.texts, model.wanted, model.repo)  # report a misspelt quant without a request
        return model

    def headers(self, listing: RepoListing, copy: ModelCopy) -> list[GGUFHeader]:
        """Return the headers of a copy's parts, from the cache or by ranged reads of a few MB.

        Raises:
            HubError, ModelFileError: they cannot be fetched, or are damaged.
        """
        return [
            read_header(path if path.exists() else RemoteFile(self.client, listing, part))
            for part in copy.parts
            for path in [self.cache.path(listing.repo, listing.commit, part)]
        ]

    def mmproj_header(self, selection: Selection) -> GGUFHeader:
        """Return the header of the vision encoder; see `headers`."""
        if isinstance(selection.mmproj, Path):
            return read_header(selection.mmproj)
        return self._header_of(selection.listing, selection.mmproj)

    def _header_of(self, listing: RepoListing, encoder: ModelCopy) -> GGUFHeader:
        """Return the header of a vision encoder, which may be the user's local file."""
        path = Path(encoder.first.path)
        return read_header(path) if path.is_absolute() else self.headers(listing, encoder)[0]

    def check(self, selection: Selection) -> None:
        """Check by the headers alone that the files are an InternVL and belong together, before they are fetched.

        Raises:
            ModelFileError, ModelPairError: they are not, or do not.
        """
        first, *parts = self.headers(selection.listing, selection.text)
        validate_pair(validate_text_model(first, parts), validate_mmproj(self.mmproj_header(selection)))

    def missing(self, selection: Selection) -> list[tuple[RepoFile, int]]:
        """Return the files that are not complete here, each with the number of bytes still to fetch."""
        listing = selection.listing
        found = []
        for file in selection.files:
            if (
                self.cache.path(listing.repo, listing.commit, file).exists()
                or self.cache.blob(listing.repo, file).exists()
            ):
                continue
            partial = self.cache.partial(listing.repo, file)
            found.append((file, (file.size or 0) - (partial.stat().st_size if partial.exists() else 0)))
        return found

    def fetch(
        self,
        selection: Selection,
        on_progress: DownloadProgress = lambda file, done: None,
        on_wait: Callable[[str], None] = lambda line: None,
    ) -> ModelFiles:
        """Download all files of a selection.

        Raises:
            HubError: the disk is too full, or see `hub.download`.
        """
        listing = selection.listing
        self._check_room([rest for _, rest in self.missing(selection)])
        for file in selection.files:
            download(self.client, self.cache, listing, file, on_progress, on_wait)
        self.cache.remember_revision(listing.repo, selection.revision, listing.commit)
        return self._paths(selection)

    def _check_room(self, rests: list[int]) -> None:
        needed, free = sum(rests), free_bytes(self.cache.root)
        if free is not None and needed > free:
            raise HubError(
                f"{format_size(needed)} are to be fetched, but {self.cache.root} has {format_size(free)} left.",
                "Free some space (`internvl rm`), set HF_HOME to another disk, or take a smaller quant.",
            )

    def _paths(self, selection: Selection) -> ModelFiles:
        listing = selection.listing
        text = self.cache.path(listing.repo, listing.commit, selection.text.first)
        mmproj = selection.mmproj
        if not isinstance(mmproj, Path):
            mmproj = self.cache.path(listing.repo, listing.commit, mmproj.first)
        return ModelFiles(selection.name, text, mmproj, " ".join(selection.reasons))

    def _select(
        self, name: str, model: HubModel, listing: RepoListing, mmproj: str | os.PathLike[str] | None
    ) -> Selection:
        contents = sort_out(listing.files)
        if not contents.texts:
            raise ModelFileError(f"{model.repo} holds no GGUF of a text model.", "Name a repository of GGUF files.")
        wanted = None if mmproj is None else os.fspath(mmproj)
        local = expanded(wanted) if wanted is not None and expanded(wanted).is_file() else None
        reasons = _repo_reasons(name, model)
        if wanted is None and not contents.mmprojs:
            # A text model of another kind has none: that is the better thing to say.
            first, *parts = self.headers(listing, complete_texts(contents.texts, model.repo)[-1])
            validate_text_model(first, parts)
        if local:
            encoders = [ModelCopy(None, (RepoFile(str(local.absolute()), local.stat().st_size),))]
        else:
            prefer = self.precisions or partial(preferred_precision, on_progress=self.client.on_wait)
            best, why = choose_mmproj(contents.mmprojs, wanted, model.repo, prefer)
            others = [copy for copy in contents.mmprojs if copy != best] if wanted is None else []
            encoders = [best, *others]
            reasons += [why] if why else []
        text, encoder = None, encoders[0]
        if model.wanted:
            text = named_text(contents.texts, model.wanted, model.repo)
        else:
            whole = complete_texts(contents.texts, model.repo)
            text = whole[0]
            if len(whole) > 1:
                choice = self.chooser(self._choices(name, model, listing, whole, encoders))
                text, encoder = choice.text, choice.mmproj
                reasons.insert(0, choice.reason)
        return Selection(name, listing, model.revision, text, local or encoder, tuple(reasons))

    def _choices(
        self,
        name: str,
        model: HubModel,
        listing: RepoListing,
        texts: Sequence[ModelCopy],
        encoders: Sequence[ModelCopy],
    ) -> Choices:
        """Return the files to choose from, with the catalogue's shape, or with that of headers if it does not fit."""
        spec = model.spec
        smallest = min(texts, key=lambda copy: copy.size or 0)
        if spec and spec.text and spec.vision:
            shape = nominal_shape(spec.text, spec.vision)
            if listed_candidates(name, [smallest], encoders, shape):
                return Choices(name, texts, encoders, shape, {})
        shape = shape_from_headers(self.headers(listing, smallest), self._header_of(listing, encoders[0]))
        return Choices(name, texts, encoders, shape, {smallest.first.path: shape.text})


def _repo_reasons(name: str, model: HubModel) -> list[str]:
    """Say whose files are taken where the user named the repository of the original weights."""
    if "/" not in name or model.repo.casefold() in name.casefold():
        return []
    return [f"OpenGVLab has no GGUF files of it: those of {model.repo} are taken."]
