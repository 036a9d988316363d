"""How the checks of a trial went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

Kind = Literal["right", "wrong", "died", "refused", "hung", "unknown"]

_LASTING_SIGNALS: Final = ("SIGILL", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGTRAP", "SIGABRT", "SIGSYS")


@dataclass(frozen=True)
class Outcome:
    """How one check went.

    Attributes:
        kind: "right"; "wrong", an answer further from the known one than rounding explains; "died", the process ended;
            "refused", llama.cpp gave an error; "hung", no answer in time; "unknown", there is no such check.
        what: what happened, to follow the name of the check; empty where it was right.
        signal: what ended the process, such as "SIGILL"; empty where it was no signal.
        distance: of the answer from the known one, as a part of it.
        bound: the largest distance that counts as right.
        shifted: whether the vision encoder gives patches the position rows of their neighbours; None where there is
            none in the check.

    Raises:
        ValueError: a kind that there is none of, or numbers that are none.
    """

    kind: Kind
    what: str = ""
    signal: str = ""
    distance: float | None = None
    bound: float | None = None
    shifted: bool | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or not (self.shifted is None or isinstance(self.shifted, bool)):
            raise ValueError(f"no outcome: {self}")
        if not isinstance(self.what, str) or not isinstance(self.signal, str):
            raise ValueError(f"no outcome: {self}")
        if not all(number is None or math.isfinite(number) for number in (self.distance, self.bound)):
            raise ValueError(f"no outcome: {self}")

    @property
    def failed(self) -> bool:
        """Whether something went wrong. What there is no check of counts as right."""
        return self.kind not in ("right", "unknown")

    @property
    def lasts(self) -> bool:
        """Whether another try would go alike. A process that was killed, waited or found no memory may do better."""
        return self.kind in ("right", "wrong", "unknown") or (self.kind == "died" and self.signal in _LASTING_SIGNALS)

    def plain(self) -> dict[str, Any]:
        """For JSON; fields that say nothing are left out."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


Outcomes = Mapping[str, Outcome]
"""By name of the check: "weights Q4_K", "attention f16", "flash attention f16", "encoder F16", ..."""


def outcome_of(plain: Mapping[str, Any]) -> Outcome:
    """An outcome as `Outcome.plain` gave it.

    Raises:
        TypeError, ValueError: it is none.
    """
    return Outcome(**plain)
