"""The kept results of trials: one file for all machines that share a home folder.

An entry is valid for the library, CPU and drivers it was made with (`Circumstances`) and for no other. The file holds
the newest sixteen entries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from internvl_gguf.hardware.trial.circumstances import Circumstances
from internvl_gguf.hardware.trial.outcomes import Outcomes, outcome_of
from internvl_gguf.utils.paths import write_atomically
from internvl_gguf.utils.records import TRIAL

_VERSION: Final = 1
_MOST_ENTRIES: Final = 16
_LOCK_SECONDS: Final = 5.0  # a writer that takes longer is stopped, or its file system knows no locks

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
    kept = _read().get(here.digest)
    entry = Entry()
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        entry = _entry_of(kept) if kept is not None else entry
    return entry.merged(found_here(here))


def found_here(here: Circumstances) -> Entry:
    """Return the results that this process itself found."""
    return _in_this_process.get(here.digest, Entry())


def record(here: Circumstances, found: Entry) -> OSError | None:
    """Add results to the file; the entries of other machines stay.

    Returns:
        The error if the file could not be written, else None.
    """
    from filelock import FileLock, Timeout  # only now: every command reads a record, few write one

    found = replace(found, tried_at=datetime.now().astimezone().isoformat(timespec="seconds"))
    _in_this_process[here.digest] = found_here(here).merged(found)
    path = TRIAL.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as locked:
            with suppress(Timeout, NotImplementedError):
                locked.enter_context(FileLock(path.with_name(f".{path.stem}.lock"), timeout=_LOCK_SECONDS))
            entries = _read()
            known = Entry()
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                known = _entry_of(entries.pop(here.digest, {}))
            facts = {"processor": here.processor, "library": here.library, "driver": here.driver}
            entries[here.digest] = {**facts, **_plain(known.merged(found))}
            newest = dict(list(entries.items())[-_MOST_ENTRIES:])
            write_atomically(path, json.dumps({"version": _VERSION, "entries": newest}).encode())
    except OSError as error:
        return error
    return None


def _read() -> dict[str, Any]:
    """Return the entries by digest, the newest last; none if the file is missing, damaged or of another version."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = TRIAL.read()
        if kept["version"] == _VERSION and isinstance(kept["entries"], dict):
            return dict(kept["entries"])
    return {}


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
