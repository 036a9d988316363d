"""The judges that are measured, by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.judging import JUDGES, Judge

if TYPE_CHECKING:
    from internvl_gguf.bench.best_of.critic_files import CriticFiles
    from internvl_gguf.bench.best_of.settings import BestOfSettings
    from internvl_gguf.critics import Critic


@dataclass(frozen=True)
class MeasuredJudge:
    """A judge that is measured.

    Attributes:
        name: in the reports.
        judge: chooses among candidates.
        scores_alone: whether its score of a candidate does not depend on the others, as a critic's: it is then asked
            once about all of them, and of some of them the one with the highest of these scores is the best.
    """

    name: str
    judge: Judge
    scores_alone: bool = False


def named_judges(names: Sequence[str]) -> tuple[MeasuredJudge, ...]:
    """Return the judges of these names, which need no model of their own.

    Raises:
        InvalidRequestError: there is no such judge.
    """
    unknown = next((name for name in names if name not in JUDGES), None)
    if unknown is not None:
        raise InvalidRequestError(f"--judge names {unknown!r}.", f"Use {' or '.join(JUDGES)}.")
    return tuple(MeasuredJudge(name, JUDGES[name]) for name in names)


@contextmanager
def opened_judges(
    settings: BestOfSettings, open_critic: Callable[[CriticFiles], Critic]
) -> Iterator[tuple[MeasuredJudge, ...]]:
    """Yield all judges, critics loaded; they are freed at the end.

    Args:
        settings: who judges.
        open_critic: loads a critic.

    Raises:
        InternVLError: a critic cannot be loaded.
    """
    critics = {each.label: each for each in settings.critics}
    with ExitStack() as stack:
        yield tuple(
            MeasuredJudge(name, stack.enter_context(open_critic(critics[name])), scores_alone=True)
            if name in critics
            else named_judges([name])[0]
            for name in settings.judges
        )
