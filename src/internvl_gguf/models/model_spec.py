"""Facts about a model that are known without the network: one entry of the catalogue."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from internvl_gguf.gguf.arch.base import TextShape, VisionShape
from internvl_gguf.gguf.family import named_model
from internvl_gguf.gguf.size_names import published_text, published_vision
from internvl_gguf.models.published_scores import PublishedScores

Status = Literal["listed", "documented", "named", "none"]


@dataclass(frozen=True)
class CatalogFile:
    """A file of a repository.

    Attributes:
        name: its path inside the repository, with forward slashes.
        size: bytes.
        exact: whether the size is exact; else a web page rounded it.
    """

    name: str
    size: int
    exact: bool


@dataclass(frozen=True)
class ModelSpec:
    """Facts about a model that are known without the network.

    Attributes:
        name: its name.
        aliases: other spellings of it.
        repo: the GGUF repository, owner/name; None if `status` is "none".
        other_repos: further repositories of the same weights, not listed here.
        revision: commit or branch of `repo`.
        status: how much is known of `repo`: "listed" (`files` is its whole listing), "documented" (llama.cpp's docs
            name it), "named" (others name it; it may be gone) or "none" (no repository is known).
        licence: as the model's page states it; None if unknown.
        parameters: number of weights, vision part included, to two or three digits; None if unknown.
        unsupported: why this package cannot run it; None if it can.
        text: shape of the text model; None if unknown.
        vision: shape of the vision encoder; None if unknown.
        scores: published scores of the unquantised model; None if none were seen.
        scores_of: name of the model that stands in for it where `scores` is None: the same after more training.
        files: the listing of `repo` at `revision`; empty unless `status` is "listed".
        origin: the file this entry was read from.
    """

    name: str
    aliases: tuple[str, ...] = ()
    repo: str | None = None
    other_repos: tuple[str, ...] = ()
    revision: str = "main"
    status: Status = "none"
    licence: str | None = None
    parameters: int | None = None
    unsupported: str | None = None
    text: TextShape | None = None
    vision: VisionShape | None = None
    scores: PublishedScores | None = None
    scores_of: str | None = None
    files: tuple[CatalogFile, ...] = ()
    origin: str = field(default="", compare=False)

    @property
    def spellings(self) -> tuple[str, ...]:
        """The name and its aliases."""
        return (self.name, *self.aliases)

    @property
    def generation(self) -> str:
        """The release that its name says: "InternVL3.5"; "" if it says none."""
        named = named_model(self.name)
        return named.generation if named else ""

    def is_like(self, other: ModelSpec) -> bool:
        """Return whether two models are one size of one release, perhaps after different training."""
        if self.text is None or other.text is None or self.generation != other.generation:
            return False
        return (self.text.n_layers, self.text.n_embd) == (other.text.n_layers, other.text.n_embd)

    def as_json(self) -> dict[str, Any]:
        """What `internvl list --catalog --json` says of it."""
        shown = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "origin"}
        shown["text"] = self.text and published_text(self.text)
        shown["vision"] = self.vision and published_vision(self.vision)
        shown["scores"] = self.scores and {"source": self.scores.source, **self.scores.figures}
        return shown | {"generation": self.generation, "files": [asdict(file) for file in self.files]}
