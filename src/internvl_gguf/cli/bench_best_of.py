"""`internvl bench --best-of`: how many answers, who judges them, and the critics among the judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from internvl_gguf.cli.output import say
from internvl_gguf.config import EngineConfig
from internvl_gguf.errors import InvalidRequestError

if TYPE_CHECKING:
    from internvl_gguf.bench.best_of.settings import BestOfSettings
    from internvl_gguf.bench.pairs import FilePair


def best_of_settings(
    counts: str | None, judges: list[str] | None, temperature: float | None, seed: int | None
) -> BestOfSettings | None:
    """Return how several answers to each question are compared; None if they are not.

    Raises:
        InvalidRequestError: they cannot be compared so, or it is said how but not that they are to be.
    """
    from internvl_gguf.bench.best_of.settings import BestOfSettings

    if counts is None:
        given = {"--judge": judges, "--temperature": temperature, "--seed": seed}
        first = next((flag for flag, value in given.items() if value is not None), None)
        if first is not None:
            raise InvalidRequestError(f"{first} is for --best-of, which was not given.", "Add --best-of 1,2,4,8.")
        return None
    return BestOfSettings.parse(counts, tuple(judges or ()), seed, temperature)


def with_critics(settings: BestOfSettings | None) -> BestOfSettings | None:
    """Return the settings with the files of the critics among the judges, fetched if they are not here.

    Raises:
        InvalidRequestError: a judge that is neither known nor a model.
        ModelFileError, ModelPairError: files that are damaged, or do not belong together.
        HubError: they cannot be fetched.
    """
    from internvl_gguf.bench.best_of.critic_files import CriticFiles
    from internvl_gguf.cli.judges import find_judge, is_critic

    if settings is None:
        return None
    found = {}
    for name in filter(is_critic, settings.judges):
        found[name] = CriticFiles.of(find_judge(name, EngineConfig()).files)
    return settings.with_critics(found)


def check_critics(settings: BestOfSettings | None, pairs: Sequence[FilePair]) -> None:
    """Check that the critics can be shown what the models to be measured are shown; say which are not known as critics.

    Raises:
        InvalidRequestError: one of them cannot.
    """
    from internvl_gguf.models.critic_tables import doubt_about

    for critic in settings.critics if settings else ():
        critic.check_tiles([pair.vision.header for pair in pairs])
        if doubt := doubt_about(critic.name, critic.description):
            say(doubt)
