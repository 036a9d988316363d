"""Find the pairs of files that the names on the command line stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from internvl_gguf.bench.pairs import FilePair, TextHalf, VisionHalf, fetch_here
from internvl_gguf.errors import HubError, InternVLError, ModelFileError
from internvl_gguf.gguf.file_kind import FileKind, kind_of
from internvl_gguf.gguf.header import read_header
from internvl_gguf.hardware.encoder_precision import Precision, preferred_precision
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.listing import ModelListing, list_model
from internvl_gguf.models.local_files import ModelFiles, folder_contents, local_files
from internvl_gguf.models.names import DEMO, HubModel, LocalModel, parse_model_name
from internvl_gguf.models.select_files import complete_texts
from internvl_gguf.utils.paths import expanded

if TYPE_CHECKING:
    from internvl_gguf.models.hub_resolver import HubResolver, Selection

_DEMO_PRECISION = "F16"  # of its mmproj, as it is shipped
_ASK_FOR_SOME = "Name quants, as in {model}:Q4_K_M,Q8_0, or use --all or --fits SIZE. It has {names}."

Ladder = Callable[[Sequence[str], Sequence[str]], tuple[Path, list[str]]]
"""Makes quants of the demo model (all if none is named) and of its mmproj; returns the folder and the quants' names."""


class Chooser(Protocol):
    """Chooses the quants to measure if the user names none."""

    def choose(self, listing: ModelListing) -> list[str]:
        """Return the files of the quants to measure."""

    def none_chosen(self) -> InternVLError:
        """Return the error for the case that no quant was chosen."""


@dataclass(frozen=True)
class RequestedModels:
    """The models to measure, as the user names them.

    Attributes:
        models: names with quants after a colon, paths, folders or `demo`.
        mmprojs: precisions or files; empty takes the one that suits this machine.
        all_quants: whether every quant is requested.
        chooser: chooses the quants if none is named.
    """

    models: tuple[str, ...]
    mmprojs: tuple[str, ...] = ()
    all_quants: bool = False
    chooser: Chooser | None = None


