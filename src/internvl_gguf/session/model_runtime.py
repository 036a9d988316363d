"""A loaded model as sessions know it, in this process or in one of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from internvl_gguf.engine import ModelEngine
    from internvl_gguf.gguf.validation import MmprojFacts, TextModelFacts
    from internvl_gguf.hardware.cpu_tuning import HostSettings
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.planning.planner import Configuration
    from internvl_gguf.session.saved_file import ModelIdentity

LoadProgress = Callable[[float], None]
"""Called with the fraction of the text model that is loaded, 0 to 1."""


class ModelRuntime(Protocol):
    """A loaded model with its engine, shared by a session and its forks; `session.runtime.Runtime` has each part."""

    files: ModelFiles

    @property
    def text(self) -> TextModelFacts:
        """What the header of the text model says."""
        ...

    @property
    def vision(self) -> MmprojFacts:
        """What the header of the vision encoder says."""
        ...

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Ids of the template's control tokens."""
        ...

    @property
    def configuration(self) -> Configuration:
        """How it is loaded, with what that takes and how fast it should be."""
        ...

    @property
    def host(self) -> HostSettings:
        """How it uses the CPU."""
        ...

    @property
    def encoder_identity(self) -> bytes:
        """What embeddings depend on beside the pixels. It may change with `revive`."""
        ...

    @property
    def identity(self) -> ModelIdentity:
        """What the KV cache belongs to."""
        ...

    @property
    def engine(self) -> ModelEngine:
        """Decodes and encodes."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked without being loaded again."""
        ...

    def revive(self) -> None:
        """Load it again if its process has died; before each question.

        Raises:
            InternVLError: it cannot be loaded again.
        """
        ...

    def share(self) -> Self:
        """One more user of it."""
        ...

    def release(self) -> None:
        """One user less; the last one frees it."""
        ...
