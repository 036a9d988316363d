"""What trials found, kept with the other records: one file for all machines that share a home folder.

An entry counts for the library, CPU and drivers it was made with (`Circumstances`) and for no other; the entries of
others stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from internvl_gguf.hardware.trial.circumstances import Circumstances
from internvl_gguf.hardware.trial.outcomes import Outcomes, outcome_of
from internvl_gguf.utils.records import TRIAL

_in_this_process: dict[str, Entry] = {}
"""What this process found, by digest: it holds where nothing can be written, too."""


@dataclass(frozen=True)
class Entry:
    """What was found under some circumstances.

    Attributes:
        imports: whether the library could be loaded.
        features: instruction sets the build uses, as llama.cpp names them.
        steps: outcomes of the checks by what was tried (`Step.name`).
        whole: names of the steps all of whose checks were done, not only those that a model needed.
        tried_at: when something was last tried, in ISO 8601 with the offset from UTC.
    """

    imports: bool = False
    features: tuple[str, ...] = ()
    steps: Mapping[str, Outcomes] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()
    tried_at: str = ""

    def merged(self, newer: Entry) -> Entry:
        """This with what a newer one adds or finds otherwise."""
        return Entry(
            imports=self.imports or newer.imports,
            features=newer.features or self.features,
            steps={**self.steps, **{name: self._with(name, newer) for name in newer.steps}},
            whole=self.whole | newer.whole,
            tried_at=newer.tried_at or self.tried_at,
        )

    def _with(self, step: str, newer: Entry) -> Outcomes:
        """Outcomes of a step: the newer ones, and of a part of its checks beside those of the others."""
        old = {} if step in newer.whole else self.steps.get(step, {})
        return {**old, **newer.steps[step]}


def recorded(here: Circumstances) -> Entry:
    """What is known under these circumstances; an empty entry where nothing is."""
    return (TRIAL.get(here.digest, _entry_of) or Entry()).merged(found_here(here))


def found_here(here: Circumstances) -> Entry:
    """What this process itself found."""
    return _in_this_process.get(here.digest, Entry())


def record(here: Circumstances, found: Entry) -> OSError | None:
    """Add what was found to what is known; the entries of other machines stay.

    Returns:
        Why it could not be kept; None where it was.
    """
    found = replace(found, tried_at=datetime.now().astimezone().isoformat(timespec="seconds"))
    _in_this_process[here.digest] = found_here(here).merged(found)
    facts = {"processor": here.processor, "library": here.library, "driver": here.driver}
    return TRIAL.merge(here.digest, _entry_of, lambda known: {**facts, **_plain((known or Entry()).merged(found))})


def _plain(entry: Entry) -> dict[str, Any]:
    steps = {
        name: {check: outcome.plain() for check, outcome in outcomes.items()} for name, outcomes in entry.steps.items()
    }
    return {
        "imports": entry.imports,
        "features": entry.features,
        "steps": steps,
        "whole": sorted(entry.whole),
        "tried_at": entry.tried_at,
    }


def _entry_of(kept: Mapping[str, Any]) -> Entry:
    """An entry as it was written.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none.
    """
    steps = {
        str(name): {str(check): outcome_of(outcome) for check, outcome in outcomes.items()}
        for name, outcomes in kept["steps"].items()
    }
    features, whole = tuple(map(str, kept["features"])), frozenset(map(str, kept["whole"]))
    return Entry(kept["imports"] is True, features, steps, whole, str(kept["tried_at"]))