@dataclass
class PairFinder:
    """Finds the files of models, here and on the hub.

    Attributes:
        make_resolver: makes the hub resolver; called when it is first needed.
        make_ladder: makes the quants of the demo model.
        say: called with one line about a choice, or about work that takes a while.
    """

    make_resolver: Callable[[], HubResolver]
    make_ladder: Ladder
    say: Callable[[str], None]
    _texts: dict[str, TextHalf] = field(default_factory=dict)
    _visions: dict[str, VisionHalf] = field(default_factory=dict)

    def find(self, requested: RequestedModels) -> tuple[str, list[FilePair]]:
        """Return the name of the model and its pairs, in the order of the request, each once.

        Raises:
            ModelFileError, ModelPairError: no such model, quant or mmproj; no quant was named; damaged headers.
            InsufficientMemoryError: no quant fits the budget.
            HubError: a repository is needed and cannot be reached.
        """
        requested = self._sorted_out(requested)
        names: list[str] = []
        pairs: dict[tuple[int, int], FilePair] = {}
        for model in requested.models:
            name, found = self._of_model(model, requested)
            names.append(name)
            for pair in found:
                pairs.setdefault((id(pair.text), id(pair.vision)), pair)  # each file was read once
        if not pairs and requested.chooser:
            raise requested.chooser.none_chosen()
        return ", ".join(dict.fromkeys(names)), list(pairs.values())

    def _sorted_out(self, requested: RequestedModels) -> RequestedModels:
        """Return the request with the vision encoders among its files as its encoders, and no importance matrices.

        Encoders that were named apart stay the only ones.

        Raises:
            ModelFileError: nothing else is named, or a file that is no GGUF.
        """
        kinds = {model: self._kind(model) for model in requested.models}
        models = tuple(model for model, kind in kinds.items() if kind == "text")
        if not models:
            raise ModelFileError(
                f"There is no text model among {', '.join(kinds)}.", "Name text models; encoders may stand beside them."
            )
        encoders = tuple(model for model, kind in kinds.items() if kind == "mmproj")
        return replace(requested, models=models, mmprojs=requested.mmprojs or encoders)

    def _kind(self, model: str) -> FileKind:
        """Return what was named: what is no file is a model by its name. Importance matrices are told of."""
        path = expanded(model)
        kind = kind_of(read_header(path)) if model.lower().endswith(".gguf") and path.is_file() else "text"
        if kind == "matrix":
            self.say(f"{model} is an importance matrix, not a model: it is left out.")
        return kind

    def _texts_in(self, folder: Path, name: str) -> list[str]:
        """Return the text models of a folder by their paths in it."""
        paths = [copy.first.path for copy in complete_texts(folder_contents(folder).texts, name)]
        return [path for path in paths if self._kind(str(folder / path)) == "text"]

    def _of_model(self, text: str, requested: RequestedModels) -> tuple[str, list[FilePair]]:
        head, _, quants = text.partition(":")
        if head.lower() == DEMO and (quants or requested.all_quants or requested.chooser):
            plain = replace(requested, mmprojs=requested.mmprojs or (_DEMO_PRECISION,))
            precisions = [mmproj for mmproj in plain.mmprojs if not mmproj.lower().endswith(".gguf")]
            folder, labels = self.make_ladder(split_names(quants) if quants else (), precisions)
            typed = None if requested.chooser and not quants else ",".join(labels)
            return DEMO, self._local(str(folder), LocalModel(folder, typed), plain)
        model = parse_model_name(text, load_catalog())
        if isinstance(model, LocalModel):
            name = DEMO if model.is_demo else model.path.name if model.path.is_dir() else model.path.stem
            return name, self._local(text, model, requested)
        return model.spec.name if model.spec else model.repo, self._hub(model, requested)

    def _local(self, name: str, model: LocalModel, requested: RequestedModels) -> list[FilePair]:
        """Return the pairs of a folder, or of one file."""
        mmproj = requested.mmprojs[0] if requested.mmprojs else None
        if model.path.is_dir():
            names: Iterable[str | None] = self._names(
                model.wanted,
                requested,
                lambda: list_model(str(model.path), mmproj=mmproj),
                lambda: self._texts_in(model.path, name),
            )
        else:
            names = (
                [None] if requested.chooser is None or requested.chooser.choose(list_model(name, mmproj=mmproj)) else []
            )
        return [
            self._pair_here(local_files(name, LocalModel(model.path, quant), each, self._precisions))
            for quant in names
            for each in requested.mmprojs or (None,)
        ]

    def _hub(self, model: HubModel, requested: RequestedModels) -> list[FilePair]:
        """Return the pairs of a repository; of remote files only the headers are read."""
        where = f"{model.repo}@{model.revision}" if model.revision else model.repo
        names = self._names(
            model.wanted, requested, partial(list_model, where, resolver=lambda: self._resolver), lambda: None
        )
        for name in names:
            self._resolver.hub_model(f"{where}:{name}")  # fails without a request if the catalogue lacks it
        mmprojs: Sequence[str | None] = requested.mmprojs or (None,)
        pairs = []
        for name in names:
            for mmproj in mmprojs:
                pairs.append(self._hub_pair(f"{where}:{name}", mmproj))
            if mmprojs == (None,):  # one mmproj for all: rows differ only as requested
                mmprojs = (pairs[0].vision.file,)
        return pairs

    def _hub_pair(self, name: str, mmproj: str | None) -> FilePair:
        cached = self._resolver.cached(name, mmproj)
        if cached:
            return self._pair_here(cached)
        selection = self._resolver.select(name, mmproj)
        for reason in selection.reasons:
            self.say(reason)
        fetch = partial(self._resolver.fetch, selection)
        return FilePair.of(self._remote_text(selection), self._remote_vision(selection), fetch, is_here=False)

    def _names(
        self,
        typed: str | None,
        requested: RequestedModels,
        listing: Callable[[], ModelListing],
        folder: Callable[[], list[str] | None],
    ) -> list[str]:
        """Return the names or files of the requested quants of a model.

        Args:
            typed: the text after the colon.
            requested: the whole request.
            listing: returns the model's listing.
            folder: returns the default quants if none is named; None if the user must name some.
        """
        if typed is not None:
            return split_names(typed)
        if requested.chooser:
            return requested.chooser.choose(listing())
        files = folder()
        if files is not None:
            return files
        found = listing()
        if requested.all_quants:
            return files_of(found)
        names = ", ".join(candidate.quant for candidate in found.candidates)
        raise ModelFileError(
            f"Which quants of {found.name} are to be measured?", _ASK_FOR_SOME.format(model=found.name, names=names)
        )

    @cached_property
    def _resolver(self) -> HubResolver:
        return self.make_resolver()

    def _precisions(self, labels: Sequence[str]) -> Precision:
        return preferred_precision(labels, self.say)

    def _pair_here(self, files: ModelFiles) -> FilePair:
        if files.choice:
            self.say(files.choice)
        halves = self._text_here(files.text), self._vision_here(files.mmproj)
        return FilePair.of(*halves, fetch_here(files), is_here=True)

    def _text_here(self, path: Path) -> TextHalf:
        key = str(path)
        if key not in self._texts:
            self._texts[key] = TextHalf.here(path)
        return self._texts[key]

    def _vision_here(self, path: Path) -> VisionHalf:
        key = str(path)
        if key not in self._visions:
            self._visions[key] = VisionHalf.here(path)
        return self._visions[key]

    def _remote_text(self, selection: Selection) -> TextHalf:
        copy = selection.text
        key = f"{selection.listing.repo}:{copy.first.path}"
        if key not in self._texts:
            self.say(f"Reading the header of {copy.first.path}")
            headers = self._resolver.headers(selection.listing, copy)
            self._texts[key] = TextHalf.of(copy.first.path, copy.size or 0, headers)
        return self._texts[key]

    def _remote_vision(self, selection: Selection) -> VisionHalf:
        if isinstance(selection.mmproj, Path):
            return self._vision_here(selection.mmproj)
        copy = selection.mmproj
        key = f"{selection.listing.repo}:{copy.first.path}"
        if key not in self._visions:
            header = self._resolver.mmproj_header(selection)
            self._visions[key] = VisionHalf.of(copy.first.path, copy.size or 0, header)
        return self._visions[key]


def split_names(text: str) -> list[str]:
    """Split a comma-separated list of names.

    Raises:
        ModelFileError: one of them is empty.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ModelFileError(f"A quant is missing in {text!r}.", "Write them as in NAME:Q4_K_M,Q8_0.")
    return names


def files_of(listing: ModelListing) -> list[str]:
    """Return the files of all quants of a listing.

    Raises:
        HubError: the listing is an estimate, since the real one could not be fetched.
    """
    if not all(candidate.file for candidate in listing.candidates):
        reason = listing.notices[0] if listing.notices else f"The files of {listing.name} are not known."
        raise HubError(reason, "Name quants that are here, or run it again with a network.")
    return [candidate.file for candidate in listing.candidates]
