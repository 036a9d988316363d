"""Try the first import of llama.cpp on a machine in a child process, which may die of it."""

from __future__ import annotations

import os
from typing import Final

from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.identity import processor_name
from internvl_gguf.hardware.trial.build_hint import build_hint, loading_problem, missing_instruction_sets
from internvl_gguf.hardware.trial.circumstances import Circumstances, circumstances
from internvl_gguf.hardware.trial.record import Entry, record, recorded
from internvl_gguf.hardware.trial.trial_process import ProcessEnd, trial_process
from internvl_gguf.utils.child_process import python_module

COMMAND: Final = python_module("internvl_gguf.llama.trial.import_process")
_TIMEOUT: Final = 120.0  # seconds: drivers of several GPUs take some to start
_TRIED: Final = "_INTERNVL_IMPORT_TRIED"
"""Environment variable with the digest of a library that was imported: child processes need not try it again."""

_failed: dict[str, LibraryError] = {}


def ensure_importable() -> None:
    """Ensure that importing llama.cpp does not end this process: a kept record says so, or a child tries it now.

    Takes a millisecond with a record, else half a second.

    Raises:
        LibraryError: the library cannot be loaded here; the error says why and how to build one for this machine.
    """
    here = circumstances()
    if os.environ.get(_TRIED) == here.digest or recorded(here).imports:
        return
    if here.digest not in _failed:
        try:
            _try_import()
        except LibraryError as error:
            _failed[here.digest] = error
    if here.digest in _failed:
        raise _failed[here.digest]
    _remember(here)


def _remember(here: Circumstances) -> None:
    os.environ[_TRIED] = here.digest
    record(here, Entry(imports=True))


def _try_import() -> None:
    """Import llama.cpp in a child process.

    Raises:
        LibraryError: see `ensure_importable`.
    """
    built_for: tuple[str, ...] = ()
    with trial_process(COMMAND, {}, _TIMEOUT) as process:
        for line in process.lines():
            if "built_for" in line:
                built_for = tuple(line["built_for"])
            elif "error" in line:
                raise LibraryError(*loading_problem(line["error"]))
            elif "started" in line:
                return
    raise _death(process.end, built_for)


def _death(end: ProcessEnd, built_for: tuple[str, ...]) -> LibraryError:
    """Return the error for a library whose import ended the process."""
    lacking = missing_instruction_sets(built_for)
    if lacking and not end.hung:
        return LibraryError(
            f"The installed llama.cpp was built for another CPU: it uses {', '.join(lacking)}, which this one "
            f"({processor_name()}) lacks; the process that loaded it {end.what}.",
            build_hint(),
        )
    return LibraryError(
        f"The installed llama.cpp cannot be loaded: the process that tried it {end.what}.", build_hint()
    )
