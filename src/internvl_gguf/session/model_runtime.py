"""The protocol of a loaded model as sessions use it, whether it runs in this process or in a worker."""

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
    """A loaded model with its engine, shared by a session and its forks; see `InProcessRuntime` for each part."""

    files: ModelFiles

    @property
    def text(self) -> TextModelFacts:
        """Facts from the header of the text model."""
        ...

    @property
    def vision(self) -> MmprojFacts:
        """Facts from the header of the vision encoder."""
        ...

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Ids of the template's control tokens."""
        ...

    @property
    def configuration(self) -> Configuration:
        """The configuration it is loaded with, its memory and expected speed included."""
        ...

    @property
    def host(self) -> HostSettings:
        """The threads and batch sizes it uses on the CPU."""
        ...

    @property
    def encoder_identity(self) -> bytes:
        """Hash of everything embeddings depend on besides the pixels. It may change with `revive`."""
        ...

    @property
    def identity(self) -> ModelIdentity:
        """The model, build and cache type that a saved KV cache belongs to."""
        ...

    @property
    def engine(self) -> ModelEngine:
        """The engine, which decodes and encodes."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether it can be used without being loaded again."""
        ...

    def revive(self) -> None:
        """Load it again if its process has died; called before each question.

        Raises:
            InternVLError: it cannot be loaded again.
        """
        ...

    def share(self) -> Self:
        """Count one more user and return this runtime."""
        ...

    def release(self) -> None:
        """Count one user less; the last one frees the model."""
        ...
