"""From what a person types to the pairs of files that are to be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from internvl_gguf.bench.pairs import Pair, TextHalf, VisionHalf, fetch_here
from internvl_gguf.errors import HubError, InternVLError, ModelFileError
from internvl_gguf.hardware.encoder_precision import Precision, preferred_precision
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.listing import ModelListing, list_model
from internvl_gguf.models.local_files import ModelFiles, folder_contents, local_files
from internvl_gguf.models.names import DEMO, HubModel, LocalModel, parse_model_name
from internvl_gguf.models.select_files import complete_texts

if TYPE_CHECKING:
    from internvl_gguf.models.hub_resolver import HubResolver, Selection

_DEMO_PRECISION = "F16"  # of its mmproj, as it is shipped
_ASK_FOR_SOME = "Name quants, as in {model}:Q4_K_M,Q8_0, or use --all or --fits SIZE. It has {names}."

Ladder = Callable[[Sequence[str], Sequence[str]], tuple[Path, list[str]]]
"""Makes quants of the demo model, all there are where none is named, and precisions of its mmproj.

Gives the folder they are in, and the quants' names.
"""


class Chooser(Protocol):
    """Decides which quants are measured where no names say so."""

    def choose(self, listing: ModelListing) -> list[str]:
        """Of the quants of a model those to be measured, by their files."""

    def none_chosen(self) -> InternVLError:
        """The error where that was none."""


@dataclass(frozen=True)
class Wanted:
    """What is to be measured, in a person's words.

    Attributes:
        models: names with quants after a colon, paths, folders or `demo`.
        mmprojs: precisions or files; none takes the one that suits this machine.
        all_quants: whether every quant is wanted.
        chooser: decides where no names say so.
    """

    models: tuple[str, ...]
    mmprojs: tuple[str, ...] = ()
    all_quants: bool = False
    chooser: Chooser | None = None


@dataclass
class PairFinder:
    """Finds the files of models, here and on the hub.

    Attributes:
        make_resolver: with what to ask the hub; called where it is needed.
        make_ladder: makes the quants of the demo model.
        say: told in one line what takes a while, and what was chosen.
    """

    make_resolver: Callable[[], HubResolver]
    make_ladder: Ladder
    say: Callable[[str], None]
    _texts: dict[str, TextHalf] = field(default_factory=dict)
    _visions: dict[str, VisionHalf] = field(default_factory=dict)

    def find(self, wanted: Wanted) -> tuple[str, list[Pair]]:
        """The name of the model and its pairs, in the order in which they were asked for, each once.

        Raises:
            ModelFileError, ModelPairError: no such model, quant or mmproj; no quant was asked for; damaged headers.
            InsufficientMemoryError: nothing fits that is to fit.
            HubError: a repository that has to be asked for and cannot.
        """
        names: list[str] = []
        pairs: dict[tuple[int, int], Pair] = {}
        for model in wanted.models:
            name, found = self._of_model(model, wanted)
            names.append(name)
            for pair in found:
                pairs.setdefault((id(pair.text), id(pair.vision)), pair)  # each file was read once
        if not pairs and wanted.chooser:
            raise wanted.chooser.none_chosen()
        return ", ".join(dict.fromkeys(names)), list(pairs.values())

    def _of_model(self, text: str, wanted: Wanted) -> tuple[str, list[Pair]]:
        head, _, quants = text.partition(":")
        if head.lower() == DEMO and (quants or wanted.all_quants or wanted.chooser):
            plain = replace(wanted, mmprojs=wanted.mmprojs or (_DEMO_PRECISION,))
            precisions = [mmproj for mmproj in plain.mmprojs if not mmproj.lower().endswith(".gguf")]
            folder, labels = self.make_ladder(split_names(quants) if quants else (), precisions)
            typed = None if wanted.chooser and not quants else ",".join(labels)
            return DEMO, self._local(str(folder), LocalModel(folder, typed), plain)
        model = parse_model_name(text, load_catalog())
        if isinstance(model, LocalModel):
            name = DEMO if model.is_demo else model.path.name if model.path.is_dir() else model.path.stem
            return name, self._local(text, model, wanted)
        return model.spec.name if model.spec else model.repo, self._hub(model, wanted)

    def _local(self, name: str, model: LocalModel, wanted: Wanted) -> list[Pair]:
        """Pairs of a folder, or of one file."""
        mmproj = wanted.mmprojs[0] if wanted.mmprojs else None
        if model.path.is_dir():
            names: Iterable[str | None] = self._names(
                model.wanted,
                wanted,
                lambda: list_model(str(model.path), mmproj=mmproj),
                lambda: [copy.first.path for copy in complete_texts(folder_contents(model.path).texts, name)],
            )
        else:
            names = [None] if wanted.chooser is None or wanted.chooser.choose(list_model(name, mmproj=mmproj)) else []
        return [
            self._pair_here(local_files(name, LocalModel(model.path, quant), each, self._precisions))
            for quant in names
            for each in wanted.mmprojs or (None,)
        ]

    def _hub(self, model: HubModel, wanted: Wanted) -> list[Pair]:
        """Pairs of a repository; of what is not here the headers alone are read."""
        where = f"{model.repo}@{model.revision}" if model.revision else model.repo
        names = self._names(
            model.wanted, wanted, partial(list_model, where, resolver=lambda: self._resolver), lambda: None
        )
        for name in names:
            self._resolver.hub_model(f"{where}:{name}")  # what the catalogue knows not to be there needs no request
        mmprojs: Sequence[str | None] = wanted.mmprojs or (None,)
        pairs = []
        for name in names:
            for mmproj in mmprojs:
                pairs.append(self._hub_pair(f"{where}:{name}", mmproj))
            if mmprojs == (None,):  # what was chosen for the first serves all: rows differ in what was asked for
                mmprojs = (pairs[0].vision.file,)
        return pairs

    def _hub_pair(self, name: str, mmproj: str | None) -> Pair:
        cached = self._resolver.cached(name, mmproj)
        if cached:
            return self._pair_here(cached)
        selection = self._resolver.select(name, mmproj)
        for reason in selection.reasons:
            self.say(reason)
        fetch = partial(self._resolver.fetch, selection)
        return Pair.of(self._remote_text(selection), self._remote_vision(selection), fetch, is_here=False)

    def _names(
        self,
        typed: str | None,
        wanted: Wanted,
        listing: Callable[[], ModelListing],
        folder: Callable[[], list[str] | None],
    ) -> list[str]:
        """The quants of a model that are wanted, by names or files.

        Args:
            typed: what was typed after the colon.
            wanted: what else was asked for.
            listing: gives what there is.
            folder: gives what is taken where nothing was asked for; None where something has to be.
        """
        if typed is not None:
            return split_names(typed)
        if wanted.chooser:
            return wanted.chooser.choose(listing())
        files = folder()
        if files is not None:
            return files
        found = listing()
        if wanted.all_quants:
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

    def _pair_here(self, files: ModelFiles) -> Pair:
        if files.choice:
            self.say(files.choice)
        halves = self._text_here(files.text), self._vision_here(files.mmproj)
        return Pair.of(*halves, fetch_here(files), is_here=True)

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
    """Names with commas between them.

    Raises:
        ModelFileError: one of them is empty.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ModelFileError(f"A quant is missing in {text!r}.", "Write them as in NAME:Q4_K_M,Q8_0.")
    return names


def files_of(listing: ModelListing) -> list[str]:
    """The files of all quants of a listing.

    Raises:
        HubError: the listing is an estimate, for want of the real one.
    """
    if not all(candidate.file for candidate in listing.candidates):
        reason = listing.notices[0] if listing.notices else f"The files of {listing.name} are not known."
        raise HubError(reason, "Name quants that are here, or run it again with a network.")
    return [candidate.file for candidate in listing.candidates]
