"""The judge that `--judge`, `/set judge` or a line of `--batch` names; a critic is loaded for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from internvl_gguf.cli.parameters import value_sources
from internvl_gguf.config import SamplingParams
from internvl_gguf.critics.found_critic import FoundCritic, no_judge
from internvl_gguf.errors import InvalidRequestError, MissingEncoderError, ModelFileError
from internvl_gguf.utils.kinds import JudgeName

if TYPE_CHECKING:
    from internvl_gguf.config import EngineConfig
    from internvl_gguf.critics import Critic


def is_critic(name: str) -> bool:
    """Return whether a judge's name is that of a model, which has to be loaded."""
    return name not in JudgeName.choices


def check_judge(name: str) -> None:
    """Check that a judge's name is one of a judge, or of a model; nothing is fetched or loaded.

    Raises:
        InvalidRequestError: it is neither.
    """
    if not is_critic(name):
        return
    from internvl_gguf.models.resolve import check_model

    with _errors_of_judge(name):
        check_model(name)


def with_named_judge(sampling: SamplingParams) -> SamplingParams:
    """Return a sampling whose judge is none that has to be loaded: a server loads no critics.

    Raises:
        InvalidRequestError: a critic is named for the server; one that config.toml has is for other commands, too.
    """
    if not is_critic(sampling.judge):
        return sampling
    if value_sources.get().get("judge") == "DEFAULT_MAP":
        return replace(sampling, judge=SamplingParams.judge)
    known = " or ".join(JudgeName.choices)
    raise InvalidRequestError(f"The server does not judge by {sampling.judge}.", f"Give --judge {known}.")


def find_judge(name: str, engine: EngineConfig) -> FoundCritic:
    """Return a critic by its model's name; its files are fetched if they are not here.

    Args:
        name: as models are named.
        engine: how models are run.

    Raises:
        InvalidRequestError: there is no such model.
        InternVLError: it cannot be fetched.
    """
    from internvl_gguf.cli.downloads import obtain
    from internvl_gguf.models.critic_tables import critic_description
    from internvl_gguf.planning.auto_quant import machine_chooser

    config = replace(engine, n_parallel=1, n_candidates=1, n_draft=0)
    with _errors_of_judge(name):
        return FoundCritic(name, obtain(name, None, machine_chooser(config)), critic_description(None, name), config)


@contextlib.contextmanager
def _errors_of_judge(name: str) -> Iterator[None]:
    """Turn what is wrong with a model into what is wrong with a judge of its name."""
    try:
        yield
    except MissingEncoderError as error:
        raise InvalidRequestError(
            f"{name} is no judge: {error.message}", "Put the mmproj of the critic into the same folder."
        ) from error
    except (InvalidRequestError, ModelFileError) as error:
        raise no_judge(name, error) from error


class LoadedJudge:
    """The critic that was asked for last, kept loaded until another is, or until `close`.

    Args:
        open_named: finds and loads the critic of a name.
    """

    def __init__(self, open_named: Callable[[str], Critic]) -> None:
        self._open = open_named
        self._name = ""
        self._critic: Critic | None = None

    def named(self, name: str) -> Critic:
        """Return the critic of a name. Raises as `find_judge` and `FoundCritic.open`."""
        if self._critic is None or name != self._name:
            self.close()
            self._critic, self._name = self._open(name), name
        return self._critic

    def close(self) -> None:
        """Free the critic. Closing twice is harmless."""
        critic, self._critic = self._critic, None
        if critic is not None:
            critic.close()

    def __enter__(self) -> LoadedJudge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
