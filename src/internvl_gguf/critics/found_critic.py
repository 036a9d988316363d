"""A critic whose files are here, and how it is opened: what a process needs to have a critic of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_gguf.errors import InternVLError, InvalidRequestError
from internvl_gguf.utils.kinds import JudgeName

if TYPE_CHECKING:
    from internvl_gguf.config import EngineConfig
    from internvl_gguf.critics.critic import Critic
    from internvl_gguf.models.critic_description import CriticDescription
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.session.model_runtime import LoadProgress
    from internvl_gguf.utils.notices import Notice


@dataclass(frozen=True)
class FoundCritic:
    """A critic whose files are here. It can be pickled.

    Attributes:
        name: its name.
        files: its files.
        description: how it is asked.
        engine: how it is run.
    """

    name: str
    files: ModelFiles
    description: CriticDescription
    engine: EngineConfig

    def open(self, on_load: LoadProgress, on_notice: Notice, *, in_worker: bool = False) -> Critic:
        """Load it.

        Args:
            on_load: called with the fraction of it that is loaded.
            on_notice: called with notices about it.
            in_worker: whether it runs in a process of its own.

        Raises:
            InvalidRequestError: it is no critic.
            InternVLError: it cannot be loaded.
        """
        from internvl_gguf.critics.critic import Critic
        from internvl_gguf.models.critic_tables import doubt_about

        if doubt := doubt_about(self.name, self.description):
            on_notice(doubt)
        try:
            return Critic.open(
                self.files.text,
                self.files.mmproj,
                self.description,
                on_load=on_load,
                on_notice=on_notice,
                worker=in_worker,
                **self.engine.options,
            )
        except InvalidRequestError as error:
            raise no_judge(self.name, error) from error


def no_judge(name: str, error: InternVLError) -> InvalidRequestError:
    """Return the error of a judge's name that is not one of a critic.

    Args:
        name: the name.
        error: what was found.
    """
    if (meant := name.strip().lower()) in JudgeName.choices:
        return InvalidRequestError(f"{name} is no judge.", f"Did you mean {meant}?")
    known = " and ".join(JudgeName.choices)
    return InvalidRequestError(f"{name} is no judge: {error.message}", f"{known} are judges, too. {error.hint}")
