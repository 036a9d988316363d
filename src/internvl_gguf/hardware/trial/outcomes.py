"""Outcomes of the checks of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

Kind = Literal["right", "wrong", "died", "refused", "hung", "unknown"]

_LASTING_SIGNALS: Final = ("SIGILL", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGTRAP", "SIGABRT", "SIGSYS")


@dataclass(frozen=True)
class Outcome:
    """Outcome of one check.

    Attributes:
        kind: "right"; "wrong", an answer further from the known one than rounding explains; "died", the process ended;
            "refused", llama.cpp gave an error; "hung", no answer in time; "unknown", there is no such check.
        what: what happened, to follow the name of the check; empty if right.
        signal: signal that ended the process, such as "SIGILL"; empty if none did.
        distance: relative distance of the answer from the known one.
        bound: the largest distance that counts as right.
        shifted: whether the vision encoder gives patches the position rows of their neighbours; None for checks
            without a vision encoder.

    Raises:
        ValueError: an unknown kind, or numbers that are not finite.
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
        """Whether the check went wrong; a check that does not exist counts as right."""
        return self.kind not in ("right", "unknown")

    @property
    def lasts(self) -> bool:
        """Whether another try would end the same. A process that was killed, hung or lacked memory may do better."""
        return self.kind in ("right", "wrong", "unknown") or (self.kind == "died" and self.signal in _LASTING_SIGNALS)

    def plain(self) -> dict[str, Any]:
        """Return the fields for JSON, without empty ones."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


Outcomes = Mapping[str, Outcome]
"""Outcomes by name of the check: "weights Q4_K", "experts Q4_K", "attention f16", "encoder F16", ..."""


def outcome_of(plain: Mapping[str, Any]) -> Outcome:
    """Return the outcome whose `Outcome.plain` was kept.

    Raises:
        TypeError, ValueError: it is not an outcome.
    """
    return Outcome(**plain)
