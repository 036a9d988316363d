"""Names of the InternVL family: which release and size a name means, as converters and publishers write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# "InternVL3-14B-Instruct", "Internvl3 14B", "InternVL3_5-8B": series, half series, size in billions.
_MODEL_NAME: Final = re.compile(
    r"intern[-_ ]?vl[-_ ]?(\d)(?:[._](\d))?(?:[^/]*?[-_ ](\d+)b(?![a-z0-9]))?", re.IGNORECASE
)


@dataclass(frozen=True)
class NamedModel:
    """A member of the InternVL family, as its name describes it.

    Attributes:
        series: "3", "2.5" and so on.
        billions: the size in its name; None where the name has none.
    """

    series: str
    billions: int | None

    def __str__(self) -> str:
        return f"{self.generation}-{self.billions}B" if self.billions else self.generation

    @property
    def generation(self) -> str:
        """The name of its release: "InternVL3.5"."""
        return f"InternVL{self.series}"

    def contradicts(self, other: NamedModel) -> bool:
        """Return whether the two cannot be the same model."""
        sizes = {self.billions, other.billions} - {None}
        return self.series != other.series or len(sizes) > 1


def named_model(name: str) -> NamedModel | None:
    """Return the InternVL model that a name contains; None if there is none."""
    match = _MODEL_NAME.search(name)
    if match is None:
        return None
    series, half, billions = match.groups()
    return NamedModel(f"{series}.{half}" if half else series, int(billions) if billions else None)
