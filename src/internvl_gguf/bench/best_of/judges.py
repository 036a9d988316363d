"""The judges that are measured, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.judging import JUDGES, Judge


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
    """Return the judges of these names.

    Raises:
        InvalidRequestError: there is no such judge.
    """
    unknown = next((name for name in names if name not in JUDGES), None)
    if unknown is not None:
        raise InvalidRequestError(f"--judge names {unknown!r}.", f"Use {' or '.join(JUDGES)}.")
    return tuple(MeasuredJudge(name, JUDGES[name]) for name in names)
