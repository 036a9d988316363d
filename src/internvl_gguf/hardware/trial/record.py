"""The kept results of trials: one file for all machines that share a home folder.

An entry is valid for the library, CPU and drivers it was made with (`Circumstances`) and for no other. Entries of other
machines stay.
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
"""Results of this process by digest; they are used also if the file cannot be written."""


@dataclass(frozen=True)
class Entry:
    """Results under some circumstances.

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
        """Return this entry updated by a newer one."""
        return Entry(
            imports=self.imports or newer.imports,
            features=newer.features or self.features,
            steps={**self.steps, **{name: self._with(name, newer) for name in newer.steps}},
            whole=self.whole | newer.whole,
            tried_at=newer.tried_at or self.tried_at,
        )

    def _with(self, step: str, newer: Entry) -> Outcomes:
        """Return outcomes of a step: the newer ones, added to the older ones if only a part of the checks ran."""
        old = {} if step in newer.whole else self.steps.get(step, {})
        return {**old, **newer.steps[step]}


def recorded(here: Circumstances) -> Entry:
    """Return the results known under these circumstances; an empty entry if there are none."""
    return (TRIAL.get(here.digest, _entry_of) or Entry()).merged(found_here(here))


def found_here(here: Circumstances) -> Entry:
    """Return the results that this process itself found."""
    return _in_this_process.get(here.digest, Entry())


def record(here: Circumstances, found: Entry) -> OSError | None:
    """Add results to the file; the entries of other machines stay.

    Returns:
        The error if the file could not be written, else None.
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
    """Parse a kept entry.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is damaged.
    """
    steps = {
        str(name): {str(check): outcome_of(outcome) for check, outcome in outcomes.items()}
        for name, outcomes in kept["steps"].items()
    }
    features, whole = tuple(map(str, kept["features"])), frozenset(map(str, kept["whole"]))
    return Entry(kept["imports"] is True, features, steps, whole, str(kept["tried_at"]))
