"""One trial of the library for a whole test run, copied into the cache folder of every test."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from internvl_gguf.hardware.trial import Needs, find_usable_settings
from internvl_gguf.hardware.trial.circumstances import circumstances
from internvl_gguf.hardware.trial.first_import import ensure_importable
from internvl_gguf.hardware.trial.record import record, recorded
from internvl_gguf.utils.records import TRIAL


def keep_trial(temporary: pytest.TempPathFactory) -> None:
    """Put the trial of this run into this process and its cache folder; the first process of a run makes it."""
    shared = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with FileLock(shared / "trial.turn"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERNVL_CACHE", str(shared))
        ensure_importable()
        find_usable_settings(Needs())
        found = recorded(circumstances())
    record(circumstances(), found)


def copy_trial(folder: Path) -> None:
    """Put it into another cache folder, for processes that have only that."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(TRIAL.path, folder / TRIAL.name)
