"""A critic that is measured as a judge: its files, checked by their headers before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from internvl_gguf.config import EngineOptions
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.header import read_header
from internvl_gguf.gguf.validation import validate_files, validate_mmproj
from internvl_gguf.models.critic_tables import critic_description

if TYPE_CHECKING:
    from internvl_gguf.critics import Critic
    from internvl_gguf.gguf.header import GGUFHeader
    from internvl_gguf.models.critic_description import CriticDescription
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.utils.notices import Notice


@dataclass(frozen=True)
class CriticFiles:
    """The files of a critic.

    Attributes:
        name: as it was asked for, by which its description is found.
        label: what the reports call it.
        text, mmproj: paths.
    """

    name: str
    label: str
    text: str
    mmproj: str

    @classmethod
    def of(cls, files: ModelFiles) -> Self:
        """Return the critic that these files are.

        Raises:
            ModelFileError: one cannot be read, is damaged, or is another kind of model.
            ModelPairError: they were not made for each other.
        """
        validate_files(files.text, files.mmproj, check_weights=False)
        return cls(files.name, files.label, str(files.text.absolute()), str(files.mmproj.absolute()))

    def check_tiles(self, encoders: Sequence[GGUFHeader]) -> None:
        """Check that it can be shown the tiles that the asked models' encoders are shown.

        Raises:
            InvalidRequestError: its tiles are of another size.
        """
        own = validate_mmproj(read_header(Path(self.mmproj))).image_size
        for encoder in encoders:
            size = validate_mmproj(encoder).image_size
            if size != own:
                raise InvalidRequestError(
                    f"{self.label} cannot judge: it sees tiles of {own} pixels, {Path(encoder.label).name} of {size}.",
                    "Take a critic whose encoder has tiles of the size that the asked model's has.",
                )

    @property
    def identity(self) -> dict[str, Any]:
        """Everything but its files that its scores depend on: how it is asked, and its name in the reports."""
        return {"label": self.label, "description": asdict(self.description)}

    @property
    def description(self) -> CriticDescription:
        """How it is asked."""
        return critic_description(None, self.name)

    def open(self, on_notice: Notice, **engine: Unpack[EngineOptions]) -> Critic:
        """Load it.

        Raises:
            InvalidRequestError: it is no critic: its vocabulary does not have the tokens of a verdict.
            InternVLError: it cannot be loaded.
        """
        from internvl_gguf.critics import Critic

        return Critic.open(self.text, self.mmproj, self.description, on_notice=on_notice, **engine)
